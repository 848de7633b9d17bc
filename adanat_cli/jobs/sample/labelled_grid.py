"""Grids for people: pictures under the names of what they show, small ones enlarged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from adanat_cli.core.errors import printable
from adanat_cli.jobs.sample.pictures import Pixels

_SMALL = 128
"""Pictures are enlarged up to this side."""
_GAP, _FONT_SIZE, _LINE_HEIGHT, _MAX_LINES = 2, 12, 15, 2
_NARROW = 40
"""Pixels below which a picture has no room for a label."""


def enlarge(images: Pixels) -> Pixels:
    """Repeat the pixels of small images (n, H, W, 3) by the largest whole factor that keeps them within 128 pixels."""
    factor = max(1, _SMALL // max(images.shape[1:3]))
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def labelled_grid(images: Pixels, labels: Sequence[str], columns: int = 0) -> Image.Image:
    """Lay out images in rows on white, enlarged if they are small, under their labels.

    A label that all images share stands once above them, and one that a column shares once above that. Labels are
    shortened to two lines of the width that they have; where that is too narrow, they are left out.

    Args:
        images: (n, H, W, 3) bytes, at least one.
        labels: one per image.
        columns: images a row; 0 makes the grid about square.
    """
    images = enlarge(images)
    num_images, height, width, _ = images.shape
    columns = min(columns or math.ceil(math.sqrt(num_images)), num_images)
    rows, full = math.ceil(num_images / columns), columns * (width + _GAP) - _GAP
    if len(set(labels)) == 1:
        heads, room = {0: [labels[0]]}, full
    elif all(label == labels[index % columns] for index, label in enumerate(labels)):
        heads, room = {0: list(labels[:columns])}, width
    else:
        heads, room = {row: list(labels[row * columns : (row + 1) * columns]) for row in range(rows)}, width
    if width < _NARROW:
        heads = {}
    font = _font()
    texts = {row: [_fit(label, room, font) for label in above] for row, above in heads.items()}
    bands = [
        _LINE_HEIGHT * max((text.count("\n") + 1 for text in texts.get(row, [])), default=0) for row in range(rows)
    ]
    canvas = Image.new("RGB", (full, sum(bands) + rows * (height + _GAP) - _GAP), "white")
    draw, top = ImageDraw.Draw(canvas), 0
    for row, band in enumerate(bands):
        for column, text in enumerate(texts.get(row, [])):
            place = (column * (width + _GAP) + 1, top + band - _LINE_HEIGHT * (text.count("\n") + 1))
            draw.multiline_text(place, text, "black", font, spacing=1)
        top += band
        for column, image in enumerate(images[row * columns : (row + 1) * columns]):
            canvas.paste(Image.fromarray(image), (column * (width + _GAP), top))
        top += height + _GAP
    return canvas


def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: it has more letters than Pillow's own font."""
    package = find_spec("matplotlib")  # loading it would take longer than drawing
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(file, _FONT_SIZE)


def _fit(label: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """Break a label into lines of a width in pixels, and shorten it to the first two of them."""
    lines: list[str] = []
    left = " ".join(printable(label).split())
    while left and len(lines) < _MAX_LINES:
        length = len(left) if font.getlength(left) <= width else _fitting(left, width, font)
        if length < len(left) and len(lines) == _MAX_LINES - 1:
            lines.append(f"{left[: _fitting(left, width - math.ceil(font.getlength('…')), font)].rstrip()}…")
            break
        if length < len(left) and (space := left.rfind(" ", 0, length + 1)) > 0:
            length = space
        lines.append(left[:length])
        left = left[length:].lstrip()
    return "\n".join(lines)


def _fitting(text: str, width: int, font: ImageFont.FreeTypeFont) -> int:
    """How many letters fit into a width in pixels, at least one."""
    widths = np.cumsum([font.getlength(letter) for letter in text[: width + 1]])
    return max(1, int((widths <= width).sum()))
