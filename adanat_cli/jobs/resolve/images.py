"""Images of one's own, as a dry run looks at them: how many there are, of which classes and sizes."""

from __future__ import annotations

import statistics
from io import BytesIO

from PIL import Image

from adanat_cli.core.config import DataConfig
from adanat_cli.core.data.sources import ImageSource, TableSource, open_source
from adanat_cli.core.hub import looks_like_hub_id

_LOOKED_AT = 16


def is_own(config: DataConfig) -> bool:
    """Whether data has no preset and is no Hub id or URL: it lies on this machine, or is missing."""
    origin = config.data_dir or config.source
    return not config.preset and (config.is_here or not (looks_like_hub_id(origin) or "://" in origin))


def look_at_own(config: DataConfig) -> ImageSource | None:
    """Open images of one's own; None for other data, which stay untouched.

    Raises:
        AdaNATError: if there is no such data, it cannot be read, or holds no images.
    """
    return open_source(config) if is_own(config) else None


def describe_own(source: ImageSource) -> str:
    """Say in one line what was understood of the data, and how large a typical image is."""
    side = shorter_side(source)
    return " ".join((source.describe(), *([f"Their shorter side is about {side} pixels."] if side else [])))


def shorter_side(source: ImageSource) -> int:
    """Pixels of the shorter side of a typical image, in the middle of a few; 0 where a stream or damage hides it."""
    if not isinstance(source, TableSource):
        return 0
    sides = []
    for row in source.rows[:: -(-len(source.rows) // _LOOKED_AT)]:
        file = source.fetch(int(row))[0]
        try:
            with Image.open(BytesIO(file) if isinstance(file, bytes) else file or "") as image:
                sides.append(min(image.size))
        except Exception:  # Pillow raises nearly anything on damaged files; reading will say so
            continue
    return int(statistics.median_low(sides)) if sides else 0
