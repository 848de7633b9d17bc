"""The first images of what was measured, for people to look at."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from adanat_cli.jobs.evaluate.generated_images import GeneratedImages
from adanat_cli.jobs.evaluate.image_sets import ImageSet
from adanat_cli.jobs.evaluate.reconstructions import Reconstructions
from adanat_cli.jobs.evaluate.rows import Subject
from adanat_cli.jobs.runtime.reporter import Reporter
from adanat_cli.jobs.sample.pictures import Pixels, to_uint8

_NUM, _LARGEST, _QUALITY = 12, 256, 90
_LOSSLESS = 64
"""Pictures up to this side are stored without loss."""


@dataclass(frozen=True)
class Gallery:
    """Images under one name.

    Attributes:
        name: what they are, in words.
        pictures: encoded images, with their media types.
        labels: what each is of; "" where that is not known.
    """

    name: str
    pictures: Sequence[tuple[str, bytes]]
    labels: Sequence[str]


def galleries(subjects: Sequence[Subject], reporter: Reporter) -> list[Gallery]:
    """The first images of each set, of generated ones with the first seed only."""
    chosen: dict[str, Subject] = {}
    for subject in subjects:
        if not (isinstance(subject.images, Reconstructions) and subject.images.source.config.streaming):
            chosen.setdefault(_name(subject), subject)  # a stream would be opened again
    found = []
    with reporter.task("First images for the report", len(chosen), "sets") as task:
        for name, subject in chosen.items():
            pixels = _first(subject.images, min(_NUM, subject.num_images))
            labels = [_label(subject.images, index) for index in range(len(pixels))]
            found.append(Gallery(name, [_encoded(image) for image in pixels], labels))
            task.advance(1)
    return found


def _name(subject: Subject) -> str:
    """The name of a set, without its seed."""
    images = subject.images
    return f"{subject.name}, {images.choice.num_steps} steps" if isinstance(images, GeneratedImages) else subject.name


def _first(images: ImageSet, number: int) -> list[Pixels]:
    """(H, W, 3) bytes of the first images."""
    found: list[Pixels] = []
    for batch in images.batches(0, number):
        pixels = batch.images
        found += list(pixels.permute(0, 2, 3, 1).cpu().numpy() if not pixels.is_floating_point() else to_uint8(pixels))
    return found


def _label(images: ImageSet, index: int) -> str:
    return images.conditions.name(index) if isinstance(images, GeneratedImages) else ""


def _encoded(pixels: Pixels) -> tuple[str, bytes]:
    """Media type and bytes of a picture of at most 256 pixels."""
    picture, data = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    if max(picture.size) > _LOSSLESS:
        picture.thumbnail((_LARGEST, _LARGEST))
        picture.save(data, format="JPEG", quality=_QUALITY)
        return "image/jpeg", data.getvalue()
    picture.save(data, format="PNG")
    return "image/png", data.getvalue()
