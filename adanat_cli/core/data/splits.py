"""The split that a file or a folder belongs to by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from adanat_cli.core.errors import MissingSplit

_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_SPLITS |= dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation", "holdout"), "validation")
_WORD = re.compile(
    r"(train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?|dev|eval(?:uation)?|holdout)(set|data|images?|imgs?|split)?\d*"
)
_FILLERS = {"set", "data", "dataset", "split", "images", "image", "imgs", "img", "pictures", "photos", "jpg", "png"}


def split_of(name: str) -> str:
    """Return the split that a word of a file or folder name stands for (``val-00000-of-00001`` …), or ""."""
    words = re.split(r"[-_.]", name.lower())
    return next((_SPLITS[word] for word in words if word in _SPLITS), "")


def split_of_folder(name: str) -> str:
    """Return the split that a folder is named after and nothing else (``training_set``, ``val2017``), or ""."""
    words = [word for word in re.split(r"[-_. ]|(?<=[a-z])(?=[A-Z])", name) if word]
    left = [word.lower() for word in words if word.lower() not in _FILLERS and not word.isdigit()]
    found = _WORD.fullmatch(left[0]) if len(left) == 1 else None
    return _SPLITS[found[1]] if found else ""


def files_of_split(files: Sequence[Path], split: str, folder: Path, example: str) -> list[Path]:
    """Choose the files of a split by their own names or those of the folders around them; others count as train.

    Raises:
        MissingSplit: if there are none; the message names ``example`` as one that would count.
    """
    splits: dict[str, list[Path]] = {}
    for file in files:
        above = split_of(file.parent.name) if file.parent != folder else ""
        splits.setdefault(split_of(file.name) or above or "train", []).append(file)
    if split not in splits:
        raise MissingSplit(
            f"{folder} has no {split} files; it has {', '.join(sorted(splits))} (file names give the split, as "
            f"in {example})."
        )
    return splits[split]
