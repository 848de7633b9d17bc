"""From image files in any mode to square RGB pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn an image of any Pillow mode upright and into RGB.

    Transparent parts come out white; 16-bit greys are scaled to 8 bits.
    """
    image = _upright(image)
    if image.mode.startswith(("I", "F")):
        return _deep_grey(image).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Cut the central square and resample it to ``size`` x ``size`` pixels.

    Source: the ADM preprocessing (arXiv 2105.05233) that ImageNet reference statistics are made with:
    halve by box means while the short side is at least twice the target, then one bicubic step.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def read_pixels(file: bytes | Path, size: int) -> Pixels:
    """Decode an encoded image to (size, size, 3) bytes; Pillow's errors pass through."""
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
        image.load()
        return np.asarray(center_crop(to_rgb(image), size))


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; damaged EXIF data leaves the image as it is."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the parser raises nearly anything on damaged EXIF, and the pixels are fine
        return image


def _deep_grey(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and float greys to 8 bits."""
    values = np.asarray(image).astype(np.float64)
    if image.mode.startswith("I;16"):
        values = values / 257
    elif values.size and values.max() > 255:
        values = values / 257  # mode I carries 16-bit files
    elif image.mode == "F" and values.size and values.max() <= 1:
        values = values * 255
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
