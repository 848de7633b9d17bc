"""The files that a data set lies in, and what tells them from others."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class SourceFiles:
    """Files on disk, or addresses.

    Attributes:
        root: folder; None for addresses.
        names: relative to it, with "/" between folders.
        by_row: whether the first names are those of the images of the rows, one each.
    """

    root: Path | None = field(repr=False)
    names: Sequence[str] = field(repr=False)
    by_row: bool = False

    @classmethod
    def of(cls, place: Path, files: Iterable[Path]) -> SourceFiles:
        """Those files of a data set at a place: a folder, or its only file."""
        root = (place if place.is_dir() else place.parent).resolve()
        return cls(root, [os.path.relpath(file.absolute(), root.absolute()).replace(os.sep, "/") for file in files])

    def digest(self) -> str:
        """Digest of names, sizes and times: cheap, other after a change, and the same where the folder is moved.

        Moving and copying with times (``mv``, ``cp -p``, ``rsync -a``) keeps it; a copy with new times counts as
        other data, since files of equal size are not read to compare them. Addresses count by their last parts.
        """
        digest = hashlib.sha256()
        for name in self.names:
            if self.root is None:
                digest.update(f"{name}\n".encode())
                continue
            try:
                status = (self.root / name).stat()
                told = f"{status.st_size}\0{status.st_mtime_ns}"
            except (OSError, ValueError):  # a list names it and it is not there, which its reader tells of
                told = ""
            digest.update(name.encode(errors="surrogatepass") + f"\0{told}\n".encode())
        return digest.hexdigest()[:16]


def file_within(folders: Sequence[str], path: str) -> Path | None:
    """The file at a path that a stranger wrote, unless it leads out of the folders."""
    for folder in folders:
        file = Path(os.path.abspath(os.path.join(folder, path)))
        if file.is_relative_to(os.path.abspath(folder)):
            return file
    return None
