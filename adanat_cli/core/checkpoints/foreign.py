"""Other people's weight files, read without ever running what a pickle asks for."""

from __future__ import annotations

import argparse
import io
import pickletools
import re
import stat
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import torch
from torch import Tensor

from adanat_cli.core.checkpoints.files import load_tensors
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.reading import sha256_of

_PLAIN = re.compile(
    r"argparse\.Namespace|collections\.(OrderedDict|Counter)|(builtins|__builtin__)\.(set|complex)"
    r"|torch\.(\w*Storage|Size|Tensor|device|bool|(b|u)?(float|int|complex)\d\w*)|torch\.storage\.\w+Storage"
    r"|torch\.nn\.parameter\.Parameter|torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)"
    r"|torch\._tensor\._rebuild_from_type_v2"
)
"""What may be rebuilt: tensors, plain values, and the settings that AdaNAT's training checkpoints hold."""

_MAX_STRUCTURE = 8 * 2**20
"""Bytes of names and settings beside the weights; the published files have less than half a megabyte."""
_MAX_HEADER = 10**8
"""Bytes of a safetensors header, by its specification."""
_MAX_DEPTH, _MAX_PLACES = 5, 1000
"""Mappings within mappings, of which the innermost holds weights; and how many of these are looked at."""
_OLD_PYTORCH = re.compile(rb"\x80[\x02-\x05]\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\.")
"""How files begin that PyTorch wrote before it wrote zip archives."""
_OLD_PICKLES = 5

Tensors = dict[str, Tensor]
Format = Literal["safetensors", "archive", "old"]


@dataclass(frozen=True)
class ForeignWeights:
    """What a foreign file holds.

    Attributes:
        path: the file.
        sha256: of the file's bytes.
        state_dicts: place in the file -> names with tensors; "" for a file that is one state dict, "model" or
            "ema.module" for one within others.
        arguments: settings that the training program stored, if any.
    """

    path: Path
    sha256: str
    state_dicts: Mapping[str, Tensors]
    arguments: Mapping[str, Any] = field(default_factory=dict)


def read_foreign(path: Path) -> ForeignWeights:
    """Load a file and find the mappings in it that hold weights.

    Raises:
        AdaNATError: if the file is missing, damaged, holds no weights, or needs code to be run.
    """
    tree = load_foreign(path)
    state_dicts: dict[str, Tensors] = {}
    _collect(tree, "", 0, state_dicts, {})
    if not state_dicts:
        found = f"entries {', '.join(map(repr, list(tree)[:5]))}" if isinstance(tree, dict) else type(tree).__name__
        raise AdaNATError(
            f"{path} holds no state dict of weights; found {found[:200]}, expected names with tensors, possibly under "
            "entries such as model or state_dict."
        )
    arguments = tree.get("args", {})
    arguments = vars(arguments) if isinstance(arguments, argparse.Namespace) else arguments
    return ForeignWeights(path, sha256_of(path), state_dicts, arguments if isinstance(arguments, dict) else {})


def load_foreign(path: Path) -> Any:
    """Load safetensors or a PyTorch file, whatever its suffix, to the CPU.

    Only tensors, plain values and ``argparse.Namespace`` are rebuilt; a pickle that asks for anything else is refused
    before it can run. Weights stay on disk until they are used, except those of PyTorch's format before 1.6.

    Raises:
        AdaNATError: if the file is missing, damaged, or needs more than that.
    """
    form = _format(path)
    if form == "safetensors":
        return load_tensors(path)
    try:
        asked = _asked_by_archive(path) if form == "archive" else _asked_by_old(path)
    except AdaNATError:
        raise
    except Exception as error:  # what a damaged pickle or archive does to its reader is not specified
        raise AdaNATError(_damaged(path, error)) from error
    unknown = next((name for name in asked if not _PLAIN.fullmatch(name)), None)
    require(
        unknown is None,
        f"{path} is refused: beside tensors it asks for {unknown and unknown[:80]}, and anything but tensors and "
        "plain values could run code on loading; give a file that holds weights only, or convert it to safetensors "
        "where you trust it.",
    )
    # PyTorch takes the suffix's word for safetensors, and maps files by names in UTF-8 only.
    if form == "archive":
        _check_sums(path)
    mapped = form == "archive" and path.suffix != ".safetensors" and str(path).isprintable()
    try:
        with (
            path.open("rb") as file,
            torch.serialization.safe_globals([argparse.Namespace]),
            warnings.catch_warnings(),
        ):
            # PyTorch warns about pickles of another protocol; they are read or refused like any other.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        raise AdaNATError(_damaged(path, error)) from error


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} is damaged or not a file of weights ({type(error).__name__}); fetch or save it again."


def _format(path: Path) -> Format:
    """Tell the format by how the file begins.

    Raises:
        AdaNATError: if it is none that is read here.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise AdaNATError(f"{path} is a folder; give the file of weights in it, such as {path / 'nnet_ema.pth'}.")
        require(stat.S_ISREG(status.st_mode), f"{path} is not a file but a pipe or device; give a file of weights.")
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError as error:
        raise AdaNATError(f"{path} does not exist; give the file of weights that was downloaded.") from error
    except OSError as error:
        raise AdaNATError(f"{path} cannot be read: {error.strerror}; give a file of weights.") from error
    if start.startswith(b"PK\x03\x04"):
        return "archive"
    if _OLD_PYTORCH.match(start):
        return "old"
    if start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] < _MAX_HEADER:
        return "safetensors"
    require(
        not start.startswith(b"version https://git-lfs"),
        f"{path} is a Git LFS pointer, not the weights themselves; fetch them with `git lfs pull`.",
    )
    raise AdaNATError(
        f"{path} is refused: it is neither safetensors nor a file that torch.save wrote, or its beginning is damaged "
        f"(it begins with {ascii(start[:16])[2:-1] or 'nothing'}); fetch it again, or give another file."
    )


class _Structure(io.BufferedReader):
    """A file of which only names and settings may be read, a few megabytes."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._path, self._left = path, _MAX_STRUCTURE

    def read(self, size: int | None = -1, /) -> bytes:
        most = self._left + 1
        return self._counted(super().read(most if size is None or size < 0 else min(size, most)))

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._counted(super().readline(self._left + 1))

    def _counted(self, data: bytes) -> bytes:
        self._left -= len(data)
        require(self._left >= 0, _too_large(self._path))
        return data


def _too_large(path: Path) -> str:
    return (
        f"{path} is refused: beside its tensors it holds over {_MAX_STRUCTURE >> 20} MB of names and settings; give a "
        "file that holds weights only."
    )


def _asked_by_archive(path: Path) -> list[str]:
    """Names of what the pickle of a PyTorch archive asks for; the archive's size is checked before it is read."""
    with _Structure(path) as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        require(
            all(member.compress_type == zipfile.ZIP_STORED for member in members),
            f"{path} is a compressed archive, which torch.save never writes; give the file as it was saved.",
        )
        require(
            not any(member.filename.endswith("/constants.pkl") for member in members),
            f"{path} is a TorchScript program, not a file of weights; give the weights.",
        )
        structure = [member for member in members if not re.search(r"/data/\w+$", member.filename)]
        require(sum(member.file_size for member in structure) <= _MAX_STRUCTURE, _too_large(path))
        pickles = [member for member in structure if member.filename.endswith("/data.pkl")]
        require(len(pickles) == 1, f"{path} is an archive, but not one that torch.save wrote; give a file of weights.")
        if not pickles[0].CRC:
            del pickles[0].CRC  # check sums were switched off when it was saved; without one, none is compared
        return _asked(io.BytesIO(archive.read(pickles[0])), 1)


def _check_sums(path: Path) -> None:
    """Compare an archive, whose structure is known to be small, with the check sums that torch.save put into it.

    Raises:
        AdaNATError: if a member differs, so that weights are not those that were saved.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            summed = [member for member in archive.infolist() if member.CRC]  # 0 where they were switched off
            require(
                sum(member.file_size for member in summed) <= path.stat().st_size,
                f"{path} is refused: its members overlap; fetch or save it again.",
            )
            for member in summed:
                with archive.open(member) as content:
                    while content.read(2**20):
                        pass  # at a member's end the reader compares
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise AdaNATError(_damaged(path, error)) from error


def _asked_by_old(path: Path) -> list[str]:
    with _Structure(path) as file:
        return _asked(file, _OLD_PICKLES)


def _asked(file: IO[bytes], num_pickles: int) -> list[str]:
    """Names of the classes and functions that pickles name, without loading anything."""
    asked = []
    for _ in range(num_pickles):
        operations = pickletools.genops(file)
        asked += [str(value).replace(" ", ".") for code, value, _ in operations if code.name in ("GLOBAL", "INST")]
    return asked


def _collect(node: Any, place: str, depth: int, state_dicts: dict[str, Tensors], seen: dict[int, Tensors]) -> None:
    """Note every mapping that holds tensors; what others lead to, too, is looked through once."""
    if not isinstance(node, dict) or depth > _MAX_DEPTH:
        return
    known = id(node) in seen
    if not known:
        seen[id(node)] = {str(name): value.detach() for name, value in node.items() if isinstance(value, Tensor)}
    if seen[id(node)] and len(state_dicts) < _MAX_PLACES:
        state_dicts[place] = seen[id(node)]
    for name, value in () if known else node.items():
        _collect(value, f"{place}.{name}" if place else str(name), depth + 1, state_dicts, seen)
