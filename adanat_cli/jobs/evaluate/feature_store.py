"""Features on disk, in parts that are whole or absent, so that a measurement that was killed can be resumed."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from adanat_cli.core.checkpoints.files import atomic_path, clear_litter, save_tensors, write_json
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.reading import read_object
from adanat_cli.jobs.runtime.resume import refuse_changes

_STATE, _KEPT, _CHECKSUMS = "state.json", "kept", "crc32"
_PART = re.compile(r"part-\d{5,9}\.safetensors")


class FeatureStore:
    """``state.json`` with the settings that decide the features, and ``part-00000.safetensors``, 00001 and so on.

    A part holds one row per image: ``features`` (n, D) and, where they exist, ``logits`` (n, C), ``spatial`` (n, S),
    ``labels`` (n,), ``clip`` (n,), the similarity to the prompt, and ``errors`` (n,), against the original.
    Each process writes its own parts; the process on which ``write`` is True makes and removes the folder.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], write: bool = True) -> None:
        """Make the folder, or open it to resume.

        Raises:
            AdaNATError: if it holds parts of another measurement; the settings that differ are named.
        """
        self.folder = folder
        if write:
            clear_litter(folder)
        if self._files():
            # A setting that was not recorded was not chosen: a schedule's factor, or a CLIP model.
            refuse_changes({**dict.fromkeys(settings), **self._saved()}, settings, folder, "features")
        elif write:
            write_json(folder / _STATE, dict(settings))
        # Parts that are there now; those of other processes appear later and matter only once all are done.
        self._done = {self._number(file) for file in self._files()}

    def _saved(self) -> dict[str, Any]:
        """The settings of the parts that are there."""
        try:
            return read_object(self.folder / _STATE)
        except AdaNATError as error:
            raise AdaNATError(
                f"{self.folder / _STATE}, which describes the features beside it, is missing or damaged; remove "
                f"{self.folder} to measure again."
            ) from error

    def has(self, number: int) -> bool:
        """Whether the part was there when the folder was opened."""
        return number in self._done

    @property
    def num_found(self) -> int:
        """Parts that were there when the folder was opened."""
        return len(self._done)

    def add(self, number: int, columns: Mapping[str, Tensor], skipped: Mapping[str, str]) -> None:
        """Write one part.

        Args:
            number: number of the part, from 0.
            columns: name to (n, …), one row per image.
            skipped: unreadable images, name to reason.
        """
        file = self.folder / f"part-{number:05d}.safetensors"
        checksums = {name: _checksum(column) for name, column in columns.items()}
        save_tensors(file, columns, {"skipped": json.dumps(dict(skipped)), _CHECKSUMS: json.dumps(checksums)})

    def skipped(self) -> dict[str, str]:
        """Unreadable images of all parts, name to reason."""
        reasons: dict[str, str] = {}
        for file in self._files():
            with _opened(file) as part:
                reasons.update(_metadata(part, "skipped"))
        return reasons

    def num_rows(self) -> int:
        """Images of all parts."""
        num = 0
        for file in self._files():
            with _opened(file) as part:
                num += part.get_slice("features").get_shape()[0]
        return num

    def pieces(self, column: str) -> Iterator[Tensor]:
        """Yield a column part by part, in the order of the images; nothing where the parts do not have it."""
        for file in self._files():
            with _opened(file) as part:
                if column in part.keys():  # noqa: SIM118 — the file is not a mapping
                    piece, checksum = part.get_tensor(column), _metadata(part, _CHECKSUMS).get(column)
                    if checksum not in (None, _checksum(piece)):  # parts of older versions have none
                        raise ValueError(f"the checksum of {column} differs")
                    yield piece

    def column(self, name: str, most: int | None = None) -> Tensor | None:
        """Return the first ``most`` rows of a column (n, …), or all; None where the parts do not have it."""
        whole, start = None, 0
        for piece in self.pieces(name):
            if whole is None:
                num_rows = self.num_rows()
                whole = piece.new_empty(num_rows if most is None else min(num_rows, most), *piece.shape[1:])
            rows = whole[start : start + len(piece)]
            rows[:] = piece[: len(rows)]
            start += len(rows)
            if start == len(whole):
                break
        return whole

    def rows(self, name: str, indices: Tensor) -> Tensor:
        """Return some rows of a column, without holding the others in memory.

        Args:
            name: the column.
            indices: (m,) int64, ascending.
        """
        chosen, start = [], 0
        for piece in self.pieces(name):
            inside = indices[(indices >= start) & (indices < start + len(piece))] - start
            chosen.append(piece[inside])
            start += len(piece)
        return torch.cat(chosen)

    def _files(self) -> list[Path]:
        files = self.folder.glob("part-*.safetensors")
        return sorted((file for file in files if _PART.fullmatch(file.name)), key=self._number)

    @staticmethod
    def _number(file: Path) -> int:
        return int(file.stem.removeprefix("part-"))


def _checksum(column: Tensor) -> int:
    return zlib.crc32(column.detach().cpu().contiguous().numpy().tobytes())


def _metadata(part: Any, key: str) -> dict[str, Any]:
    """JSON in a part's metadata."""
    values = json.loads((part.metadata() or {}).get(key, "{}"))
    if not isinstance(values, dict):
        raise TypeError(f"{key} is not an object")
    return values


def keep_store(folder: Path) -> None:
    """Mark a store, if it is there, so that later runs that read it do not remove it."""
    if folder.is_dir():
        with atomic_path(folder / _KEPT) as temporary:
            temporary.touch()


def remove_store(folder: Path) -> None:
    """Remove a store unless it is marked to be kept, and the folder above it if that is empty then."""
    if (folder / _KEPT).exists():
        return
    for part in folder.glob("part-*"):  # what describes them goes last, or a kill in between would leave them nameless
        with suppress(OSError):
            part.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    above = folder.parent
    if above.is_dir() and not any(above.iterdir()):
        above.rmdir()


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open a part without reading its tensors."""
    try:
        with safe_open(file, framework="pt") as part:
            yield part
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise AdaNATError(f"{file} is damaged; remove it and run the same command again.") from error
