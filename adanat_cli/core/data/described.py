"""A data set in words for people: names of which there are many, and the classes of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_MOST_LISTED = 3


def listed(names: Sequence[str], separator: str = ", ") -> str:
    """The first names of many."""
    more = f" and {len(names) - _MOST_LISTED:,} more" if len(names) > _MOST_LISTED else ""
    return separator.join(names[:_MOST_LISTED]) + more


def plural(noun: str, number: int) -> str:
    """The noun as it follows a number."""
    return noun if number == 1 else f"{noun}es" if noun.endswith("s") else f"{noun}s"


def classes_in_words(counts: Mapping[int, int], names: Mapping[int, str], num_classes: int) -> str:
    """Say how many classes of the numbering occur, with the smallest and the largest.

    ``counts``, class id to images, is empty where that is not known before the end.
    """
    if not counts and num_classes > 1:
        return f"of {num_classes:,} classes"
    if not counts or (num_classes == 1 and not names):
        return "without classes"
    of = f"{len(counts):,} of {num_classes:,}" if len(counts) < num_classes else f"{num_classes:,}"
    said = f"in {of} {plural('class', num_classes)}"
    # Of several the first by number, so that the same data gives the same line.
    least, most = min(sorted(counts), key=counts.__getitem__), max(sorted(counts), key=counts.__getitem__)
    if len(counts) == 1:
        return f"{said} ({_name(least, names)})"
    if counts[least] == counts[most]:
        if len(counts) <= _MOST_LISTED and names.keys() >= counts.keys():
            said += f" ({listed([_name(label, names) for label in sorted(counts)])})"
        return f"{said}, {counts[most]:,} each"
    return f"{said}, from {counts[least]:,} ({_name(least, names)}) to {counts[most]:,} ({_name(most, names)}) each"


def _name(label: int, names: Mapping[int, str]) -> str:
    return names.get(label, "").split(",")[0] or f"class {label}"
