"""A model folder: components with config.json and model.safetensors each, listed in one model_index.json."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adanat_cli.core.checkpoints.files import atomic_path, fingerprint, sync, temporary_name, write_json
from adanat_cli.core.checkpoints.header import Header, read_header
from adanat_cli.core.checkpoints.index import COMPONENT, POLICY, ModelIndex, component_order, read_index
from adanat_cli.core.checkpoints.lock import locked
from adanat_cli.core.checkpoints.portable import portable
from adanat_cli.core.checkpoints.staging import CONFIG_FILE, WEIGHTS_FILE, read_weights, staged
from adanat_cli.core.config.schema import conform
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.reading import read_bytes, read_json, read_object

if TYPE_CHECKING:
    import torch
    from torch import Tensor

INDEX_FILE, LABELS_FILE, CARD_FILE = "model_index.json", "labels.json", "README.md"
REFERENCE_FILES: Mapping[str, str] = {"small": "features/reference.npz", "efficientnet": "references/efficientnet.npz"}
"""Statistics of real images that a model may bring, by protocol; replacing its features removes those in them."""
_DESCRIBED: Mapping[str, str] = {"small": "features", "efficientnet": "nat"}
"""By protocol, the component that such statistics go along with when it is copied: the NAT draws their classes."""
TEXT = "text"
"""Component of a text encoder that is not on the Hub: a CLIP text tower in the format of transformers."""
FURTHER_FILES: Mapping[str, tuple[str, ...]] = {TEXT: ("tokenizer.json", "tokenizer_config.json")}
"""Files of a component beside config.json and model.safetensors."""
_PATIENCE = 60.0
"""Seconds to wait for another process that writes into the same folder."""


@dataclass(frozen=True)
class Component:
    """The content of one component.

    Attributes:
        name: "tokenizer", "nat", "features", "text" or "policies/steps-<T>".
        config: JSON values from which the network is built.
        tensors: state dict of the network.
        provenance: where the weights came from.
        files: name -> content of each of the ``FURTHER_FILES``.
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

    Reading is strict: what ``model_index.json`` lists must exist and be complete. Writing is atomic: all
    components of one call are first written under hidden temporary names, then renamed, and the index,
    which alone decides what the model consists of, is updated last. Local paths are not written: see ``portable``.
    """

    writable = True
    """Whether components, labels and results can be changed."""

    def __init__(self, path: Path | str) -> None:
        """Refer to a folder, which need not exist yet."""
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def name(self) -> str:
        """The model's name in messages."""
        return str(self.path)

    @property
    def title(self) -> str:
        """The model's name in a heading or a file name; the run's name for the model of a run folder."""
        path = self.path.resolve()
        return path.parent.name if path.name == "model" else path.name

    def exists(self) -> bool:
        """Whether the folder holds a model index."""
        return (self.path / INDEX_FILE).is_file()

    @property
    def index(self) -> ModelIndex:
        """The index, read from the disk.

        Raises:
            AdaNATError: if the folder has no index, or the index is damaged or of another version.
        """
        file = self.path / INDEX_FILE
        if not self.path.is_dir():
            raise AdaNATError(f"Model folder {self.path} does not exist; give a folder that holds {INDEX_FILE}.")
        if not file.is_file():
            inside = self.path / "model"
            if (inside / INDEX_FILE).is_file():
                raise AdaNATError(f"{self.path} is a run folder; give the model in it, {inside}.")
            raise AdaNATError(
                f"{self.path} is not a model folder: it has no {INDEX_FILE}; give a folder that has one, or make one "
                "with `adanat import`."
            )
        return read_index(read_bytes(file), file)

    def has(self, component: str) -> bool:
        """Whether the model has this component."""
        return component in self.index.components

    def config(self, component: str) -> dict[str, Any]:
        """Configuration of a component.

        Raises:
            AdaNATError: if the model has no such component, or its config.json is missing or damaged.
        """
        return read_object(self._existing(component, CONFIG_FILE))

    def read(self, component: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Configuration and tensors of a component, on the CPU and in the stored number format.

        Raises:
            AdaNATError: if the model has no such component, a file is missing or damaged, or the weights do not match
                the hash that was written with them.
        """
        file = self._existing(component, WEIGHTS_FILE)
        return self.config(component), read_weights(file)

    def component(self, name: str) -> Component:
        """A whole component, ready to be written into another folder.

        Raises:
            AdaNATError: if the model has no such component, or a file is missing or damaged.
        """
        config, tensors = self.read(name)
        files = {file: self._existing(name, file) for file in FURTHER_FILES.get(name, ())}
        missing = next((path for path in files.values() if not path.is_file()), None)
        require(missing is None, f"{missing} does not exist; fetch or write the model again.")
        provenance = self.index.provenance.get(name, {})
        return Component(name, config, tensors, provenance, {file: read_bytes(path) for file, path in files.items()})

    def header(self, component: str) -> Header:
        """Shapes and metadata of a component's weights, without loading them."""
        return read_header(self._existing(component, WEIGHTS_FILE))

    def fingerprint(self, component: str) -> str:
        """sha256 of a component's stored weights: from the file's metadata, or computed if that has none."""
        recorded = self.header(component).metadata.get("fingerprint")
        return recorded or fingerprint(self.read(component)[1])

    def policy_steps(self) -> list[int]:
        """Step counts for which the model has a policy, ascending."""
        matches = (POLICY.fullmatch(name) for name in self.index.components)
        return sorted(int(match[1]) for match in matches if match)

    def labels(self) -> dict[int, str]:
        """Class id -> name of the classes that the model was trained on; empty if their names are not recorded.

        Raises:
            AdaNATError: if the file is damaged, or names a class that the model's NAT lacks.
        """
        file = self.path / LABELS_FILE
        self._provide(LABELS_FILE)
        if not file.exists():
            return {}
        try:
            labels: dict[int, str] = conform(read_json(file), Mapping[int, str], "a name")
        except AdaNATError as error:
            example = '{"207": "golden retriever"}'
            raise AdaNATError(f"{file} has no class names ({error}); expected JSON such as {example}.") from error
        if self.has("nat") and labels:
            num_classes = self.config("nat").get("num_classes", 0)
            require(
                type(num_classes) is not int or num_classes == 0 or max(labels) < num_classes,
                f"{file} names class {max(labels)}, but the NAT of {self.name} has {num_classes} classes; use the "
                f"{LABELS_FILE} and the NAT of the same model.",
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
        """Write or replace components: all or none, unless the final renames are interrupted.

        Args:
            components: the components.
            dtype: number format to store floating-point tensors in; None keeps each tensor's own. The
                fingerprint is computed from the stored values, so a NAT for a tokenizer stored in half precision
                must record ``folder.fingerprint("tokenizer")``.
            image_size: pixels; by default the tokenizer's ``image_size``, else that of the index.

        Raises:
            AdaNATError: if a component's name is invalid, or the folder cannot be written.
        """
        with self._changing(), staged(self.path, components, dtype) as temporaries:
            index = self.index if self.exists() else ModelIndex()
            names = [component.name for component in components]
            if replaced := set(names) & set(index.components):
                # Never let the index name a component that is between its two versions.
                index = replace(index, components=tuple(name for name in index.components if name not in replaced))
                self._write_index(index)
            for name, temporary in zip(names, temporaries, strict=True):
                _swap_in(temporary, self.path / name)
            sizes = [int(part.config["image_size"]) for part in components if "image_size" in part.config]
            self._write_index(
                replace(
                    index,
                    image_size=image_size or (sizes[0] if sizes else index.image_size),
                    components=tuple(sorted({*index.components, *names}, key=component_order)),
                    provenance={**index.provenance, **{part.name: portable(part.provenance) for part in components}},
                )
            )

    def drop_broken(self) -> None:
        """Remove damaged components from the index; rebuild a damaged index from the complete components."""
        if not self.exists():
            return
        with self._changing():
            try:
                index = self.index
                listed = index.components
            except AdaNATError:
                found = [file.parent.relative_to(self.path).as_posix() for file in self.path.glob(f"**/{WEIGHTS_FILE}")]
                # Each training exports these again, with their provenance.
                others = [name for name in found if name not in ("tokenizer", "nat", TEXT)]
                index, listed = ModelIndex(), tuple(filter(COMPONENT.fullmatch, others))
            complete = tuple(sorted(filter(self._is_complete, listed), key=component_order))
            if complete != index.components or not complete:
                self._write_index(replace(index, components=complete))

    def _is_complete(self, component: str) -> bool:
        """Whether all files of a component exist and are undamaged."""
        folder = self.path / component
        try:
            read_object(folder / CONFIG_FILE)
            read_weights(folder / WEIGHTS_FILE)
        except AdaNATError:
            return False
        return all((folder / file).is_file() for file in FURTHER_FILES.get(component, ()))

    def write_labels(self, labels: Mapping[int, str]) -> None:
        """Write class id -> name."""
        self._require_writable()
        write_json(self.path / LABELS_FILE, {str(key): labels[key] for key in sorted(labels)})

    def put_results(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Record measured results; one that differs from a recorded one in its value only replaces it."""
        with self._changing():
            index = self.index
            recorded = [*index.results, *map(portable, results)]
            latest = {json.dumps({**result, "value": None}, sort_keys=True): result for result in recorded}
            self._write_index(replace(index, results=tuple(latest.values())))

    def drop_results(self) -> None:
        """Forget measured results: the images are others now."""
        with self._changing():
            self._write_index(replace(self.index, results=()))

    def files(self, component: str) -> dict[str, Path]:
        """Path within the model -> file, for all files of a component.

        Raises:
            AdaNATError: if the model has no such component.
        """
        names = (CONFIG_FILE, WEIGHTS_FILE, *FURTHER_FILES.get(component, ()))
        files = {f"{component}/{name}": self._existing(component, name) for name in names}
        found = {protocol: self.reference(protocol) for protocol, owner in _DESCRIBED.items() if owner == component}
        return files | {REFERENCE_FILES[protocol]: file for protocol, file in found.items() if file}

    def reference(self, protocol: str = "small") -> Path | None:
        """File of statistics of real images for a protocol; None if the model brings none."""
        if protocol not in REFERENCE_FILES or not self.has(_DESCRIBED[protocol]):
            return None
        self._provide(REFERENCE_FILES[protocol])
        file = self.path / REFERENCE_FILES[protocol]
        return file if file.is_file() else None

    def write_reference(self, source: Path, protocol: str = "small") -> None:
        """Copy statistics of real images into the model; the caller checks that they are of the protocol.

        Raises:
            AdaNATError: if the folder cannot be written.
        """
        self._require_writable()
        with atomic_path(self.path / REFERENCE_FILES[protocol]) as temporary:
            shutil.copyfile(source, temporary)

    def take_references(self, source: ModelFolder, component: str) -> None:
        """Copy the statistics that go along with a component of another model."""
        for protocol, owner in _DESCRIBED.items():
            if owner == component and (file := source.reference(protocol)):
                self.write_reference(file, protocol)

    def card(self) -> str:
        """Text of README.md; "" if the model has none."""
        self._provide(CARD_FILE)
        file = self.path / CARD_FILE
        return read_bytes(file).decode("utf-8", errors="replace") if file.exists() else ""

    def _provide(self, file: str) -> None:
        """Fetch a file that is not on this disk yet; a local model has nothing to fetch."""

    def _require_writable(self) -> None:
        require(
            self.writable,
            f"Model {self.name} is on the Hub and cannot be changed here; make a copy with `adanat pull {self.name} "
            "--output FOLDER`.",
        )

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Keep other processes from changing the model inside the block."""
        self._require_writable()
        with locked(self.path, patience=_PATIENCE):
            yield

    def _existing(self, component: str, name: str) -> Path:
        """A file of a component; fetched if need be."""
        components = self.index.components
        if component not in components:
            raise AdaNATError(
                f"Model {self.name} has no {component}, only {', '.join(components) or 'an empty index'}; add it with "
                "`adanat import`, or choose another --model."
            )
        self._provide(f"{component}/{name}")
        if not (self.path / component).is_dir():
            raise AdaNATError(
                f"Model {self.path} lists {component}, but that folder is missing; fetch or import the model again."
            )
        return self.path / component / name

    def _write_index(self, index: ModelIndex) -> None:
        write_json(self.path / INDEX_FILE, asdict(index))


def _swap_in(temporary: Path, final: Path) -> None:
    """Give a finished folder its final name; an older folder of that name is moved aside first, then removed."""
    aside = temporary_name(final, "old")
    if final.exists():
        os.replace(final, aside)
    os.replace(temporary, final)
    sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)
