"""Files that are either complete or absent: written under a temporary name, synced, then renamed."""

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
"""Temporary names of the safetensors library."""
_SUBFOLDERS = (
    *("checkpoints", "samples", "plots", "discriminator", "features", "features/*", "policies"),
    *("model", "model/features", "model/policies"),
)
"""Folders within an output that files are written to."""
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
    """Say in one line why ``path`` cannot be written.

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
    """Refuse a path that cannot be written as a PNG, before the work for it is done.

    Raises:
        AdaNATError: naming the option.
    """
    with writing(path):
        require(not path.is_dir(), f"{option} {path} is a folder; expected a file such as grid.png.")
        _check_kind(path)
    require(path.suffix.lower() == ".png", f"{option} {path} would be a PNG; expected a name that ends in .png.")


def _check_kind(path: Path) -> None:
    """Refuse a device or pipe: the rename would replace, say, /dev/null for the whole machine."""
    is_known = path.is_file() or path.is_dir() or not path.exists()
    require(is_known, f"Cannot write {path}: it is a device or a pipe, not a file; choose another name.")


def temporary_name(path: Path, suffix: str = "part") -> Path:
    """Hidden temporary name beside ``path``, unique to this process; ``clear_litter`` recognises such names."""
    return path.with_name(f".{path.name}.{os.getpid()}.{suffix}")


@contextmanager
def atomic_path(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that is renamed to it when the block succeeds.

    Args:
        path: the file.
        durable: whether to wait until the file is on the disk, so that it survives a power cut.

    Raises:
        AdaNATError: if the folder cannot be written.
    """
    temporary = temporary_name(path)
    try:
        with writing(path):
            _check_kind(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            # Some libraries write files that only their owner can read.
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
    """Wait until the content of a file or folder is on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync this
            raise
    finally:
        os.close(file)


def clear_litter(folder: Path, name: str = "") -> None:
    """Remove the temporary files of killed processes; no other process may be writing there.

    Args:
        folder: output of a job.
        name: name of the only file to clear up after; "" for the whole folder.
    """
    pattern = f".{glob.escape(name) or '*'}.*"
    litter = [path for path in folder.glob(pattern) if _LITTER.fullmatch(path.name)]
    if not name:
        subfolders = [subfolder for pattern in _SUBFOLDERS for subfolder in folder.glob(pattern)]
        inside = [path for subfolder in subfolders for path in subfolder.glob(".*")]
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
        folder: the folder.
        advice: what to try if it cannot be written to.

    Raises:
        AdaNATError: if it cannot be written to.
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
    """Write indented JSON, completely or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json_text(values, indent=2) + "\n", encoding="utf-8")


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write safetensors, completely or not at all; the same content gives the same bytes.

    The library's own writer shuffles the metadata, and keeps all tensors in memory twice.
    """
    # Wide number formats first, so that all are aligned.
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
    """Bytes of a tensor in row-major order."""
    import torch  # here, so that writing JSON needs no PyTorch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read safetensors to the CPU.

    Raises:
        AdaNATError: if the file is missing or damaged.
    """
    from safetensors.torch import load, load_file

    if not path.is_file():
        raise AdaNATError(f"{path} does not exist; fetch or write it again.")
    try:
        # The library opens only files whose names are valid text; others are read as bytes.
        is_text = os.fsencode(path) == str(path).encode(errors="replace")
        return load_file(path) if is_text else load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise AdaNATError(f"{path} is not a complete safetensors file ({error}); fetch or write it again.") from error


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of names, shapes and float32 (or integer) values, independent of file layout."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.float()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
