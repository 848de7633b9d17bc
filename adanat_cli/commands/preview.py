"""Pictures in a terminal: a letter shows two pixels, one above the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from adanat_cli.core.errors import printable

if TYPE_CHECKING:
    from PIL.Image import Image

_HALF_BLOCK = "▀"
_SIDE, _LEAST, _ROWS = 32, 8, 2
"""Letters of a picture's width, and the fewest that show anything; rows of pictures."""


def obstacle(console: Console) -> str:
    """Why pictures cannot be drawn here; "" if they can."""
    if not console.is_terminal:
        return "there is no terminal"
    if console.no_color or console.color_system is None:
        return "the terminal shows no colours"
    if console.options.ascii_only:
        return "the terminal shows ASCII only; set its locale to UTF-8"
    return (
        "" if console.width >= _LEAST else f"the terminal is {console.width} letters wide; at least {_LEAST} are needed"
    )


def show(files: Sequence[str], console: Console) -> None:
    """Draw the first of the PNG files that ``adanat sample`` wrote, above what they are of.

    Args:
        files: paths.
        console: where to.
    """
    from PIL import Image

    side = min(_SIDE, console.width)
    columns = max(1, (console.width + 1) // (side + 1))
    table = Table.grid(padding=(0, 1, 0, 0))
    shown = files[: columns * _ROWS]
    for first in range(0, len(shown), columns):
        pictures, names = [], []
        for file in shown[first : first + columns]:
            with Image.open(file) as image:
                facts: dict[str, Any] = image.text  # type: ignore[attr-defined]  # of PNGs only
                pictures.append(half_blocks(image, side))
            name = Text(printable(facts.get("name", facts.get("prompt", ""))), style="dim")
            name.truncate(side, overflow="ellipsis")
            names.append(name)
        table.add_row(*pictures)
        table.add_row(*names)
    console.print(table)
    if len(files) > len(shown):
        console.print(f"The first {len(shown)} of {len(files):,} images.", style="dim")


def half_blocks(image: Image, columns: int) -> Text:
    """Draw an image with half blocks, whose upper half has the letter's colour and whose lower half has the ground's.

    Args:
        image: RGB; it is scaled to ``columns`` pixels a row.
        columns: letters a line.

    Returns:
        Lines of ``columns`` letters, half as many as there are rows of pixels.
    """
    from PIL.Image import Resampling

    rows = max(2, 2 * round(columns * image.height / image.width / 2))
    small = image.convert("RGB").resize((columns, rows), Resampling.BOX)
    pixels: Any = small.load()
    text = Text(no_wrap=True, end="")
    for y in range(0, rows, 2):
        for x in range(columns):
            upper, lower = (f"rgb({','.join(map(str, pixels[x, y + half]))})" for half in (0, 1))
            text.append(_HALF_BLOCK, Style.parse(f"{upper} on {lower}"))
        if y + 2 < rows:
            text.append("\n")
    return text
