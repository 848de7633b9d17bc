"""Endless shuffled batches for training, a pure function of (seed, step)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from adanat_cli.core.data.records import ImageRecord, PendingImage, SkippedImages, in_order, listed_reasons
from adanat_cli.core.data.sources import ImageSource
from adanat_cli.core.errors import AdaNATError, require

Batch = tuple[Tensor, Tensor]
"""(B, 3, H, W) uint8 images, with their labels or what is made of their captions."""
_SHUFFLE_BUFFER = 2048
_ATTEMPTS = 16


class TrainingBatch(NamedTuple):
    """Images of one training step.

    Attributes:
        images: (B, 3, H, W) uint8.
        labels: (B,) int64; zeros where the source has no classes.
        captions: B of them, "" where an image has none.
    """

    images: Tensor
    labels: Tensor
    captions: list[str]


def training_batches(
    source: ImageSource,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    num_workers: int = 2,
    rank: int = 0,
    world_size: int = 1,
    flips: bool = True,
) -> Iterator[TrainingBatch]:
    """Yield batches for ever: shuffled anew every epoch, half of the images flipped.

    Batch ``step`` follows from (seed, step), so a run resumes at ``first_step`` exactly; with the same number
    of images per step, all ranks together see the same images whatever their number. An unreadable image is
    replaced by another and counted. A stream is shuffled in a buffer, and resumed by reading past what was used;
    where its images can be counted without reading them, only those that are needed again are read.
    Of an image's captions one is drawn anew every epoch; which one follows from seed, epoch and image (from seed,
    step and position in a stream).

    Args:
        source: images, all of one size.
        batch_size: B, images of one step on this rank.
        seed: seed of order, flips and captions.
        first_step: step of the first batch that is yielded.
        num_workers: decoding threads; 0 decodes in the caller's.
        rank: this process takes images rank, rank + world_size, … of every step.
        world_size: number of processes.
        flips: whether half of the images are flipped; the order is the same without.

    Raises:
        AdaNATError: if more than the tolerated share of images is unreadable.
    """
    require(batch_size >= 1, f"Batch size is {batch_size}; expected at least 1 image.")
    total = batch_size * world_size
    skipped = SkippedImages(source.config.max_bad, source.num_images)
    jobs = _table_jobs if source.num_images is not None else _stream_jobs
    planned = jobs(source, total, seed, first_step, slice(rank, total, world_size))
    if not flips:
        planned = (job._replace(flips=np.zeros_like(job.flips)) for job in planned)
    for batch, unreadable in in_order((job.load for job in planned), num_workers, ahead=2):
        skipped.num_seen += batch_size
        skipped.add(unreadable)
        yield batch


class _Job(NamedTuple):
    """One batch to load.

    Attributes:
        images: for each, others to fall back on follow.
        flips: (B,), which come flipped.
        draws: (B,) in [0, 1), which of an image's captions comes with it.
    """

    images: Sequence[Iterable[PendingImage]]
    flips: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    draws: np.ndarray[tuple[int, ...], np.dtype[np.float64]]

    def load(self) -> tuple[TrainingBatch, dict[str, str]]:
        """Decode the images; unreadable ones are replaced, and returned by name with the reason."""
        unreadable: dict[str, str] = {}
        records = [_first_readable(candidates, unreadable) for candidates in self.images]
        readable = [record for record in records if record is not None]
        if not readable:
            named = listed_reasons(unreadable)
            raise AdaNATError(f"A whole batch of images cannot be read: {named}; repair or remove these files.")
        filled = [record or readable[index % len(readable)] for index, record in enumerate(records)]
        images = [
            record.pixels[:, ::-1] if flip else record.pixels
            for record, flip in zip(filled, self.flips, strict=True)
            if record.pixels is not None
        ]
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()  # (B, 3, H, W)
        labels = torch.tensor([record.label for record in filled])
        captions = [
            record.captions[int(draw * len(record.captions))] if record.captions else ""
            for record, draw in zip(filled, self.draws, strict=True)
        ]
        return TrainingBatch(pixels, labels, captions), unreadable


def _first_readable(candidates: Iterable[PendingImage], unreadable: dict[str, str]) -> ImageRecord | None:
    """Decode until an image can be read; note the others."""
    for candidate in candidates:
        record = candidate()
        if not record.error:
            return record
        unreadable[record.name] = record.error
    return None


def _table_jobs(source: ImageSource, batch_size: int, seed: int, first_step: int, share: slice) -> Iterator[_Job]:
    """Batches of a source with random access: positions of a permutation per epoch."""
    num_images = source.num_images or 0

    @lru_cache(maxsize=2)
    def epoch_order(epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        generator = np.random.default_rng([seed, epoch])
        return generator.permutation(num_images), generator.random(num_images) < 0.5, generator.random(num_images)

    def candidates(first: int) -> Iterator[PendingImage]:
        # The next images of the order stand in for an unreadable one.
        for position in range(first, first + _ATTEMPTS):
            yield partial(source.load, int(epoch_order(position // num_images)[0][position % num_images]))

    for step in itertools.count(first_step):
        positions = range(step * batch_size, (step + 1) * batch_size)[share]
        flips, draws = (
            np.array([epoch_order(position // num_images)[what][position % num_images] for position in positions])
            for what in (1, 2)
        )
        yield _Job([candidates(position) for position in positions], flips, draws)


def _stream_jobs(source: ImageSource, batch_size: int, seed: int, first_step: int, share: slice) -> Iterator[_Job]:
    """Batches of a stream: a shuffle buffer over its epochs."""
    places, buffer = _Places(source, source.count() if first_step else None), list[_Place]()
    shuffled = _shuffled(places, seed, buffer)
    for _ in itertools.islice(shuffled, first_step * batch_size):
        pass
    places.read(buffer)
    for step in itertools.count(first_step):
        images = [(place.found(),) for place in itertools.islice(shuffled, batch_size)][share]
        flips, draws = (np.random.default_rng([seed, step, what]).random(batch_size) for what in (1, 2))
        yield _Job(images, flips[share] < 0.5, draws[share])


@dataclass
class _Place:
    """A place of a stream.

    Attributes:
        number: counted over all epochs.
        image: the image there, once it is read.
    """

    number: int
    image: PendingImage | None = None

    def found(self) -> PendingImage:
        """The image, which has been read."""
        assert self.image is not None
        return self.image


class _Places:
    """The places of a stream, epoch after epoch; where they can be counted, nothing is read before it is needed."""

    def __init__(self, source: ImageSource, num_images: int | None) -> None:
        """Take a stream and its number of images; None where the images have to be read to count them."""
        self._source, self._num, self._reads = source, num_images or 0, num_images is None
        self.shown = source.config.source

    def epoch(self, first: int) -> Iterator[_Place]:
        """Yield the places of an epoch, the first of which has this number."""
        position = 0
        while not self._reads and position < self._num:
            yield _Place(first + position)
            position += 1
        if self._reads:
            for number, image in enumerate(self._source.pending(position), first + position):
                yield _Place(number, image)

    def read(self, places: Iterable[_Place]) -> None:
        """Read the images of places that have none, and from now on of all."""
        self._reads = True
        missing = sorted((place for place in places if place.image is None), key=lambda place: place.number)
        for _, epoch in itertools.groupby(missing, lambda place: place.number // self._num):
            there = {place.number % self._num: place for place in epoch}
            for position, image in enumerate(self._source.pending(min(there), max(there) + 1), min(there)):
                if position in there:
                    there[position].image = image


def _shuffled(places: _Places, seed: int, buffer: list[_Place]) -> Iterator[_Place]:
    """Yield the places of a stream for ever, each drawn at random from a buffer, which the caller may look into."""
    generator, number = np.random.default_rng([seed, 0]), 0
    while True:
        first = number
        for place in places.epoch(first):
            number += 1
            if len(buffer) < _SHUFFLE_BUFFER:
                buffer.append(place)
                continue
            index = int(generator.integers(_SHUFFLE_BUFFER))
            drawn, buffer[index] = buffer[index], place
            yield drawn
        require(number > 0, f"The stream {places.shown} holds no images; give other data.")
        if len(buffer) < _SHUFFLE_BUFFER:  # a short stream: empty the buffer every epoch
            yield from (buffer[index] for index in generator.permutation(len(buffer)))
            buffer.clear()
