"""Files that are either whole or absent: written under a temporary name, synced, then renamed."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.reading import json_text

if TYPE_CHECKING:
    from torch import Tensor

_LITTER = re.compile(r"\..+\.\d+\.(part|old)")
_FOREIGN_LITTER = re.compile(r"\.tmp\w{6}")
"""How the safetensors library calls what it has not written whole yet."""
_PLACES = (
    *("checkpoints", "samples", "plots", "discriminator", "features", "features/*", "policies"),
    *("model", "model/features", "model/policies"),
)
"""Folders within an output into which files are written."""
_FORMATS = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "complex64": "C64",
    "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    **{f"{sign}int{bits}": f"{sign.upper() or 'I'}{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
"""PyTorch's number formats as safetensors names them."""


@contextmanager
def writing(path: Path | str, advice: str = "choose a folder that you can write to") -> Iterator[None]:
    """Tell in one line what keeps ``path`` from being written.

    Raises:
        AdaNATError: if the block raises an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason = "a file is in the way"
        elif error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            advice = "make room, then run the same command again"
        raise AdaNATError(f"Cannot write {path}: {reason}; {advice}.") from error


def check_picture(path: Path, option: str) -> None:
    """Refuse a place for a PNG that cannot become one, before the work for it is done.

    Raises:
        AdaNATError: naming the option.
    """
    with writing(path):
        require(not path.is_dir(), f"{option} {path} is a folder; expected a file such as grid.png.")
        _check_kind(path)
    require(path.suffix.lower() == ".png", f"{option} {path} would hold a PNG; expected a name that ends in .png.")


def _check_kind(path: Path) -> None:
    """Refuse to take the name of a device or pipe, which renaming would do to /dev/null for the whole machine."""
    is_known = path.is_file() or path.is_dir() or not path.exists()
    require(is_known, f"Cannot write {path}: it is a device or a pipe, not a file; choose another name.")


def temporary_name(path: Path, suffix: str = "part") -> Path:
    """The hidden neighbour under which this process writes a file or folder; ``clear_litter`` knows such names."""
    return path.with_name(f".{path.name}.{os.getpid()}.{suffix}")


@contextmanager
def atomic_path(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary neighbour of ``path`` that takes its name when the block ends well.

    Args:
        path: of the file.
        durable: whether it must survive a power cut from then on, which waits for the disk.

    Raises:
        AdaNATError: if the folder cannot be written.
    """
    temporary = temporary_name(path)
    try:
        with writing(path):
            _check_kind(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            # Some writers make files that only their owner can read.
            temporary.chmod(0o666 & ~_umask())
            if durable:
                sync(temporary)
            os.replace(temporary, path)
            if durable:
                sync(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync this
            raise
    finally:
        os.close(file)


def clear_litter(folder: Path, name: str = "") -> None:
    """Remove what writers that were killed have left under temporary names; nobody else may be writing there.

    Args:
        folder: output of a job.
        name: of the one file of it that is to be written; "" clears the whole folder.
    """
    pattern = f".{glob.escape(name) or '*'}.*"
    litter = [path for path in folder.glob(pattern) if _LITTER.fullmatch(path.name)]
    if not name:
        places = [place for pattern in _PLACES for place in folder.glob(pattern)]
        inside = [path for place in places for path in place.glob(".*")]
        litter += [path for path in inside if _LITTER.fullmatch(path.name) or _FOREIGN_LITTER.fullmatch(path.name)]
    for path in litter:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def check_writable(folder: Path, advice: str = "choose another --output folder") -> None:
    """Make a folder and write to it, so that a mistake shows before the work is done.

    Args:
        folder: to be written to later.
        advice: what to try where it cannot be.

    Raises:
        AdaNATError: if that fails.
    """
    with writing(f"to {folder}", advice):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def write_json(path: Path, values: Any) -> None:
    """Write readable JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json_text(values, indent=2) + "\n", encoding="utf-8")


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write safetensors, whole or not at all; the same content gives the same bytes.

    The library's own writer shuffles the metadata, and holds all tensors twice.
    """
    # Wide numbers first, so that all are aligned.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in names:
        tensor, start = tensors[name], end
        end += tensor.numel() * tensor.element_size()
        kind = _FORMATS[str(tensor.dtype).removeprefix("torch.")]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(raw_bytes(tensors[name]))


def raw_bytes(tensor: Tensor) -> memoryview:
    """A tensor's numbers as they lie in memory, row by row."""
    import torch  # here, so that reading JSON needs no PyTorch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read safetensors to the CPU.

    Raises:
        AdaNATError: if the file is missing or damaged.
    """
    from safetensors.torch import load, load_file

    if not path.is_file():
        raise AdaNATError(f"{path} does not exist.")
    try:
        # The library opens files by names that are text; others' bytes it takes as well.
        is_text = os.fsencode(path) == str(path).encode(errors="replace")
        return load_file(path) if is_text else load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise AdaNATError(f"{path} is not a whole safetensors file: {error}.") from error


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes and float32 (or integer) values, independent of file layout."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.float()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
