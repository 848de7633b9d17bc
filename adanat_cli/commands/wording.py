"""Settings and plans in words, for people; JSON has all of it."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

UNBROKEN = "\N{NO-BREAK SPACE}"
_MOST, _LEAST = 110, 40


def line_width() -> int:
    """Columns of a line of text: as many as the terminal has that reads it, between 40 and 110."""
    columns = shutil.get_terminal_size((_MOST, 0)).columns if sys.stdout.isatty() else _MOST
    return max(_LEAST, min(_MOST, columns))


def short(value: Any) -> str:
    """Put a value on one line: numbers to four digits, mappings as `key value`; what is empty is left out."""
    if isinstance(value, Mapping):
        return ", ".join(_pairs(value))
    if isinstance(value, str) or not isinstance(value, Sequence):
        return _scalar(value)
    return (" " if all(isinstance(part, int | float) for part in value) else "; ").join(map(short, value))


def lines_of(values: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Lay values out, one per line, with longer ones folded below their name and thousands separated in a plan."""
    for key, value in values.items():
        name = key.replace("_", " ")
        if isinstance(value, Mapping) and any(isinstance(part, Mapping) for part in value.values()):
            yield f"{indent}{name}:"
            yield from lines_of(value, indent + "  ")
            continue
        if isinstance(value, Mapping):
            text = ", ".join(pair.replace(" ", UNBROKEN) for pair in _pairs(value))
        else:
            text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else short(value)
        folded = textwrap.wrap(
            f"{indent}{name}: {text or 'none'}",
            line_width(),
            subsequent_indent=f"{indent}  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        yield from (line.replace(UNBROKEN, " ") for line in folded)


def _pairs(values: Mapping[str, Any]) -> list[str]:
    return [f"{key} {short(part)}" for key, part in values.items() if part not in ("", [], (), {}, None)]


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
