"""A picture, what of it is to change, and the square of it that a model sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from adanat_cli.core.config.edit import Box, Sides
from adanat_cli.core.data.images import center_crop
from adanat_cli.core.errors import require
from adanat_cli.jobs.sample.pictures import Pixels

Mask = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
Positions = np.ndarray[tuple[int, ...], np.dtype[np.intp]]
_MOST_PIXELS = 2**27
"""Pixels of the square that an extended picture is placed on."""


@dataclass(frozen=True)
class Canvas:
    """A picture and the square of it that a model sees.

    Attributes:
        picture: (h, w, 3), with what was added at its sides.
        mask: (h, w) bool, True where pixels may change.
        left, top: the square's upper left corner on the picture; below 0 where the square reaches beyond it.
        side: pixels of the picture along a side of the square.
        extended: whether something was added.
    """

    picture: Pixels
    mask: Mask
    left: int
    top: int
    side: int
    extended: bool = False

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the picture that lie in the square."""
        height, width = self.mask.shape
        return (
            slice(max(0, self.top), min(height, self.top + self.side)),
            slice(max(0, self.left), min(width, self.left + self.side)),
        )

    @property
    def inner(self) -> tuple[slice, slice]:
        """Rows and columns of the square that lie on the picture."""
        rows, columns = self.window
        return (
            slice(rows.start - self.top, rows.stop - self.top),
            slice(columns.start - self.left, columns.stop - self.left),
        )

    def fit(self, size: int) -> Pixels:
        """Scale the square to a model's size: (size, size, 3) bytes, the picture's own where it has this size.

        What lies beyond the picture is filled with its mirror image, for the sake of the tokens beside it.
        """
        pixels = np.pad(self.picture[self.window], (*self._beyond, (0, 0)), mode="symmetric")
        return np.asarray(center_crop(Image.fromarray(pixels), size))

    def fit_mask(self, size: int) -> Mask:
        """(size, size), True where ``fit`` shows any pixel that may change, or what lies beyond the picture."""
        mask = np.pad(self.mask[self.window], self._beyond, constant_values=True)
        # A box filter over floats, which loses no single pixel of a large picture.
        shares = Image.fromarray(mask.astype(np.float32)).resize((size, size), Image.Resampling.BOX)
        return np.asarray(shares) > 0

    def scaled_inner(self, size: int) -> tuple[slice, slice]:
        """``inner`` after the square is scaled to a model's size."""
        scale = size / self.side
        rows, columns = (
            slice(
                first := round(part.start * scale), min(size, first + max(1, round((part.stop - part.start) * scale)))
            )
            for part in self.inner
        )
        return rows, columns

    @property
    def _beyond(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows above and below, and columns left and right of the picture in the square."""
        rows, columns = self.inner
        return (rows.start, self.side - rows.stop), (columns.start, self.side - columns.stop)

    def enlarge(self, square: Pixels) -> Pixels:
        """Scale a square (size, size, 3) back, and cut out what lies on the picture: as large as ``window``."""
        size = (self.side, self.side)
        return np.asarray(Image.fromarray(square).resize(size, Image.Resampling.BICUBIC))[self.inner]


def canvas_of(picture: Pixels, mask: Mask | None, box: Box | None, extend: Sides, name: str) -> Canvas:
    """Find what is to change, and the square that shows it.

    The square has the picture's shorter side, and lies as near to the middle as it can with all in it that changes.
    Where it cannot hold that, and where the picture is extended, it has the longer side and the whole picture in its
    middle.

    Args:
        picture: (h, w, 3).
        mask: (h, w), True where to change; None for none.
        box: rectangle to change as well; None for none.
        extend: pixels to add at the sides, and to change.
        name: of the picture, for messages.

    Raises:
        AdaNATError: if nothing would change, mask or box do not fit the picture, or the extended one is too large.
    """
    require(
        mask is not None or box is not None or any(extend),
        "Nothing says what to change; give --mask FILE, --box X,Y,W,H or --extend PIXELS.",
    )
    height, width = picture.shape[:2]
    changed = np.zeros((height, width), bool)
    if mask is not None:
        changed |= mask
    if box is not None:
        require(
            box.x + box.width <= width and box.y + box.height <= height,
            f"--box {','.join(map(str, box))} reaches beyond {name}, which has {width} x {height} pixels; expected "
            f"x + width of at most {width}, and y + height of at most {height}.",
        )
        changed[box.y : box.y + box.height, box.x : box.x + box.width] = True
    if any(extend):
        return _extended(picture, changed, extend, name)
    require(bool(changed.any()), f"Nothing of {name} would change: its mask is black everywhere; paint parts white.")
    side = min(height, width)
    rows, columns = changed.nonzero()
    top, is_tall = _place(rows, height, side)
    left, is_wide = _place(columns, width, side)
    if not (is_tall or is_wide):
        return Canvas(picture, changed, left, top, side)
    return _whole(picture, changed)


def _place(changed: Positions, length: int, side: int) -> tuple[int, bool]:
    """Where a square begins along one axis, as near to the middle as it can; and whether what changes is longer."""
    first, stop = int(changed.min()), int(changed.max()) + 1
    return min(max((length - side) // 2, stop - side), first), stop - first > side


def _whole(picture: Pixels, changed: Mask, extended: bool = False) -> Canvas:
    """A square with the whole picture in its middle."""
    height, width = changed.shape
    side = max(height, width)
    return Canvas(picture, changed, (width - side) // 2, (height - side) // 2, side, extended)


def _extended(picture: Pixels, changed: Mask, extend: Sides, name: str) -> Canvas:
    height, width = changed.shape
    large = (height + extend.top + extend.bottom, width + extend.left + extend.right)
    require(
        max(large) ** 2 <= _MOST_PIXELS,
        f"--extend makes {large[1]:,} x {large[0]:,} pixels of {name}; expected at most {int(_MOST_PIXELS**0.5):,} a "
        "side; extend it by less, or scale it down first.",
    )
    beyond = (extend.top, extend.bottom), (extend.left, extend.right)
    pixels = np.pad(picture, (*beyond, (0, 0)), mode="symmetric")
    return _whole(pixels, np.pad(changed, beyond, constant_values=True), extended=True)
