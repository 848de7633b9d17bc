"""What a label may look like in a table, a tar, JSON or a folder's name, and the class ids that labels stand for."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from adanat_cli.core.config import DataConfig
from adanat_cli.core.errors import printable, require

ClassIds: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
RawLabel: TypeAlias = int | str | None
"""A class id, a word that has yet to get one, or no label."""

_MAX_UNASKED = 100_000
"""Most classes that are believed without --num-classes: networks grow with the largest label."""
_LARGEST, _LONGEST = 2**31, 256
_SYNSET = re.compile(r"n\d{8}")


def read_label(value: Any) -> RawLabel:
    """Read 3, 3.0, "3" and True as class ids, "cat" as a word; None, "", NaN, 0.5 and lists are not labels."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        text = value.strip("\ufeff \t\r\n\0")
        digits = text.removeprefix("-").removesuffix(".0")
        if digits.isascii() and digits.isdigit():
            return _whole(float(text)) if len(digits) < _LONGEST else None
        return printable(text) if 0 < len(text) <= _LONGEST else None
    return _whole(value) if isinstance(value, int | float) else None


def _whole(value: float) -> int | None:
    is_whole = abs(value) < _LARGEST and value == int(value)  # NaN and infinity are below nothing
    return int(value) if is_whole else None


def is_label(value: Any) -> bool:
    """Whether a value can be a label at all: a number, truth value or word."""
    return isinstance(value, bool | int | float | str)


def number_names(names: Sequence[str]) -> tuple[dict[str, int], dict[int, str], int]:
    """Number classes by their sorted names: those of class folders, or words as labels.

    Returns:
        Name to class id, class id to name to show, and the number of classes. ImageNet-1k synset ids
        (``n01440764``) get ImageNet's numbers and names; whole numbers stand for themselves, unless they are too large
        to be class ids; other names are numbered in order.
    """
    if names and all(_SYNSET.fullmatch(name) for name in names):
        synsets = imagenet_synsets()
        if all(name in synsets for name in names):
            return {name: synsets[name][0] for name in names}, dict(sorted(synsets.values())), len(synsets)
    if names and all(name.isascii() and name.isdigit() for name in names):
        ids = {name: int(name) for name in names}
        if len(set(ids.values())) == len(ids) and max(ids.values()) < _MAX_UNASKED:
            return ids, {label: name for name, label in ids.items()}, max(ids.values()) + 1
    return {name: label for label, name in enumerate(names)}, dict(enumerate(names)), len(names)


@cache
def imagenet_synsets() -> Mapping[str, tuple[int, str]]:
    """ImageNet-1k: synset id to (class id, name)."""
    from timm.data import ImageNetInfo  # heavy, and needed for synsets only

    info = ImageNetInfo()
    return {synset: (label, info.label_name_to_description(synset)) for label, synset in enumerate(info.label_names())}


def number_labels(labels: Collection[RawLabel], shown: str) -> tuple[dict[RawLabel, int], dict[int, str], int]:
    """Give class ids to labels: numbers stand for themselves, unless words are among them; all are names then.

    Returns:
        Label to class id; class id to name and the number of classes, {} and 0 where all labels are numbers.

    Raises:
        AdaNATError: if the words are too many to be classes.
    """
    if not any(isinstance(label, str) for label in labels):
        return {label: label for label in labels if isinstance(label, int)}, {}, 0
    words = sorted({str(label) for label in labels if label is not None})
    require(
        len(words) <= _MAX_UNASKED,
        f"{shown} has {len(words)} different words as labels, too many for classes; if they are captions, name their "
        "column with --caption-column.",
    )
    ids, names, num_classes = number_names(words)
    return {label: ids[str(label)] for label in labels if label is not None}, names, num_classes


def class_ids(labels: Sequence[RawLabel], shown: str) -> tuple[ClassIds, dict[int, str], int]:
    """Return (labels,) class ids, -1 where there is no label, and names and number of classes as ``number_labels``."""
    ids, names, num_classes = number_labels(set(labels), shown)
    return np.fromiter((ids.get(label, -1) for label in labels), np.int64, len(labels)), names, num_classes


def numbered_as(names: Mapping[int, str], train: Mapping[int, str]) -> tuple[dict[int, int], dict[int, str]]:
    """Give classes, id to name, the ids that the train split has for their names, and others the next ones.

    Returns:
        Class id of this split to that of the train split, and class id to name of both.
    """
    known = {name: label for label, name in train.items()}
    others = dict(enumerate(sorted(set(names.values()) - set(known)), max(train) + 1))
    known |= {name: label for label, name in others.items()}
    # Two of ImageNet's classes may have one name.
    ids = {label: label if train.get(label) == name else known[name] for label, name in names.items()}
    return ids, {**train, **others}


def count_classes(config: DataConfig, labels: ClassIds, num_named: int) -> int:
    """Check (images,) class ids against the asked number of classes, or else count the classes.

    Raises:
        AdaNATError: if too many are missing, or one is too large.
    """
    num_bare, low, high = int((labels < 0).sum()), int(labels.min()), int(labels.max())
    require(
        num_bare <= min(config.max_bad * len(labels), len(labels) - 1),
        f"{num_bare} of the {len(labels)} images of {config.source} ({config.split}) have no label (null or below 0); "
        "label them or leave them out, or allow more with --max-bad.",
    )
    num_classes = config.num_classes or max(num_named, high + 1)
    require(
        high < num_classes,
        f"{config.source} has labels from {low} to {high}; expected 0 to {num_classes - 1} (--num-classes).",
    )
    if not config.num_classes:
        refuse_large(config, num_classes)
    return num_classes


def refuse_large(config: DataConfig, num_classes: int) -> None:
    """Refuse more classes than are believed without --num-classes."""
    require(
        num_classes <= _MAX_UNASKED,
        f"{config.source} has labels up to {num_classes - 1}; number the classes from 0, or give --num-classes "
        f"{num_classes} if there really are that many.",
    )
