"""Images that are measured: any range of them can be read, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from adanat_cli.core.data.parts import Parts
from adanat_cli.jobs.runtime.devices import images_at_once

_SMALLEST, _MOST_READ = 64, 256


class ImageBatch(NamedTuple):
    """A few images.

    Attributes:
        images: (B, 3, H, W), bytes or floats in [0, 1].
        labels: (B,) int64, their classes; None where they have none.
        skipped: images in between that cannot be read, name to reason.
        prompts: B texts that they are of; None where they have none.
    """

    images: Tensor
    labels: Tensor | None = None
    skipped: Mapping[str, str] = {}
    prompts: Sequence[str] | None = None


class ImagePart(NamedTuple):
    """One part of the images.

    Attributes:
        number: from 0.
        batches: its images; they are generated or decoded when they are asked for.
    """

    number: int
    batches: Iterator[ImageBatch]


class ImageSet(Protocol):
    """Images in a fixed order.

    Attributes:
        num_images: of the whole set.
        missing_labels: why there are no classes to compare with; "" if there are.
        missing_prompts: why there are no prompts to compare with; "" if there are.
    """

    num_images: int
    missing_labels: str
    missing_prompts: str

    @property
    def origin(self) -> str:
        """Name of the folder, file or model that they come from; not where it lies."""

    @property
    def image_size(self) -> int:
        """Their longer side in pixels; 0 if not known."""

    def batches(self, start: int, stop: int) -> Iterator[ImageBatch]:
        """Yield images start … stop - 1 in order."""

    def classes(self, num_images: int) -> set[int] | None:
        """Class ids of the first ``num_images``; None where they have no classes."""

    def identity(self) -> dict[str, Any]:
        """Return what tells these images from others wherever they lie, as JSON values."""


def parts_of(images: ImageSet, parts: Parts, is_done: Callable[[int], bool]) -> Iterator[ImagePart]:
    """Yield this process's parts of the images, but for those whose number is done."""
    for number, start, stop in parts.mine():
        if not is_done(number):
            yield ImagePart(number, images.batches(start, stop))


def images_to_read(height: int, width: int, device: torch.device) -> int:
    """How many images of this size to decode at a time."""
    return min(images_at_once(max(height, width, _SMALLEST), device), _MOST_READ)
