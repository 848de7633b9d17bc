"""A source cut into ranges of fixed size: what runs that survive a kill work through."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from adanat_cli.core.data.records import PendingImage
from adanat_cli.core.data.sources import ImageSource


@dataclass(frozen=True)
class SourceRange:
    """A range of a source: its number, its place, its images not yet decoded.

    Attributes:
        number: from 0.
        start: position of its first image.
        pending: its images.
        num_ranges: of the whole source; None for a stream, where only the end will tell.
    """

    number: int
    start: int
    pending: Iterator[PendingImage]
    num_ranges: int | None


def num_covered(source: ImageSource, num_images: int | None) -> int | None:
    """Images of the source that a run over ``num_images`` (None: all) covers; None for a stream."""
    if source.num_images is None:
        return None
    return min(source.num_images, num_images or source.num_images)


def share_of(source: ImageSource, size: int, num_images: int | None, rank: int, world_size: int) -> int | None:
    """Images in the ranges rank, rank + world_size, …; None for a stream."""
    total = num_covered(source, num_images)
    if total is None:
        return None
    return sum(min(size, total - start) for start in range(rank * size, total, world_size * size))


def source_ranges(source: ImageSource, size: int, num_images: int | None = None) -> Iterator[SourceRange]:
    """Divide a source, or its first ``num_images``, into ranges of ``size`` images."""
    total = num_covered(source, num_images)
    if total is not None:
        num_ranges = -(-total // size)
        for number, start in enumerate(range(0, total, size)):
            yield SourceRange(number, start, source.pending(start, min(start + size, total)), num_ranges)
        return
    stream = source.pending(0, num_images)
    for number in itertools.count():
        first = next(stream, None)
        if first is None:
            return
        images = itertools.chain([first], itertools.islice(stream, size - 1))
        yield SourceRange(number, number * size, images, None)
