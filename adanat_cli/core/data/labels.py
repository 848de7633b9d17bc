"""What a label may look like in a table, a tar or JSON, and the class ids it stands for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from adanat_cli.core.data.classes import MAX_UNASKED, folder_classes
from adanat_cli.core.errors import printable, require

ClassIds: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
RawLabel: TypeAlias = int | str | None
"""A class id, a word that has yet to get one, or no label."""

_LARGEST, _LONGEST = 2**31, 256


def read_label(value: Any) -> RawLabel:
    """Read 3, 3.0, "3" and True as class ids, "cat" as a word; None, "", NaN, 0.5 and lists are no labels."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        text = value.strip("\ufeff \t\r\n\0")
        digits = text.removeprefix("-").removesuffix(".0")
        if digits.isascii() and digits.isdigit():
            return _bounded(float(text)) if len(digits) < _LONGEST else None
        return printable(text) if 0 < len(text) <= _LONGEST else None
    return _bounded(value) if isinstance(value, int | float) else None


def _bounded(value: float) -> int | None:
    whole = abs(value) < _LARGEST and value == int(value)  # NaN and infinity are below nothing
    return int(value) if whole else None


def is_label(value: Any) -> bool:
    """Whether a value can be a label at all: a number, truth value or word."""
    return isinstance(value, bool | int | float | str)


def number_words(labels: Collection[RawLabel], shown: str) -> tuple[dict[RawLabel, int], dict[int, str], int]:
    """Give class ids to labels of which some are words, as class folders of these names get theirs.

    Returns:
        Label to class id, class id to name, and the number of classes.

    Raises:
        AdaNATError: if there are so many that they can be no classes.
    """
    words = sorted({str(label) for label in labels if label is not None})
    require(
        len(words) <= MAX_UNASKED,
        f"{shown} has {len(words)} different words as labels, too many for classes; if they are captions, name their "
        "column with --caption-column.",
    )
    ids, names, num_classes = folder_classes(words)
    return {label: ids[str(label)] for label in labels if label is not None}, names, num_classes


def numbered_as(names: Mapping[int, str], train: Mapping[int, str]) -> tuple[dict[int, int], dict[int, str]]:
    """Give the classes of one split the ids that the train split has for their names, and others the next ones.

    Args:
        names: class id to name in this split.
        train: class id to name in the train split.

    Returns:
        Class id of this split to that of the train split, and class id to name of both.
    """
    known = {name: label for label, name in train.items()}
    others = dict(enumerate(sorted(set(names.values()) - set(known)), max(train) + 1))
    known |= {name: label for label, name in others.items()}
    # Two of ImageNet's classes may have one name.
    ids = {label: label if train.get(label) == name else known[name] for label, name in names.items()}
    return ids, {**train, **others}


def class_ids(labels: Sequence[RawLabel], shown: str) -> tuple[ClassIds, dict[int, str], int]:
    """Give class ids to labels as they were read.

    Returns:
        (labels,) ids, -1 where there is no label; class id to name and the number of classes, of words.

    Raises:
        AdaNATError: if there are too many different words.
    """
    ids: dict[RawLabel, int] = {}
    names: dict[int, str] = {}
    num_classes = 0
    if any(isinstance(label, str) for label in labels):
        ids, names, num_classes = number_words(set(labels), shown)
    numbers = (ids.get(label, label if isinstance(label, int) else -1) for label in labels)
    return np.fromiter(numbers, np.int64, len(labels)), names, num_classes
