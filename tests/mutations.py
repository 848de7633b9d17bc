"""What strangers' files may hold: JSON values with one thing wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

HUGE = "5,000 digits"
DEEP = "[" * 10_000 + "]" * 10_000
"""Marks of what no encoder would write; ``as_json`` puts in a number of 5,000 digits, and lists 10,000 deep."""
WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 3, 0.5, 10**9, 2**40, HUGE, -(2**70), float("nan"), float("-inf"), 1e300, "", "x", "8",
    "\ud800\x1b[31m", [], [[[]]], ["x"], [-1], [2**40] * 3, {}, {"": {}}, DEEP,
)  # fmt: skip


def mutations(values: Any, sparse: int = 1) -> Iterator[tuple[str, Any]]:
    """Yield what was changed, and a copy of JSON values in which one key is missing, added or holds a wrong value.

    Args:
        values: of JSON.
        sparse: keep one change of so many, which still visits every place with some of them.
    """
    number = 0
    for place in _places(values):
        for wrong in ("missing", "added", *WRONG):
            number += 1
            if number % sparse:
                continue
            changed = copy.deepcopy(values)
            if not place:
                yield f"all {wrong!r:.40}", wrong
                continue
            parent = changed
            for key in place[:-1]:
                parent = parent[key]
            if wrong == "missing":
                del parent[place[-1]]
            elif wrong == "added" and isinstance(parent, dict):
                parent["added"] = 1
            else:
                parent[place[-1]] = wrong
            yield f"{'.'.join(map(str, place))} {wrong!r:.40}", changed


def _places(values: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    parts = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, part in list(parts)[:12]:
        yield from _places(part, (*place, key))


def as_json(values: Any) -> str:
    """Encode values without any of the care that the toolkit takes."""
    return json.dumps(values).replace(json.dumps(DEEP), DEEP).replace(json.dumps(HUGE), "9" * 5000)
