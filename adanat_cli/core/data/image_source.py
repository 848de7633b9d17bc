"""Images in a fixed order, with labels or captions: in memory's reach one by one, or as a stream."""

from __future__ import annotations

import dataclasses
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from adanat_cli.core.config import DataConfig
from adanat_cli.core.data.described import describe
from adanat_cli.core.data.labels import RawLabel, numbered_as
from adanat_cli.core.data.records import ImageRecord, PendingImage, decode, in_order
from adanat_cli.core.data.source_files import SourceFiles
from adanat_cli.core.data.tables import Labels, Row
from adanat_cli.core.errors import AdaNATError, printable, require
from adanat_cli.core.hub import looks_like_hub_id

Fetch = Callable[[int], tuple[bytes | Path | None, tuple[str, ...], str]]
"""A row of a table to its encoded image, captions and name."""


def preset_note(config: DataConfig) -> str:
    """Say that a preset was taken and not a folder here of the same name; "" if there is no such folder."""
    hidden = bool(config.preset) and not config.data_dir and Path(config.preset).exists()
    return f"{config.preset} is a preset; ./{config.preset} takes what lies here under this name" if hidden else ""


class ImageSource(ABC):
    """Images in a fixed order, each with a label or a caption.

    Attributes:
        config: what was asked for.
        class_names: class id to name; empty where the data has no names.
        num_classes: classes of the numbering, of which not all need occur.
        has_captions: whether captions, not labels, are the condition.
        notes: what was left out or decided when it was opened, for people.
        files: what is read on disk or by address; None where the Hub or a library keeps it.
        has_words: whether labels may be words, whose ids follow from those that occur in this split.
    """

    config: DataConfig
    class_names: dict[int, str]
    num_classes: int
    has_captions: bool
    notes: tuple[str, ...] = ()
    files: SourceFiles | None = None
    has_words: bool = False

    def describe(self) -> str:
        """Say in one line what was understood of the data; a run prints it before its work starts."""
        shown = f"{self.name} ({self.config.split})"
        classes = (self.class_counts(), self.class_names, self.num_classes)
        notes = [*self.notes, *filter(None, [preset_note(self.config)])]
        return describe(shown, self.num_images, *classes, self.has_captions, notes)

    def class_counts(self) -> dict[int, int]:
        """Images of each class that occurs; empty where that is not known before the end."""
        return {}

    @property
    def name(self) -> str:
        """The data in a word: a preset, a Hub id, or the last part of where it lies, which itself is never told."""
        source = self.config.source
        if "://" in source:
            return printable(source.rsplit("/", 1)[-1])
        here = self.config.replace(data_dir="")
        is_id = looks_like_hub_id(source) and not here.is_here
        return source if is_id else printable(Path(os.path.abspath(here.place)).name)

    @property
    @abstractmethod
    def num_images(self) -> int | None:
        """Images of the source; None where it is a stream."""

    @abstractmethod
    def pending(self, start: int = 0, stop: int | None = None) -> Iterator[PendingImage]:
        """Yield the images of positions start … stop - 1, not yet decoded."""

    @abstractmethod
    def keep(self, classes: tuple[int, ...]) -> ImageSource:
        """Return a source of these classes only, chosen by label without decoding."""

    @abstractmethod
    def renumber(self, train: dict[int, str]) -> ImageSource:
        """Return the same images with the ids that the train split has for the classes' names."""

    @abstractmethod
    def share(self, stride: int, kept_back: bool, note: str) -> ImageSource:
        """Return every ``stride``-th image, class by class where they are known, or the others, with a note on it."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what tells this data from other data, wherever it lies."""

    def _identity(self) -> dict[str, Any]:
        files = {"files_digest": self.files.digest()} if self.files else {}
        return {"source": self.name, "split": self.config.split, "image_size": self.config.image_size, **files}

    def _decoded(
        self, file: bytes | Path | None, label: RawLabel, index: int, captions: tuple[str, ...], name: str
    ) -> ImageRecord:
        """Decode an image, unless it lacks the condition that the others have."""
        error = ""
        if self.has_captions:
            error = "" if captions else "it has no caption"
        elif label is None or label == -1:
            error = "it has no label"
        elif not isinstance(label, int) or not 0 <= label < self.num_classes:
            error = f"its label is {label!r}; expected 0 to {self.num_classes - 1}"
        if error or not isinstance(label, int):
            return ImageRecord(index, None, 0, captions, name, error)
        return decode(file, index, label, captions, name, self.config.image_size)

    def digest(self, start: int, stop: int, without: Collection[int] = ()) -> str:
        """Digest of the files of positions start … stop - 1, but for some of them; of all where rows share files.

        Returns:
            "" where the data does not lie in files.
        """
        del start, stop, without
        return self.files.digest() if self.files else ""

    def read(self, start: int = 0, stop: int | None = None, num_workers: int = 0) -> Iterator[ImageRecord]:
        """Yield decoded images in order; unreadable ones have ``error`` set."""
        return in_order(self.pending(start, stop), num_workers)

    def load(self, index: int) -> ImageRecord:
        """Decode one image.

        Raises:
            AdaNATError: if the source is a stream.
        """
        raise AdaNATError(
            f"Image {index} of {self.config.source} cannot be read by itself: it is a stream; read Parquet or a "
            "folder without --streaming."
        )

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the captions of one image, which is not decoded.

        Raises:
            AdaNATError: if the source is a stream.
        """
        return self.load(index).captions


@dataclass(frozen=True)
class TableSource(ImageSource):
    """Images with random access.

    Attributes:
        fetch: row to encoded image, captions and name.
        labels: (rows,), class ids of all rows.
        rows: rows that are kept, in order.
        read_captions: row to its captions alone, where that is cheaper.
    """

    config: DataConfig
    fetch: Fetch
    labels: Labels
    rows: Labels
    class_names: dict[int, str]
    num_classes: int
    has_captions: bool = False
    read_captions: Callable[[int], tuple[str, ...]] | None = None
    notes: tuple[str, ...] = ()
    files: SourceFiles | None = None
    has_words: bool = False

    def class_counts(self) -> dict[int, int]:
        """Images of each class that occurs."""
        labels = self.labels[self.rows]
        labels, counts = np.unique(labels[labels >= 0], return_counts=True)
        return dict(zip(labels.tolist(), counts.tolist(), strict=True))

    @property
    def num_images(self) -> int:
        """Images that are kept."""
        return len(self.rows)

    def digest(self, start: int, stop: int, without: Collection[int] = ()) -> str:
        """Digest of the files of positions start … stop - 1, but for some of them."""
        if self.files is None or not self.files.by_row:
            return super().digest(start, stop, without)
        names = self.files.names
        kept = [names[row] for place, row in enumerate(self.rows[start:stop], start) if place not in without]
        return dataclasses.replace(self.files, names=[*kept, *names[len(self.labels) :]]).digest()

    def pending(self, start: int = 0, stop: int | None = None) -> Iterator[PendingImage]:
        """Yield the images of positions start … stop - 1, not yet decoded."""
        stop = self.num_images if stop is None else min(stop, self.num_images)
        return (partial(self.load, index) for index in range(start, stop))

    def load(self, index: int) -> ImageRecord:
        """Read and decode one image; an unreadable one has ``error`` set."""
        row = int(self.rows[index])
        file, captions, name = self.fetch(row)
        return self._decoded(file, int(self.labels[row]), index, captions, name)

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the captions of one image, which is not decoded."""
        row = int(self.rows[index])
        return self.read_captions(row) if self.read_captions else self.fetch(row)[1]

    def keep(self, classes: tuple[int, ...]) -> TableSource:
        """Return a source of these classes only, chosen by label without decoding."""
        if not classes:
            return self
        rows = self.rows[np.isin(self.labels[self.rows], classes)]
        require(len(rows) > 0, f"No image of class {', '.join(map(str, classes))} is in {self.config.source}.")
        names = {label: name for label, name in self.class_names.items() if label in classes}
        return dataclasses.replace(self, rows=rows, class_names=names)

    def renumber(self, train: dict[int, str]) -> TableSource:
        """Return the same images with the ids that the train split has for the classes' names."""
        # Words that are numbers all of them are ids here, and names where others occur.
        here = {label: str(label) for label in self.class_counts()} | self.class_names
        ids, names = numbered_as(here, train)
        labels = np.array([ids.get(label, label) for label in self.labels.tolist()], np.int64)
        num_classes = max(self.num_classes, max(names) + 1)
        return dataclasses.replace(self, labels=labels, class_names=names, num_classes=num_classes)

    def share(self, stride: int, kept_back: bool, note: str) -> TableSource:
        """Return every ``stride``-th image, class by class, or the others."""
        places = np.argsort(self.labels[self.rows], kind="stable")[stride - 1 :: stride]
        chosen = np.zeros(len(self.rows), bool)
        chosen[places] = True
        return dataclasses.replace(self, rows=self.rows[chosen == kept_back], notes=(*self.notes, note))

    def identity(self) -> dict[str, Any]:
        """Return what tells this data from other data, wherever it lies."""
        checksum = zlib.crc32(np.ascontiguousarray(self.labels[self.rows]).tobytes())
        return {**self._identity(), "source_images": self.num_images, "labels_crc32": checksum}


@dataclass(frozen=True)
class StreamSource(ImageSource):
    """Images that can only be read from the start.

    Attributes:
        stream: opens the rows anew, as (encoded image, label or None, captions, name).
        has_labels: whether rows without a label are an error.
        classes: labels to keep; empty keeps all.
        stride, kept_back: of these, every so many-th is kept back, and this is the part of those, or of the others.
    """

    config: DataConfig
    stream: Callable[[], Iterator[Row]]
    class_names: dict[int, str]
    num_classes: int
    has_labels: bool
    has_captions: bool = False
    classes: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    files: SourceFiles | None = None
    stride: int = 0
    kept_back: bool = False
    has_words: bool = False

    @property
    def num_images(self) -> None:
        """Not known before the end."""
        return None

    def pending(self, start: int = 0, stop: int | None = None) -> Iterator[PendingImage]:
        """Yield the images of positions start … stop - 1, not yet decoded."""
        number = index = 0
        for file, label, captions, name in self.stream():
            if stop is not None and index >= stop:
                return
            if self.classes and label not in self.classes:
                continue
            number += 1
            if self.stride and (number % self.stride == 0) != self.kept_back:
                continue
            if index >= start:
                yield partial(self._decoded, file, label if self.has_labels else 0, index, captions, name)
            index += 1

    def keep(self, classes: tuple[int, ...]) -> StreamSource:
        """Return a source of these classes only, chosen by label without decoding."""
        if not classes:
            return self
        names = {label: name for label, name in self.class_names.items() if label in classes}
        require(self.has_labels, f"The stream {self.config.source} has no labels to choose classes by.")
        return dataclasses.replace(self, class_names=names, classes=classes)

    def renumber(self, train: dict[int, str]) -> StreamSource:
        """Return the same images with the ids that the train split has for the classes' names."""
        ids, names = numbered_as(self.class_names, train)

        def rows() -> Iterator[Row]:
            for file, label, captions, name in self.stream():
                yield file, ids.get(label, label) if isinstance(label, int) else label, captions, name

        num_classes = max(self.num_classes, max(names) + 1)
        return dataclasses.replace(self, stream=rows, class_names=names, num_classes=num_classes)

    def share(self, stride: int, kept_back: bool, note: str) -> StreamSource:
        """Return every ``stride``-th image, or the others."""
        return dataclasses.replace(self, stride=stride, kept_back=kept_back, notes=(*self.notes, note))

    def identity(self) -> dict[str, Any]:
        """Return what tells this data from other data, wherever it lies."""
        share = {"share": [self.stride, self.kept_back]} if self.stride else {}
        return {**self._identity(), "classes": sorted(self.classes), **share}
