"""Weight files of others, read without ever running code of a pickle."""

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
"""Classes and functions that may be used: for tensors, plain values and the settings in AdaNAT's checkpoints."""

_MAX_STRUCTURE = 8 * 2**20
"""Bytes of names and settings beside the weights; published files have less than half a megabyte."""
_MAX_HEADER = 10**8
"""Bytes of a safetensors header, by its specification."""
_MAX_DEPTH, _MAX_LOCATIONS = 5, 1000
"""Nesting depth and number of the mappings that are searched for weights."""
_OLD_PYTORCH = re.compile(rb"\x80[\x02-\x05]\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\.")
"""First bytes of PyTorch's format before zip archives (before 1.6)."""
_OLD_PICKLES = 5

Tensors = dict[str, Tensor]
Format = Literal["safetensors", "archive", "old"]


@dataclass(frozen=True)
class ForeignWeights:
    """The content of a foreign file.

    Attributes:
        path: the file.
        sha256: hash of the file's bytes.
        state_dicts: location in the file -> name -> tensor; the location is "" for a file that is one state dict, such
            as "model" or "ema.module" for nested ones.
        arguments: settings that the training program stored, if any.
    """

    path: Path
    sha256: str
    state_dicts: Mapping[str, Tensors]
    arguments: Mapping[str, Any] = field(default_factory=dict)


def read_foreign(path: Path) -> ForeignWeights:
    """Load a file and find the mappings of weights in it.

    Raises:
        AdaNATError: if the file is missing or damaged, has no weights, or would run code.
    """
    tree = load_foreign(path)
    state_dicts: dict[str, Tensors] = {}
    _collect(tree, "", 0, state_dicts, {})
    if not state_dicts:
        found = f"entries {', '.join(map(repr, list(tree)[:5]))}" if isinstance(tree, dict) else type(tree).__name__
        raise AdaNATError(
            f"{path} holds no state dict of weights; found {found[:200]}, expected names with tensors, possibly under "
            "entries such as model or state_dict; give another file."
        )
    arguments = tree.get("args", {})
    arguments = vars(arguments) if isinstance(arguments, argparse.Namespace) else arguments
    return ForeignWeights(path, sha256_of(path), state_dicts, arguments if isinstance(arguments, dict) else {})


def load_foreign(path: Path) -> Any:
    """Load safetensors or a PyTorch file, whatever its suffix, to the CPU.

    Only tensors, plain values and ``argparse.Namespace`` are rebuilt; a pickle that names anything else is refused
    before it can run. Weights stay on disk until they are used, except those of PyTorch's format before 1.6.

    Raises:
        AdaNATError: if the file is missing, damaged, or needs anything else.
    """
    form = _format(path)
    if form == "safetensors":
        return load_tensors(path)
    try:
        names = _names_in_archive(path) if form == "archive" else _names_in_old_format(path)
    except AdaNATError:
        raise
    except Exception as error:  # a damaged pickle or archive may raise any exception
        raise AdaNATError(_damaged(path, error)) from error
    unknown = next((name for name in names if not _PLAIN.fullmatch(name)), None)
    require(
        unknown is None,
        f"{path} is refused: beside tensors it asks for {unknown and unknown[:80]}, and anything but tensors and "
        "plain values could run code on loading; give a file of weights only, or, if you trust it, convert it to "
        "safetensors.",
    )
    # PyTorch goes by the suffix .safetensors, and memory-maps only files whose names are UTF-8.
    if form == "archive":
        _check_sums(path)
    mapped = form == "archive" and path.suffix != ".safetensors" and str(path).isprintable()
    try:
        with path.open("rb") as file, torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            # PyTorch warns about pickles of another protocol; they are read or refused like any other.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        raise AdaNATError(_damaged(path, error)) from error


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} is damaged or not a file of weights ({type(error).__name__}); fetch or save it again."


def _format(path: Path) -> Format:
    """Determine the format from the first bytes of the file.

    Raises:
        AdaNATError: if the format is not supported.
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
    """A file that raises an error after a few megabytes, enough for names and settings."""

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
        "file of weights only."
    )


def _names_in_archive(path: Path) -> list[str]:
    """Names in the pickle of a PyTorch archive; the size of the archive is checked before it is read."""
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
            del pickles[0].CRC  # checksums were switched off when it was saved; without one, none is compared
        return _names_in_pickles(io.BytesIO(archive.read(pickles[0])), 1)


def _check_sums(path: Path) -> None:
    """Compare an archive, whose structure is known to be small, with the checksums of torch.save in it.

    Raises:
        AdaNATError: if a member differs.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            summed = [member for member in archive.infolist() if member.CRC]  # 0 if they were switched off
            require(
                sum(member.file_size for member in summed) <= path.stat().st_size,
                f"{path} is refused: its members overlap; fetch or save it again.",
            )
            for member in summed:
                with archive.open(member) as content:
                    while content.read(2**20):
                        pass  # at the end of a member the reader compares
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise AdaNATError(_damaged(path, error)) from error


def _names_in_old_format(path: Path) -> list[str]:
    with _Structure(path) as file:
        return _names_in_pickles(file, _OLD_PICKLES)


def _names_in_pickles(file: IO[bytes], num_pickles: int) -> list[str]:
    """Names of the classes and functions in pickles, without loading anything."""
    names = []
    for _ in range(num_pickles):
        operations = pickletools.genops(file)
        names += [str(value).replace(" ", ".") for code, value, _ in operations if code.name in ("GLOBAL", "INST")]
    return names


def _collect(node: Any, location: str, depth: int, state_dicts: dict[str, Tensors], seen: dict[int, Tensors]) -> None:
    """Collect all mappings with tensors; one that is reached by several paths is searched once."""
    if not isinstance(node, dict) or depth > _MAX_DEPTH:
        return
    known = id(node) in seen
    if not known:
        seen[id(node)] = {str(name): value.detach() for name, value in node.items() if isinstance(value, Tensor)}
    if seen[id(node)] and len(state_dicts) < _MAX_LOCATIONS:
        state_dicts[location] = seen[id(node)]
    for name, value in () if known else node.items():
        _collect(value, f"{location}.{name}" if location else str(name), depth + 1, state_dicts, seen)
