"""Files that are either whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from adanat_cli.core.errors import AdaNATError

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary neighbour of ``path`` that takes its name when the block ends well.

    Raises:
        AdaNATError: if the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        # Some writers make files that only their owner can read.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise AdaNATError(f"Cannot write {path}: {_reason(error)}; choose a folder that you can write to.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_writable(folder: Path) -> None:
    """Make a folder and write to it, so that a mistake shows before the work is done.

    Raises:
        AdaNATError: if that fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise AdaNATError(f"Cannot write to {folder}: {_reason(error)}; choose another --output folder.") from error


def _reason(error: OSError) -> str:
    """Say what is wrong in words that fit a folder."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "a file is in the way"
    return error.strerror or str(error)


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def write_json(path: Path, values: Any) -> None:
    """Write readable JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        AdaNATError: if the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AdaNATError(f"{path} does not exist; fetch or write it again.") from error
    except (OSError, ValueError) as error:
        raise AdaNATError(f"{path} cannot be read as JSON ({error}); fetch or write it again.") from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write safetensors, whole or not at all; tensors are made contiguous and unshared."""
    from safetensors.torch import save_file  # here, so that reading JSON needs no PyTorch

    owned = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(owned, temporary, metadata=dict(metadata or {}) or None)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read safetensors to the CPU.

    Raises:
        AdaNATError: if the file is missing or damaged.
    """
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise AdaNATError(f"{path} does not exist.") from error
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
