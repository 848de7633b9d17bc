"""Class ids and names: folder names to ids, and ImageNet's numbering."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SYNSET = re.compile(r"n\d{8}")
MAX_UNASKED = 100_000
"""Most classes that are believed without --num-classes: networks grow with the largest label."""


def imagenet_synsets() -> dict[str, tuple[int, str]]:
    """ImageNet-1k: synset id to (class id, name)."""
    from timm.data import ImageNetInfo  # heavy, and needed for synset folders only

    info = ImageNetInfo()
    return {synset: (label, info.label_name_to_description(synset)) for label, synset in enumerate(info.label_names())}


def folder_classes(folders: Sequence[str]) -> tuple[dict[str, int], dict[int, str], int]:
    """Number class folders.

    Args:
        folders: their names, sorted.

    Returns:
        Folder to class id, class id to name, and the number of classes. ImageNet-1k synset ids
        (``n01440764``) get ImageNet's numbers and names; whole numbers stand for themselves, unless they are too large
        to be class ids; other names are numbered in order.
    """
    if folders and all(_SYNSET.fullmatch(folder) for folder in folders):
        synsets = imagenet_synsets()
        if all(folder in synsets for folder in folders):
            ids = {folder: synsets[folder][0] for folder in folders}
            return ids, dict(sorted(synsets.values())), len(synsets)
    if folders and all(folder.isascii() and folder.isdigit() for folder in folders):
        ids = {folder: int(folder) for folder in folders}
        if len(set(ids.values())) == len(ids) and max(ids.values()) < MAX_UNASKED:
            return ids, {label: folder for folder, label in ids.items()}, max(ids.values()) + 1
    return {f: label for label, f in enumerate(folders)}, dict(enumerate(folders)), len(folders)
