"""Tables on a terminal."""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from adanat_cli.commands.wording import UNBROKEN
from adanat_cli.core.errors import printable


def drawn(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """A table as wide as it needs to be: a folded number cannot be read.

    On a terminal that is too narrow, rows become columns where these fit, and else lines of text.
    """
    lines, width = _table(head, body), terminal_width()
    if width and len(lines[0]) > width:
        turned = _table(*_turned(head, body))
        return turned if len(turned[0]) <= width else [*_folded(head, body, width)]
    return lines


def terminal_width() -> int:
    """Columns of the terminal that reads the output; 0 where none does."""
    return Console().width if sys.stdout.isatty() else 0


def _folded(head: Sequence[str], body: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Each row as its name, with the other cells below it after their heads."""
    for name, *cells in body:
        yield printable(name)
        pairs = [f"{word} {printable(cell)}".replace(" ", UNBROKEN) for word, cell in zip(head[1:], cells, strict=True)]
        lines = textwrap.wrap(
            ", ".join(pairs), width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
        yield from (line.replace(UNBROKEN, " ") for line in lines)


def _turned(head: Sequence[str], body: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """The table with one column for each row."""
    first, *others = map(list, zip(head, *body, strict=True))
    return first, others


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    table = Table()
    for cell in head:  # as plain text: brackets of a name are no markup
        table.add_column(Text(printable(cell)))
    for line in body:
        table.add_row(*(Text(printable(cell)) for cell in line))
    text = io.StringIO()
    Console(file=text, width=max(100, 20 * len(head))).print(table)
    return text.getvalue().rstrip().split("\n")
