"""Originals above their reconstructions by a tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adanat_cli.core.data.records import ImageRecord
from adanat_cli.core.data.sources import ImageSource
from adanat_cli.core.errors import require
from adanat_cli.core.metrics.scores import signal_to_noise
from adanat_cli.core.tokenizer.base import Tokenizer
from adanat_cli.jobs.runtime.devices import images_at_once
from adanat_cli.jobs.sample.pictures import image_grid, save_png, to_uint8
from adanat_cli.jobs.tokenize.shards import as_images

_COLUMNS = 8


def save_reconstructions(source: ImageSource, tokenizer: Tokenizer, path: Path, num_images: int = 16) -> float:
    """Write a PNG of rows of originals, each above the row of their reconstructions.

    The images are spread over the source, or the first ones of a stream.

    Returns:
        Peak signal-to-noise ratio over the shown images, in dB.

    Raises:
        AdaNATError: if none of the images can be read.
    """
    records = spread_records(source, num_images)
    require(
        bool(records),
        f"None of the first images of {source.config.source} can be read; repair them, or give other data.",
    )
    images = as_images(records, tokenizer)  # (B, 3, H, W)
    decoded = reconstruct(tokenizer, images)
    originals, reconstructions = to_uint8(images), to_uint8(decoded)
    white = np.full_like(originals[:1], 255)
    rows = []
    for start in range(0, len(originals), _COLUMNS):
        for kind in (originals, reconstructions):
            row = kind[start : start + _COLUMNS]
            missing = min(_COLUMNS, len(originals)) - len(row)
            rows.append(np.concatenate([row, *[white] * missing]))
    save_png(path, image_grid(np.concatenate(rows), columns=len(rows[0])))
    return psnr(decoded, images)


@torch.no_grad()
def reconstruct(tokenizer: Tokenizer, images: Tensor) -> Tensor:
    """Encode and decode (B, 3, H, W) images in [0, 1], in memory that does not grow with B."""
    parts = images.split(images_at_once(images.shape[-1], images.device))
    return torch.cat([tokenizer.decode(tokenizer.encode(part)) for part in parts])


def psnr(decoded: Tensor, images: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in [0, 1]; infinite where they are equal."""
    return signal_to_noise(float((decoded - images).square().mean()))


def spread_records(source: ImageSource, num_images: int) -> list[ImageRecord]:
    """Return up to ``num_images`` readable images, evenly spread where the source has random access."""
    if source.num_images is None:
        records = list(source.read(0, 2 * num_images))
    else:
        num_images = min(num_images, source.num_images)
        records = [source.load(int(index)) for index in np.linspace(0, source.num_images - 1, num_images)]
    return [record for record in records if not record.error][:num_images]
