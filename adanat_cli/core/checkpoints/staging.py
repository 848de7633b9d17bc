"""The files of one component: written whole under a temporary name, and read with a check of their hash."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from adanat_cli.core.checkpoints.files import (
    atomic_path,
    clear_litter,
    fingerprint,
    load_tensors,
    save_tensors,
    temporary_name,
    write_json,
    writing,
)
from adanat_cli.core.checkpoints.header import read_header
from adanat_cli.core.checkpoints.index import COMPONENT
from adanat_cli.core.checkpoints.portable import portable
from adanat_cli.core.errors import require

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from adanat_cli.core.checkpoints.folder import Component

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a component.

    Raises:
        AdaNATError: if the file is missing or damaged, or does not match the fingerprint in its metadata.
    """
    tensors = load_tensors(file)
    require(
        read_header(file).metadata.get("fingerprint") in (None, fingerprint(tensors)),
        f"{file} is damaged: its weights do not match the hash that was written with them; fetch or import it again, "
        "or run the training's command again, which writes it anew.",
    )
    return tensors


@contextmanager
def staged(root: Path, components: Sequence[Component], dtype: torch.dtype | None) -> Iterator[list[Path]]:
    """Write components under temporary names, which are removed at the end if they still exist.

    Args:
        root: the model folder.
        components: the components.
        dtype: number format of floating-point tensors; None keeps each tensor's own.

    Raises:
        AdaNATError: if a component's name is invalid, or the folder cannot be written.
    """
    for component in components:
        require(bool(COMPONENT.fullmatch(component.name)), f"{component.name!r} is not a valid name of a component.")
    temporaries = [temporary_name(root / component.name) for component in components]
    try:
        with writing(root):
            for component, temporary in zip(components, temporaries, strict=True):
                clear_litter(temporary.parent, Path(component.name).name)
                tensors = _cast(component.tensors, dtype)
                save_tensors(temporary / WEIGHTS_FILE, tensors, {"format": "pt", "fingerprint": fingerprint(tensors)})
                write_json(temporary / CONFIG_FILE, portable(component.config))
                for name, content in component.files.items():
                    with atomic_path(temporary / name) as part:
                        part.write_bytes(content)
            yield temporaries
    finally:
        for temporary in temporaries:
            shutil.rmtree(temporary, ignore_errors=True)
            if temporary.parent != root and temporary.parent.is_dir() and not any(temporary.parent.iterdir()):
                temporary.parent.rmdir()


def _cast(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> Mapping[str, Tensor]:
    if dtype is None:
        return tensors
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
