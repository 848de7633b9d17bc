"""Single images of a source: decoded ones, and the count of those that could not be."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from adanat_cli.core.data.images import Pixels, read_pixels, why_unreadable
from adanat_cli.core.errors import AdaNATError


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a source.

    Attributes:
        index: position in the source.
        pixels: (H, W, 3) uint8; None where the image could not be read.
        label: class id; 0 where the source has no classes.
        captions: of the image; () where the source has none.
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


def decode(
    file: bytes | Path | None, index: int, label: int, captions: tuple[str, ...], name: str, size: int
) -> ImageRecord:
    """Decode, crop and resample one image; an unreadable one comes back with ``error`` set."""
    if not file:
        return ImageRecord(index, None, label, captions, name, "no image data, or none within the data set")
    try:
        return ImageRecord(index, read_pixels(file, size), label, captions, name)
    except Exception as error:  # Pillow raises nearly anything on damaged files
        return ImageRecord(index, None, label, captions, name, why_unreadable(file, error))


def in_order(pending: Iterator[PendingImage], num_workers: int) -> Iterator[ImageRecord]:
    """Decode ahead in ``num_workers`` threads (Pillow frees the interpreter lock) and keep the order."""
    if num_workers < 1:
        yield from (image() for image in pending)
        return
    queue: deque[Future[ImageRecord]] = deque()
    with ThreadPoolExecutor(num_workers, thread_name_prefix="decode") as pool:
        try:
            for image in pending:
                queue.append(pool.submit(image))
                if len(queue) > 8 * num_workers:
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
        # The first images of a stream are too few to tell a share from.
        total = self.num_images or max(self.num_seen, self._FIRST_OF_STREAM)
        if len(self.reasons) > self.max_bad * total:
            first = "; ".join(f"{name} ({reason})" for name, reason in list(self.reasons.items())[:3])
            more = f" and {len(self.reasons) - 3} more" if len(self.reasons) > 3 else ""
            raise AdaNATError(
                f"{len(self.reasons)} of {total} images cannot be read, more than the tolerated "
                f"{self.max_bad:.4g}: {first}{more}; repair or remove them, or allow more with --max-bad."
            )
