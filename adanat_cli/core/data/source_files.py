"""The files of a data set: listing them, keeping within its folders, and a digest that shows changes."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adanat_cli.core.errors import AdaNATError, require

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".qoi"),
    # Read where Pillow can; counted as unreadable images elsewhere.
    *(".heic", ".heif", ".jxl"),
)
_LITTER = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "__pycache__"}
"""Folders, other than hidden ones, that systems and programs leave beside data."""
_MOST_OTHERS = 200_000
"""Files and folders that may lie between a few images before a folder is refused."""


@dataclass(frozen=True)
class SourceFiles:
    """Files on disk, or URLs.

    Attributes:
        root: folder; None for URLs.
        names: relative to it, with "/" between folders.
        by_row: whether the first names are those of the images of the rows, one each.
    """

    root: Path | None = field(repr=False)
    names: Sequence[str] = field(repr=False)
    by_row: bool = False

    @classmethod
    def of(cls, path: Path, files: Iterable[Path]) -> SourceFiles:
        """Describe files of the data set at a path, which is a folder or the only file."""
        root = (path if path.is_dir() else path.parent).resolve()
        return cls(root, [os.path.relpath(file.absolute(), root.absolute()).replace(os.sep, "/") for file in files])

    def digest(self) -> str:
        """Digest names, sizes and times of modification: cheap, and the same after the folder has moved.

        Moving and copying with times (``mv``, ``cp -p``, ``rsync -a``) keeps it; a copy with new times counts as
        other data, since files of equal size are not read to compare them. URLs count by their last parts.
        """
        digest = hashlib.sha256()
        for name in self.names:
            if self.root is None:
                digest.update(f"{name}\n".encode())
                continue
            try:
                status = (self.root / name).stat()
                state = f"{status.st_size}\0{status.st_mtime_ns}"
            except (OSError, ValueError):  # a list names it and it is missing, which its reader reports
                state = ""
            digest.update(name.encode(errors="surrogatepass") + f"\0{state}\n".encode())
        return digest.hexdigest()[:16]


def file_within(folders: Sequence[str], path: str) -> Path | None:
    """The file at an untrusted path, or None if that leads out of the folders."""
    for folder in folders:
        file = Path(os.path.abspath(os.path.join(folder, path)))
        if file.is_relative_to(os.path.abspath(folder)):
            return file
    return None


def inside_folder(folder: str, name: str) -> str:
    """Return the path below the root of a data set of a file that a list names; "" if it leads out of the data set.

    ``folder`` is the list's own below the root: "", or with "/" at its end.
    """
    path = posixpath.normpath(posixpath.join(folder, name.replace("\\", "/")))
    try:
        os.fsencode(path)
    except UnicodeEncodeError:  # no file can have this name
        return ""
    return "" if path.startswith(("..", "/")) or re.match(r"[a-zA-Z]:", path) or "\0" in path else path


@dataclass
class Listing:
    """Files below a folder, with "/" between names; without hidden files, litter, and folders that links repeat.

    Attributes:
        images: files with a suffix of images, sorted.
        others: other files, sorted.
        notes: what was left out, for people.
    """

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def list_files(root: Path) -> Listing:
    """List the files below a folder; each folder is read once, under its own path where links lead there as well.

    Raises:
        AdaNATError: if a folder cannot be read, or hardly any of many files is an image.
    """
    require(root.resolve() != Path(root.resolve().anchor), f"{root} is the whole file system; give a folder of images.")
    listing, seen, links = Listing(), {_identity(root)}, deque[str]()
    folders = [""]
    above = {_identity(folder) for folder in root.resolve().parents}
    while folders or links:
        if not folders:
            link = links.popleft()
            if (identity := _identity(root / link)) in seen | above:
                listing.notes.append(f"the link {link} leads to a folder that is read already")
                continue
            seen.add(identity)
            folders.append(link)
        folder = folders.pop()
        for entry in _entries(root, folder):
            path = f"{folder}/{entry.name}" if folder else entry.name
            if not _is_folder(entry):
                (listing.images if entry.name.lower().endswith(IMAGE_SUFFIXES) else listing.others).append(path)
            elif entry.is_symlink():
                # Last of all: a folder counts where it lies, not where a link to it does.
                links.append(path)
            elif (identity := _identity(Path(entry.path))) not in seen:
                seen.add(identity)
                folders.append(path)
        require(
            len(seen) + len(listing.others) < _MOST_OTHERS + 100 * len(listing.images),
            f"{root} holds more than {_MOST_OTHERS:,} files and folders, and hardly an image among them; give the "
            "folder of the images.",
        )
    listing.images.sort()
    listing.others.sort()
    return listing


def _entries(root: Path, folder: str) -> list[os.DirEntry[str]]:
    """Entries of a folder without hidden files and litter, sorted by name."""
    try:
        with os.scandir(root / folder) as entries:
            kept = [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in _LITTER]
    except OSError as error:
        raise AdaNATError(
            f"{root / folder} cannot be read ({error.strerror}); correct its permissions, or move it away."
        ) from error
    return sorted(kept, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
