"""From what a user calls a class to its id."""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Callable, Mapping, Sequence

from adanat_cli.core.errors import AdaNATError

_NUM_LISTED = 5
_HINT = {"this model": "; `adanat info` lists them all."}


def short_name(name: str) -> str:
    """Return the first of a name's comma-separated synonyms."""
    return name.split(",")[0].strip()


def find_classes(
    asked: Sequence[str], labels: Mapping[int, str], num_classes: int, place: str = "this model"
) -> list[int]:
    """Return the id of every class that is asked for.

    Args:
        asked: ids, names, or one of a name's comma-separated synonyms; capitals do not matter.
        labels: id -> name of the classes that the model or data has seen; empty if it does not say.
        num_classes: of the label numbering; every id below it counts as seen where ``labels`` is empty.
        place: what is searched, for the error message.

    Raises:
        AdaNATError: if a class is unknown, has not been seen or has a name that others share.
    """
    return [_find_class(text.strip(), labels, num_classes, place) for text in asked]


def assign_classes(asked: Sequence[str], names: Mapping[int, str], num_classes: int, seed: int) -> Callable[[int], int]:
    """Return the class of image i, whatever the number of images: the given ones, or all in a seeded order, in turn.

    Args:
        asked: ids or names; empty for all.
        names: id -> name of the classes that the model has seen; empty if it does not say.
        num_classes: of the label numbering.
        seed: of the order.

    Raises:
        AdaNATError: if a class is unknown, has not been seen or has a name that others share.
    """
    classes = find_classes(asked, names, num_classes)
    if not classes:
        classes = sorted(names) or list(range(num_classes))
        # A shuffle, so that a few images show classes from all over the numbering.
        random.Random(seed).shuffle(classes)
    return lambda index: classes[index % len(classes)]


def _find_class(text: str, labels: Mapping[int, str], num_classes: int, place: str) -> int:
    if re.fullmatch(r"[+-]?\d{1,18}", text):
        return _check_id(int(text), labels, num_classes, place)
    wanted = " ".join(text.casefold().split())
    found = [label for label, name in labels.items() if wanted in _synonyms(name)]
    if len(found) > 1:
        ids = ", ".join(str(label) for label in sorted(found))
        raise AdaNATError(f"Class {text!r} is the name of several classes: {ids}; give the id.")
    if not found:
        raise AdaNATError(_unknown(text, wanted, labels, num_classes, place))
    return found[0]


def _check_id(label: int, labels: Mapping[int, str], num_classes: int, place: str) -> int:
    if labels and label not in labels:
        raise AdaNATError(
            f"Class {label} was never shown to {place}, which knows {len(labels)} classes such as "
            f"{_some(labels)}{_HINT.get(place, '.')}"
        )
    if not 0 <= label < num_classes:
        raise AdaNATError(f"Class {label} does not exist in {place}; expected an id from 0 to {num_classes - 1}.")
    return label


def _unknown(text: str, wanted: str, labels: Mapping[int, str], num_classes: int, place: str) -> str:
    if not labels:
        return f"Class {text!r} cannot be found, for {place} names no classes; give an id from 0 to {num_classes - 1}."
    by_synonym = {synonym: label for label, name in labels.items() for synonym in _synonyms(name)}
    close = difflib.get_close_matches(wanted, by_synonym, n=3, cutoff=0.6)
    # A word of a name ("retriever") is further from it than difflib's cutoff.
    close += [synonym for synonym in by_synonym if wanted and wanted in synonym and synonym not in close]
    if close:
        nearest = ", ".join(f"{synonym} ({by_synonym[synonym]})" for synonym in close[:_NUM_LISTED])
        return f"Class {text!r} is not one that {place} knows; did you mean {nearest}?"
    return (
        f"Class {text!r} is not one of the {len(labels)} that {place} knows, such as "
        f"{_some(labels)}{_HINT.get(place, '.')}"
    )


def _synonyms(name: str) -> list[str]:
    """Return the ways to write a name: whole, and each comma-separated part."""
    return [" ".join(part.casefold().split()) for part in dict.fromkeys([name, *name.split(",")])]


def _some(labels: Mapping[int, str]) -> str:
    """List a few classes from all over the numbering."""
    ids = sorted(labels)
    chosen = ids[:: max(1, len(ids) // _NUM_LISTED)][:_NUM_LISTED]
    return ", ".join(f"{short_name(labels[label])} ({label})" for label in chosen)
