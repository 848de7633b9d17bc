"""Pictures of images: arrays, grids and PNG files."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from adanat_cli.core.checkpoints.files import atomic_path
from adanat_cli.core.errors import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
_GAP = 2
"""Pixels between the images of a grid."""


def to_uint8(images: Tensor) -> Pixels:
    """Round (B, 3, H, W) floats in [0, 1] to (B, H, W, 3) bytes."""
    scaled = images.detach().float().clamp(0, 1).mul(255).round()
    return scaled.permute(0, 2, 3, 1).byte().cpu().numpy()


def image_grid(images: Pixels, columns: int = 0) -> Image.Image:
    """Lay out (n, H, W, 3) bytes in rows on white.

    Args:
        images: at least one image.
        columns: images a row; 0 makes the grid about square.
    """
    num_images, height, width, _ = images.shape
    columns = min(columns or math.ceil(math.sqrt(num_images)), num_images)
    rows = math.ceil(num_images / columns)
    canvas = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + _GAP), (index % columns) * (width + _GAP)
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas)


def plot_text(text: str) -> str:
    """Escape text for a plot: nothing in a user's name is read as a formula or a control character."""
    return printable(text).replace("$", r"\$")


def save_figure(path: Path, figure: Figure, dpi: int) -> None:
    """Write a plot as PNG, whole or not at all; letters that its font lacks become boxes without a warning."""
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph ")
        figure.savefig(temporary, format="png", dpi=dpi)


def save_png(path: Path, image: Image.Image | Pixels, facts: Mapping[str, Any] | None = None) -> None:
    """Write a PNG, whole or not at all.

    Args:
        path: file.
        image: picture, or (H, W, 3) bytes.
        facts: what the file says of the image, as text chunks by keyword (at most 79 Latin letters).
    """
    picture, chunks = image if isinstance(image, Image.Image) else Image.fromarray(image), PngInfo()
    for keyword, value in (facts or {}).items():
        # A lone surrogate, of an undecodable byte in a prompt, has no UTF-8.
        chunks.add_text(keyword, str(value).encode("utf-8", "backslashreplace").decode("utf-8"))
    with atomic_path(path, durable=False) as temporary:
        picture.save(temporary, format="PNG", pnginfo=chunks)
