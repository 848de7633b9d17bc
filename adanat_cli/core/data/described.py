"""What was understood of a data set, in one line for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_MOST_LISTED = 3


def describe(
    shown: str,
    num_images: int | None,
    counts: Mapping[int, int],
    class_names: Mapping[int, str],
    num_classes: int,
    has_captions: bool,
    notes: Sequence[str],
) -> str:
    """Say images, classes with the smallest and largest, captions, and what was left out or decided.

    Args:
        shown: name and split of the data.
        num_images: None for a stream.
        counts: class id -> images; empty where that is not known before the end.
        class_names: class id -> name.
        num_classes: of the numbering.
        has_captions: whether captions are the condition.
        notes: what was left out or decided, a few words each.
    """
    images = "a stream of images" if num_images is None else f"{num_images:,} {_plural('image', num_images)}"
    condition = "with captions" if has_captions else _classes(counts, class_names, num_classes)
    return "; ".join((f"{shown}: {images} {condition}", *notes)) + "."


def listed(names: Sequence[str]) -> str:
    """The first names of many."""
    more = f" and {len(names) - _MOST_LISTED:,} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more


def _plural(noun: str, number: int) -> str:
    return noun if number == 1 else f"{noun}es" if noun.endswith("s") else f"{noun}s"


def _classes(counts: Mapping[int, int], names: Mapping[int, str], num_classes: int) -> str:
    if not counts:
        return f"of {num_classes:,} {_plural('class', num_classes)}" if num_classes > 1 else "without classes"
    if num_classes == 1 and not names:
        return "without classes"
    of = f"{len(counts):,} of {num_classes:,}" if len(counts) < num_classes else f"{num_classes:,}"
    said = f"in {of} {_plural('class', num_classes)}"
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
