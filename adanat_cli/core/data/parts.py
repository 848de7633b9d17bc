"""Fixed parts of a data set, which processes take in turn: the work of runs that survive a kill."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from adanat_cli.core.data.records import PendingImage
from adanat_cli.core.data.sources import ImageSource


class SourcePart(NamedTuple):
    """One part of a source.

    Attributes:
        number: number of the part, from 0.
        start: position of its first image.
        pending: images of the part, not yet decoded.
    """

    number: int
    start: int
    pending: Iterator[PendingImage]


@dataclass(frozen=True)
class Parts:
    """Ranges of ``size`` images; process r of P takes the parts r, r + P, r + 2 P and so on.

    A part does not depend on the number of processes, so any number of them can finish what others began.

    Attributes:
        num_images: images of all parts; None for a stream, which is counted at its end.
        size: images of a part; the last one may have fewer.
        rank: number of this process, from 0.
        num_processes: processes that share the parts.
        limit: images of a stream to read at most; None for all.
    """

    num_images: int | None
    size: int
    rank: int
    num_processes: int
    limit: int | None = None

    @classmethod
    def of_source(cls, source: ImageSource, limit: int | None, size: int, rank: int, num_processes: int) -> Parts:
        """Divide a source, or its first ``limit`` images."""
        total = source.num_images
        return cls(total if total is None else min(total, limit or total), size, rank, num_processes, limit)

    @property
    def num_parts(self) -> int | None:
        """Parts of all processes; None for a stream."""
        return None if self.num_images is None else -(-self.num_images // self.size)

    def is_mine(self, number: int) -> bool:
        """Whether this process takes the part of this number."""
        return number % self.num_processes == self.rank

    def mine(self) -> Iterator[tuple[int, int, int]]:
        """Yield number, start and stop of this process's parts; of a stream, none are known."""
        total = self.num_images or 0
        for start in range(self.rank * self.size, total, self.num_processes * self.size):
            yield start // self.size, start, min(start + self.size, total)

    def num_mine(self, counts: Callable[[int], bool] = lambda _: True) -> int | None:
        """Images in those of this process's parts whose number counts; None for a stream."""
        if self.num_images is None:
            return None
        return sum(stop - start for number, start, stop in self.mine() if counts(number))

    def read(self, source: ImageSource, is_done: Callable[[int], bool]) -> Iterator[SourcePart]:
        """Yield this process's parts of a source, but for those whose number is done."""
        if self.num_images is not None:
            for number, start, stop in self.mine():
                if not is_done(number):
                    yield SourcePart(number, start, source.pending(start, stop))
            return
        stream = source.pending(0, self.limit)
        for number in itertools.count():
            first = next(stream, None)
            if first is None:
                return
            pending = itertools.chain([first], itertools.islice(stream, self.size - 1))
            if self.is_mine(number) and not is_done(number):
                yield SourcePart(number, number * self.size, pending)
            deque(pending, maxlen=0)  # a stream has to be read past what others do or have done
