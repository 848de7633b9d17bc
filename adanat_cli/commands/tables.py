"""Tables on a terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from adanat_cli.core.errors import printable


def drawn(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """A table as wide as it needs to be: a folded number cannot be read.

    On a terminal that is too narrow, rows become columns where that is narrower.
    """
    lines = _table(head, body)
    if sys.stdout.isatty() and len(lines[0]) > Console().width:
        turned = _table(*_turned(head, body))
        return min(lines, turned, key=lambda shape: len(shape[0]))
    return lines


def _turned(head: Sequence[str], body: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """The table with one column for each row."""
    first, *others = map(list, zip(head, *body, strict=True))
    return first, others


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    table = Table(*head)
    for line in body:
        table.add_row(*(Text(printable(cell)) for cell in line))  # as plain text: brackets of a name are no markup
    text = io.StringIO()
    Console(file=text, width=max(100, 20 * len(head))).print(table)
    return text.getvalue().rstrip().split("\n")
