"""The model folder: components with config.json and model.safetensors, under one model_index.json."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adanat_cli.core.checkpoints.files import (
    atomic_path,
    clear_litter,
    fingerprint,
    load_tensors,
    save_tensors,
    sync,
    temporary_name,
    write_json,
    writing,
)
from adanat_cli.core.checkpoints.header import Header, read_header
from adanat_cli.core.checkpoints.index import COMPONENT, POLICY, ModelIndex, parse_index
from adanat_cli.core.checkpoints.lock import locked
from adanat_cli.core.checkpoints.portable import portable
from adanat_cli.core.config.schema import conform
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.reading import read_bytes, read_json, read_object

if TYPE_CHECKING:
    import torch
    from torch import Tensor

INDEX_FILE, LABELS_FILE, CARD_FILE = "model_index.json", "labels.json", "README.md"
REFERENCE_FILE = "features/reference.npz"
"""Statistics of real images in the model's own features; it goes with these when they are replaced."""
TEXT = "text"
"""The component of a text encoder that lives nowhere else: a tower of CLIP's architecture as transformers writes it."""
FURTHER_FILES: Mapping[str, tuple[str, ...]] = {TEXT: ("tokenizer.json", "tokenizer_config.json")}
"""What a component holds beside config.json and model.safetensors."""
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_PATIENCE = 60.0
"""Seconds for which a writer waits for another one of the same folder."""


@dataclass(frozen=True)
class Component:
    """One component about to be written.

    Attributes:
        name: "tokenizer", "nat", "features", "text" or "policies/steps-<T>".
        config: JSON values from which the network is built.
        tensors: its state dict.
        provenance: where the weights came from.
        files: content of ``FURTHER_FILES``.
    """

    name: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


def policy_component(num_steps: int) -> str:
    """Name of the component that holds the policy for ``num_steps`` steps."""
    return f"policies/steps-{num_steps}"


class ModelFolder:
    """A model on disk.

    Reading is strict: what ``model_index.json`` lists must be there and whole. Writing is atomic: all
    components of one call are first written under hidden temporary names, then renamed, and the index,
    which alone says what counts, is updated last. Paths of this machine are not written: see ``portable``.
    """

    writable = True
    """Whether components, labels and results can be added."""

    def __init__(self, path: Path | str) -> None:
        """Name a folder; nothing is read or made yet."""
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def name(self) -> str:
        """What to call the model before people."""
        return str(self.path)

    @property
    def title(self) -> str:
        """What to call the model in a heading or a file name: of the model of a run, the run's folder."""
        path = self.path.resolve()
        return path.parent.name if path.name == "model" else path.name

    def exists(self) -> bool:
        """Whether the folder holds a model index."""
        return (self.path / INDEX_FILE).is_file()

    @property
    def index(self) -> ModelIndex:
        """The index as it is on disk now.

        Raises:
            AdaNATError: if the folder holds no index, a damaged one or one of another version.
        """
        file = self.path / INDEX_FILE
        if not self.path.is_dir():
            raise AdaNATError(f"Model folder {self.path} does not exist; give a folder that holds {INDEX_FILE}.")
        if not file.is_file():
            inside = self.path / "model"
            if (inside / INDEX_FILE).is_file():
                raise AdaNATError(f"{self.path} is a run folder, and its model is in {inside}; give that.")
            raise AdaNATError(
                f"{self.path} is not a model folder: it holds no {INDEX_FILE}; give the folder that does, "
                "or make one with `adanat import`."
            )
        return parse_index(read_json(file), file)

    def has(self, component: str) -> bool:
        """Whether the index lists this component."""
        return component in self.index.components

    def config(self, component: str) -> dict[str, Any]:
        """Configuration of a component.

        Raises:
            AdaNATError: if the model has no such component, or its config.json is missing or damaged.
        """
        file = self._existing(component, _CONFIG)
        return read_object(file)

    def read(self, component: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Configuration and tensors of a component, on the CPU and in the stored number format.

        Raises:
            AdaNATError: if the model has no such component, a file is missing or damaged, or the weights are not those
                whose hash was written with them.
        """
        file = self._existing(component, _WEIGHTS)
        config, tensors = self.config(component), load_tensors(file)
        require(
            read_header(file).metadata.get("fingerprint") in (None, fingerprint(tensors)),
            f"{file} is damaged: its weights do not have the hash that was written with them; fetch or import it "
            "again, or repeat the training's command, which writes it anew.",
        )
        return config, tensors

    def component(self, name: str) -> Component:
        """All of a component, as it can be written into another folder.

        Raises:
            AdaNATError: if the model has no such component, or a file is missing or damaged.
        """
        config, tensors = self.read(name)
        files = {file: self._existing(name, file) for file in FURTHER_FILES.get(name, ())}
        missing = next((path for path in files.values() if not path.is_file()), None)
        require(missing is None, f"{missing} does not exist; fetch or write the model again.")
        told = self.index.provenance.get(name, {})
        return Component(name, config, tensors, told, {file: read_bytes(path) for file, path in files.items()})

    def header(self, component: str) -> Header:
        """Shapes and metadata of a component's weights, without loading them."""
        return read_header(self._existing(component, _WEIGHTS))

    def fingerprint(self, component: str) -> str:
        """sha256 of a component's stored weights: from the file's metadata, or computed where it is not noted."""
        noted = self.header(component).metadata.get("fingerprint")
        return noted or fingerprint(self.read(component)[1])

    def policy_steps(self) -> list[int]:
        """Step counts for which the model has a policy, ascending."""
        matches = (POLICY.fullmatch(name) for name in self.index.components)
        return sorted(int(match[1]) for match in matches if match)

    def labels(self) -> dict[int, str]:
        """Class id -> name of the classes that the model has seen; empty if the model names none.

        Raises:
            AdaNATError: if the file is damaged, or names a class that the model's NAT does not have.
        """
        file = self.path / LABELS_FILE
        self._provide(LABELS_FILE)
        if not file.exists():
            return {}
        try:
            labels: dict[int, str] = conform(read_json(file), Mapping[int, str], "a name")
        except AdaNATError as error:
            example = '{"207": "golden retriever"}'
            raise AdaNATError(f"{file} holds no class names ({error}); expected JSON such as {example}.") from error
        if self.has("nat") and labels:
            num_classes = self.config("nat").get("num_classes", 0)
            require(
                type(num_classes) is not int or num_classes == 0 or max(labels) < num_classes,
                f"{file} names class {max(labels)}, but the NAT of {self.name} knows {num_classes}; one of the two is "
                "another model's.",
            )
        return labels

    def write(
        self,
        component: str,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        dtype: torch.dtype | None = None,
        image_size: int | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """Write or replace one component; see ``write_all``."""
        self.write_all([Component(component, config, tensors, provenance or {})], dtype, image_size)

    def write_all(
        self, components: Sequence[Component], dtype: torch.dtype | None = None, image_size: int | None = None
    ) -> None:
        """Write or replace components, all or none unless the very last renames are interrupted.

        Args:
            components: what to write.
            dtype: number format to store floating-point tensors in; None keeps each tensor's own. The
                fingerprint is of the stored values, so a NAT for a tokenizer stored in half precision
                must name ``folder.fingerprint("tokenizer")``.
            image_size: in pixels; by default the tokenizer's ``image_size``, else what the index says.

        Raises:
            AdaNATError: if a name is unknown or the folder cannot be written.
        """
        with locked(self.path, patience=_PATIENCE), self._staged(components, dtype) as staged:
            index = self.index if self.exists() else ModelIndex()
            names = [component.name for component in components]
            if replaced := set(names) & set(index.components):
                # Never let the index name a component that is between its two versions.
                index = replace(index, components=tuple(name for name in index.components if name not in replaced))
                self._write_index(index)
            for name, temporary in zip(names, staged, strict=True):
                _swap_in(temporary, self.path / name)
            told = [int(part.config["image_size"]) for part in components if "image_size" in part.config]
            self._write_index(
                replace(
                    index,
                    image_size=image_size or (told[0] if told else index.image_size),
                    components=tuple(sorted({*index.components, *names}, key=_order)),
                    provenance={**index.provenance, **{part.name: portable(part.provenance) for part in components}},
                )
            )

    def drop_broken(self) -> None:
        """Forget components that cannot be read, to write them anew; a broken index then names what is whole."""
        if not self.exists():
            return
        with locked(self.path, patience=_PATIENCE):
            try:
                index = self.index
                named = index.components
            except AdaNATError:
                found = [file.parent.relative_to(self.path).as_posix() for file in self.path.glob(f"**/{_WEIGHTS}")]
                # Those that every training exports come back with where they are from.
                others = [name for name in found if name not in ("tokenizer", "nat", TEXT)]
                index, named = ModelIndex(), tuple(filter(COMPONENT.fullmatch, others))
            whole = tuple(sorted(filter(self._is_whole, named), key=_order))
            if whole != index.components or not whole:
                self._write_index(replace(index, components=whole))

    def _is_whole(self, component: str) -> bool:
        """Whether the files of a component can be read, and its weights are those that were written."""
        folder = self.path / component
        try:
            config, tensors = read_json(folder / _CONFIG), load_tensors(folder / _WEIGHTS)
            noted = read_header(folder / _WEIGHTS).metadata.get("fingerprint")
        except AdaNATError:
            return False
        whole = isinstance(config, dict) and noted in (None, fingerprint(tensors))
        return whole and all((folder / file).is_file() for file in FURTHER_FILES.get(component, ()))

    def write_labels(self, labels: Mapping[int, str]) -> None:
        """Write class id -> name."""
        write_json(self.path / LABELS_FILE, {str(key): labels[key] for key in sorted(labels)})

    def put_results(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Note measured results; one that says the same of itself but for its value is replaced."""
        with locked(self.path, patience=_PATIENCE):
            index = self.index
            measured = {json.dumps({**result, "value": None}, sort_keys=True): result for result in index.results}
            found = [portable(result) for result in results]
            measured |= {json.dumps({**result, "value": None}, sort_keys=True): result for result in found}
            self._write_index(replace(index, results=tuple(measured.values())))

    def files(self, component: str) -> dict[str, Path]:
        """The files of a component that the index lists, by their names within the model.

        Raises:
            AdaNATError: if the model has no such component.
        """
        names = (_CONFIG, _WEIGHTS, *FURTHER_FILES.get(component, ()))
        files = {f"{component}/{name}": self._existing(component, name) for name in names}
        if component == "features" and (reference := self.reference()):
            files[REFERENCE_FILE] = reference
        return files

    def reference(self) -> Path | None:
        """Statistics of real images in the model's own features; None where there are none."""
        if not self.has("features"):
            return None
        self._provide(REFERENCE_FILE)
        file = self.path / REFERENCE_FILE
        return file if file.is_file() else None

    def write_reference(self, source: Path) -> None:
        """Copy statistics of real images into the model; whether they fit its features is the caller's to check."""
        with atomic_path(self.path / REFERENCE_FILE) as temporary:
            shutil.copyfile(source, temporary)

    def card(self) -> str:
        """Text of README.md; "" where there is none."""
        self._provide(CARD_FILE)
        file = self.path / CARD_FILE
        return read_bytes(file).decode("utf-8", errors="replace") if file.exists() else ""

    def _provide(self, file: str) -> None:
        """Bring a file that may be elsewhere to its place; here it is where it is, or nowhere."""

    def _existing(self, component: str, name: str) -> Path:
        """A file of a component that the index lists."""
        components = self.index.components
        if component not in components:
            raise AdaNATError(
                f"Model {self.name} has no {component}; it holds {', '.join(components) or 'nothing yet'}. "
                "Add it with `adanat import`, or choose another --model."
            )
        self._provide(f"{component}/{name}")
        if not (self.path / component).is_dir():
            raise AdaNATError(
                f"Model {self.path} lists {component} but the folder is missing; fetch or import the model again."
            )
        return self.path / component / name

    @contextmanager
    def _staged(self, components: Sequence[Component], dtype: torch.dtype | None) -> Iterator[list[Path]]:
        """Write components under temporary names; remove what is left of them at the end."""
        for component in components:
            require(bool(COMPONENT.fullmatch(component.name)), f"A model component cannot be named {component.name!r}.")
        temporaries = [temporary_name(self.path / component.name) for component in components]
        try:
            with writing(self.path):
                for component, temporary in zip(components, temporaries, strict=True):
                    clear_litter(temporary.parent, Path(component.name).name)
                    tensors = _cast(component.tensors, dtype)
                    save_tensors(temporary / _WEIGHTS, tensors, {"format": "pt", "fingerprint": fingerprint(tensors)})
                    write_json(temporary / _CONFIG, portable(component.config))
                    for file, content in component.files.items():
                        with atomic_path(temporary / file) as part:
                            part.write_bytes(content)
                yield temporaries
        finally:
            for temporary in temporaries:
                shutil.rmtree(temporary, ignore_errors=True)
                _remove_if_empty(temporary.parent, self.path)

    def _write_index(self, index: ModelIndex) -> None:
        write_json(self.path / INDEX_FILE, index.to_dict())


def _order(name: str) -> tuple[str, int]:
    """Sort policies by step count, not by spelling; tokenizer and nat come first."""
    if match := POLICY.fullmatch(name):
        return "policies", int(match[1])
    return {"tokenizer": "0", "nat": "1", TEXT: "2"}.get(name, name), 0


def _cast(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> Mapping[str, Tensor]:
    """Change the number format of floating-point tensors."""
    if dtype is None:
        return tensors
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _swap_in(temporary: Path, final: Path) -> None:
    """Give a finished folder its name; an older folder of that name is moved aside first, then removed."""
    aside = temporary_name(final, "old")
    if final.exists():
        os.replace(final, aside)
    os.replace(temporary, final)
    sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _remove_if_empty(folder: Path, below: Path) -> None:
    """Remove a folder that holds nothing, unless it is ``below`` itself."""
    if folder != below and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
