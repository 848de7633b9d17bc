"""Single images of a source: as they lie in it, decoded in order, and the count of those that could not be."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from adanat_cli.core.data.described import listed
from adanat_cli.core.data.images import Pixels, read_pixels, why_unreadable
from adanat_cli.core.data.labels import RawLabel
from adanat_cli.core.errors import AdaNATError

_T = TypeVar("_T")


class Row(NamedTuple):
    """One image as it lies in a source, not yet decoded.

    Attributes:
        file: the encoded image, or where it lies; None where there is none.
        captions: captions of the image; () where the source has none.
        name: file name or row, for messages.
        label: as it was read; None in sources that know the labels of all rows.
    """

    file: bytes | Path | None
    captions: tuple[str, ...]
    name: str
    label: RawLabel = None


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a source.

    Attributes:
        index: position in the source.
        pixels: (H, W, 3) uint8; None where the image could not be read.
        label: class id; 0 where the source has no classes.
        captions: captions of the image; () where the source has none.
        name: file name or row, for messages.
        error: why the image could not be read; "" if it could.
    """

    index: int
    pixels: Pixels | None
    label: int
    captions: tuple[str, ...]
    name: str
    error: str = ""

    @property
    def caption(self) -> str:
        """The first caption, or ""."""
        return self.captions[0] if self.captions else ""


PendingImage = Callable[[], ImageRecord]
"""An image that is read and decoded when called."""


def decode(row: Row, index: int, label: int, size: int) -> ImageRecord:
    """Decode, crop and resample one image; an unreadable one comes back with ``error`` set."""
    pixels, error = None, ""
    if not row.file:
        error = "no image data, or none within the data set"
    else:
        try:
            pixels = read_pixels(row.file, size)
        except Exception as problem:  # Pillow raises nearly anything on damaged files
            error = why_unreadable(row.file, problem)
    return ImageRecord(index, pixels, label, row.captions, row.name, error)


def in_order(pending: Iterator[Callable[[], _T]], num_workers: int, ahead: int = 8) -> Iterator[_T]:
    """Yield what the calls return, in their order, from threads that work ahead.

    Args:
        pending: such as images to decode, where Pillow frees the interpreter lock.
        num_workers: threads; below 1, the caller's own does the work.
        ahead: calls per thread that are started before the first result is taken.
    """
    if num_workers < 1:
        yield from (call() for call in pending)
        return
    queue: deque[Future[_T]] = deque()
    with ThreadPoolExecutor(num_workers, thread_name_prefix="decode") as pool:
        try:
            for call in pending:
                queue.append(pool.submit(call))
                if len(queue) > ahead * num_workers:
                    yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@dataclass
class SkippedImages:
    """Unreadable images by name and reason, and the share of them that is tolerated.

    Attributes:
        max_bad: tolerated share of ``num_images``.
        num_images: images of the source; None for a stream, whose share counts over the images seen.
    """

    max_bad: float
    num_images: int | None
    reasons: dict[str, str] = field(default_factory=dict)
    num_seen: int = 0

    _FIRST_OF_STREAM = 1000

    def see(self, record: ImageRecord) -> None:
        """Count one image.

        Raises:
            AdaNATError: if more than the tolerated share is unreadable.
        """
        self.num_seen += 1
        if record.error:
            self.add({record.name: record.error})

    def add(self, reasons: dict[str, str]) -> None:
        """Count unreadable images by name; the same one twice counts once.

        Raises:
            AdaNATError: if more than the tolerated share is unreadable.
        """
        self.reasons.update(reasons)
        # The first images of a stream are too few for a share.
        total = self.num_images or max(self.num_seen, self._FIRST_OF_STREAM)
        if len(self.reasons) > self.max_bad * total:
            raise AdaNATError(
                f"{len(self.reasons)} of {total} images cannot be read, more than the tolerated {self.max_bad:.4g}: "
                f"{listed_reasons(self.reasons)}; repair or remove them, or allow more with --max-bad."
            )


def listed_reasons(reasons: dict[str, str]) -> str:
    """The first names of unreadable images, with why."""
    return listed([f"{name} ({reason})" for name, reason in reasons.items()], "; ")
