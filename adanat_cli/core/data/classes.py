"""Class ids and names: folder names to ids, ImageNet's numbering, and names that a user typed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from adanat_cli.core.errors import AdaNATError

_SYNSET = re.compile(r"n\d{8}")


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
        (``n01440764``) get ImageNet's numbers and names; whole numbers stand for themselves; other
        names are numbered in order.
    """
    if folders and all(_SYNSET.fullmatch(folder) for folder in folders):
        synsets = imagenet_synsets()
        if all(folder in synsets for folder in folders):
            ids = {folder: synsets[folder][0] for folder in folders}
            return ids, dict(sorted(synsets.values())), len(synsets)
    if folders and all(folder.isascii() and folder.isdigit() for folder in folders):
        ids = {folder: int(folder) for folder in folders}
        if len(set(ids.values())) == len(ids):
            return ids, {label: folder for folder, label in ids.items()}, max(ids.values()) + 1
    return {f: label for label, f in enumerate(folders)}, dict(enumerate(folders)), len(folders)


def find_class(wanted: str, class_names: dict[int, str], num_classes: int) -> int:
    """Find the class that the user named by id or name.

    A name matches in any case, whole or as one of the comma-separated synonyms.

    Raises:
        AdaNATError: if there is no such class, or the name fits several.
    """
    if wanted.strip().isdigit():
        if int(wanted) < num_classes:
            return int(wanted)
        raise AdaNATError(f"Class {wanted} does not exist; expected 0 to {num_classes - 1}.")
    name = wanted.strip().lower()
    found = [label for label, known in class_names.items() if known.lower() == name] or [
        label for label, known in class_names.items() if name in [part.strip() for part in known.lower().split(",")]
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise AdaNATError(f"Class {wanted!r} fits the ids {', '.join(map(str, found))}; give one of these ids.")
    near = [f"{known} ({label})" for label, known in class_names.items() if name in known.lower()][:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "give its id or its full name."
    raise AdaNATError(f"Class {wanted!r} is not known here; {hint}")
