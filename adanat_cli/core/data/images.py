"""From image files in any mode to square RGB pixels."""

from __future__ import annotations

import io
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from adanat_cli.core.data.text_files import LFS_POINTER

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
_T = TypeVar("_T")

# Pillow also knows formats that it hands to other programs (EPS to Ghostscript), whatever a file is called.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "QOI", "TGA", "ICO")
_PNG = b"\x89PNG\r\n\x1a\n"
_NOT_PIXELS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
"""Chunks of a PNG that Pillow bounds and that no pixel depends on."""
_ROWS = 64
_MOST_RESAMPLED = 2**26
"""Pixels of a resampled picture before its square is cut out."""


def with_image(file: bytes | Path, use: Callable[[Image.Image], _T]) -> _T:
    """Open an encoded image, whose pixels are not decoded yet, and return what ``use`` makes of it.

    A PNG with more text or a larger colour profile than Pillow reads is opened without them. Pillow's errors pass
    through; ``why_unreadable`` puts them into words.

    Raises:
        OSError: if the file cannot be opened, or is a pipe or a device, which might never end.
    """
    # A picture of up to Pillow's limit is read; its warning at half of that is for servers.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    with _opened(file) as stream:
        try:
            with Image.open(stream, formats=_formats()) as image:
                return use(image)
        except ValueError:
            stream.seek(0)
            if stream.read(len(_PNG)) != _PNG:
                raise
            rest = _without_texts(stream.read())
        with Image.open(io.BytesIO(rest), formats=("PNG",)) as image:
            return use(image)


def why_unreadable(file: bytes | Path, error: Exception) -> str:
    """Say in a few words what is wrong with an image, without its path."""
    if isinstance(error, UnidentifiedImageError):
        with _opened(file) as stream:
            head = stream.read(len(LFS_POINTER))
        if head == LFS_POINTER:
            return "a Git LFS pointer instead of the image; fetch it with `git lfs pull`"
        return "not an image file that Pillow knows" + ("" if head else ": it is empty")
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, which is too large to open"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]


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
    left, top = (width - size) // 2, (height - size) // 2
    if width * height > _MOST_RESAMPLED:
        return _resample_part(image, (width, height), (left, top, left + size, top + size))
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image.crop((left, top, left + size, top + size))


def read_pixels(file: bytes | Path, size: int) -> Pixels:
    """Decode an encoded image to (size, size, 3) bytes; Pillow's errors pass through."""
    return with_image(file, lambda image: np.asarray(center_crop(to_rgb(image), size)))


def _opened(file: bytes | Path) -> IO[bytes]:
    if isinstance(file, bytes):
        return io.BytesIO(file)
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError(0, "a pipe, a device or a folder instead of a file")
    return file.open("rb")


def _formats() -> tuple[str, ...]:
    """The formats that this Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _without_texts(chunks: bytes) -> bytes:
    """Return a PNG of those chunks that pixels depend on, from all that follows its signature."""
    kept, start = [_PNG], 0
    while start < len(chunks):
        stop = start + 12 + int.from_bytes(chunks[start : start + 4], "big")
        if chunks[start + 4 : start + 8] not in _NOT_PIXELS:
            kept.append(chunks[start:stop])
        start = stop
    return b"".join(kept)


def _resample_part(image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """Return a box of an image resampled to ``size``; the whole of a very long picture would not fit into memory."""
    across, down = image.width / size[0], image.height / size[1]  # the image's pixels per resampled one
    part = [box[0] * across, box[1] * down, box[2] * across, box[3] * down]
    # Pillow rounds a box to 24 bits, so its surroundings are cut out first; a bicubic step looks at most 4 pixels far.
    left, top = max(0, int(part[0]) - 8), max(0, int(part[1]) - 8)
    near = image.crop((left, top, min(image.width, int(part[2]) + 9), min(image.height, int(part[3]) + 9)))
    inside = (part[0] - left, part[1] - top, min(near.width, part[2] - left), min(near.height, part[3] - top))
    return near.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.BICUBIC, inside)


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; damaged EXIF data leaves the image as it is."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the parser raises nearly anything on damaged EXIF, and the pixels are fine
        return image


def _deep_grey(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and float greys to 8 bits; what is not a number is black."""
    values = np.asarray(image)
    most = np.fmax.reduce(values, axis=None) if values.size else 0
    factor, divisor = 1.0, 1.0
    if image.mode.startswith("I;16") or most > 255:
        divisor = 257  # mode I carries 16-bit files
    elif image.mode == "F" and most <= 1:
        factor = 255
    grey = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS):  # a few at a time, since floats take eight times the memory
        rows = np.nan_to_num(values[top : top + _ROWS].astype(np.float64) / divisor * factor)
        grey[top : top + _ROWS] = rows.round().clip(0, 255)
    return Image.fromarray(grey)
