"""One writer at a time: a lock on the output of a run, which the system frees however the run ends."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adanat_cli.core.checkpoints.files import check_writable, writing
from adanat_cli.core.errors import AdaNATError

_SUFFIX, _PAUSE = ".lock", 0.1
_held: set[Path] = set()
"""Locks of this process: a job that calls another for the same folder has locked it already."""


@contextmanager
def locked(folder: Path, name: str = "", patience: float = 0) -> Iterator[None]:
    """Keep other processes from writing into a folder, or to one file of it, inside the block.

    The folder is made if it is missing, and removed again if it is empty at the end.

    Args:
        folder: folder to write into.
        name: name of the only file to write; "" for the whole folder.
        patience: seconds to wait while another process holds the lock.

    Raises:
        AdaNATError: if another process holds the lock, or the folder cannot be written to.
    """
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    check_writable(folder)
    path = folder.resolve() / (f".{name}{_SUFFIX}" if name else _SUFFIX)
    if path in _held:
        yield
        return
    file = _take(path, folder / name, time.monotonic() + patience)
    _held.add(path)
    try:
        yield
    finally:
        _held.discard(path)
        with suppress(OSError):
            path.unlink()  # while it is locked, so that no other process's lock is removed
        os.close(file)
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()


def is_empty(folder: Path) -> bool:
    """Whether a folder is empty except for a lock file."""
    return all(child.name == _SUFFIX for child in folder.iterdir())


def _take(path: Path, shown: Path, deadline: float) -> int:
    """Open and lock a file, and write the holder's process number into it."""
    while True:
        with writing(path):
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        # The previous holder may have removed the file in between.
        if (free := _lock(file)) and _is_there(file, path):
            with suppress(OSError):  # a full disk: it is locked all the same
                os.truncate(file, 0)
                os.write(file, f"process {os.getpid()} on {platform.node()}".encode())
            return file
        holder = os.read(file, 200).decode(errors="replace").strip()
        os.close(file)
        if not free and time.monotonic() >= deadline:
            who = f", {holder}" if holder and holder.isprintable() else ""
            raise AdaNATError(
                f"{shown} is being written by another adanat{who}; wait until that has ended, or choose another "
                "--output."
            )
        time.sleep(_PAUSE)


def _lock(file: int) -> bool:
    """Lock an open file unless another process has; always succeeds on a file system without locks."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _is_there(file: int, path: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(file), path.stat())
    return False
