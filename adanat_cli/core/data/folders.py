"""Folders on disk: images by class, and the split that a file belongs to."""

from __future__ import annotations

import os
import re
from pathlib import Path

from adanat_cli.core.errors import AdaNATError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_SPLITS = {"train": "train", "training": "train", "val": "validation", "valid": "validation", "test": "test"}
_SPLITS |= {"validation": "validation", "dev": "validation"}


def split_of(name: str) -> str:
    """Return the split that a word of a file or folder name tells (``val-00000-of-00001`` …), or ""."""
    words = re.split(r"[-_.]", name.lower())
    return next((_SPLITS[word] for word in words if word in _SPLITS), "")


def split_folder(place: Path, split: str) -> Path:
    """Return the subfolder of a split, or the folder itself where it has no such subfolders.

    Raises:
        AdaNATError: if other splits are there but not this one.
    """
    folders = [child for child in sorted(place.iterdir()) if child.is_dir() and not child.name.startswith(".")]
    splits = {_SPLITS[child.name.lower()]: child for child in folders if child.name.lower() in _SPLITS}
    # One such name among others is a class: trains are a thing to photograph.
    if len(splits) < min(len(folders), 2):
        splits = {}
    if split in splits:
        return splits[split]
    if splits or split != "train":
        there = ", ".join(sorted(splits)) or "no split folders, so all its images count as train"
        raise AdaNATError(f"{place} has no {split} split; it has {there}.")
    return place


def class_files(place: Path, split: str) -> tuple[Path, list[str], list[str]]:
    """List images by class.

    Returns:
        The folder of the split, the image files relative to it in sorted order, and the class folder
        (the first folder of the relative path; "" at the top) of each.

    Raises:
        AdaNATError: if there are no images.
    """
    root = split_folder(place, split)
    files: list[str] = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        inside = os.path.relpath(folder, root)
        prefix = "" if inside == "." else inside.replace(os.sep, "/") + "/"
        images = (name for name in names if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."))
        files.extend(prefix + name for name in images)
    if not files:
        raise AdaNATError(f"{root} holds no images; expected one folder of images per class, Parquet files or tars.")
    files.sort()
    return root, files, [file.split("/")[0] if "/" in file else "" for file in files]
