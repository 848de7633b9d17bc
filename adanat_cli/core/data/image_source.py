"""Images in a fixed order, with labels or captions: with random access, or as a stream."""

from __future__ import annotations

import dataclasses
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from adanat_cli.core.config import DataConfig
from adanat_cli.core.data.columns import Columns
from adanat_cli.core.data.described import classes_in_words, plural
from adanat_cli.core.data.labels import ClassIds, RawLabel, numbered_as
from adanat_cli.core.data.records import ImageRecord, PendingImage, Row, decode, in_order
from adanat_cli.core.data.source_files import SourceFiles
from adanat_cli.core.errors import AdaNATError, printable, require
from adanat_cli.core.hub import looks_like_hub_id


def preset_note(config: DataConfig) -> str:
    """Say that a preset was taken instead of a folder of the same name; "" if there is no such folder."""
    hidden = bool(config.preset) and not config.data_dir and Path(config.preset).exists()
    return f"{config.preset} is a preset; ./{config.preset} takes what lies here under this name" if hidden else ""


@dataclass(frozen=True, kw_only=True)
class ImageSource(ABC):
    """Images in a fixed order, each with a label or a caption.

    Attributes:
        config: what was asked for.
        class_names: class id to name; empty where the data has no names.
        num_classes: classes of the numbering, of which not all need occur.
        has_captions: whether captions, not labels, are the condition.
        notes: what was left out or decided when it was opened, for people.
        files: files on disk or by URL; None where the Hub or a library keeps the data.
        has_words: whether labels may be words, whose ids follow from those that occur in this split.
    """

    config: DataConfig
    class_names: dict[int, str] = field(default_factory=dict)
    num_classes: int = 1
    has_captions: bool = False
    notes: tuple[str, ...] = ()
    files: SourceFiles | None = None
    has_words: bool = False

    @property
    @abstractmethod
    def num_images(self) -> int | None:
        """Images of the source; None where it is a stream."""

    def count(self) -> int | None:
        """Images of the source, counted without reading them; None where they can only be counted by reading."""
        return self.num_images

    @abstractmethod
    def pending(self, start: int = 0, stop: int | None = None) -> Iterator[PendingImage]:
        """Yield the images of positions start … stop - 1, not yet decoded."""

    @abstractmethod
    def share(self, stride: int, kept_back: bool, note: str) -> Self:
        """Return every ``stride``-th image, class by class where they are known, or the others, with a note on it."""

    @abstractmethod
    def _keep(self, classes: tuple[int, ...]) -> Self:
        """Return a source of these classes only, under the names of all."""

    @abstractmethod
    def _relabel(self, ids: dict[int, int]) -> Self:
        """Return the same images with other class ids; those without another keep theirs."""

    @property
    def name(self) -> str:
        """The data in a word: a preset, a Hub id, or the last part of its path, whose rest is never shown."""
        source = self.config.source
        if "://" in source:
            return printable(source.rsplit("/", 1)[-1])
        here = self.config.replace(data_dir="")
        is_id = looks_like_hub_id(source) and not here.is_here
        return source if is_id else printable(Path(os.path.abspath(here.path)).name)

    def describe(self) -> str:
        """Say in one line what was understood of the data; a run prints it before its work starts."""
        num = self.num_images
        images = "a stream of images" if num is None else f"{num:,} {plural('image', num)}"
        classes = classes_in_words(self.class_counts(), self.class_names, self.num_classes)
        said = f"{self.name} ({self.config.split}): {images} {'with captions' if self.has_captions else classes}"
        return "; ".join(filter(None, (said, *self.notes, preset_note(self.config)))) + "."

    def class_counts(self) -> dict[int, int]:
        """Images of each class that occurs; empty where that is not known before the end."""
        return {}

    def keep(self, classes: tuple[int, ...]) -> Self:
        """Return a source of these classes only, chosen by label without decoding; of all if none is named."""
        if not classes:
            return self
        names = {label: name for label, name in self.class_names.items() if label in classes}
        return dataclasses.replace(self._keep(classes), class_names=names)

    def renumber(self, train: dict[int, str]) -> Self:
        """Return the same images with the ids that the train split has for the classes' names."""
        # Numbers count as ids where all words are numbers, and as names where other words occur.
        here = {label: str(label) for label in self.class_counts()} | self.class_names
        ids, names = numbered_as(here, train)
        num_classes = max(self.num_classes, max(names) + 1)
        return dataclasses.replace(self._relabel(ids), class_names=names, num_classes=num_classes)

    def identity(self) -> dict[str, Any]:
        """Return what distinguishes this data from other data, wherever it lies."""
        files = {"files_digest": self.files.digest()} if self.files else {}
        return {"source": self.name, "split": self.config.split, "image_size": self.config.image_size, **files}

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
        """Read and decode one image; an unreadable one has ``error`` set.

        Raises:
            AdaNATError: if the source is a stream.
        """
        raise AdaNATError(
            f"Image {index} of {self.config.source} cannot be read on its own from a stream; read Parquet or a "
            "folder without --streaming."
        )

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the captions of one image, which is not decoded.

        Raises:
            AdaNATError: if the source is a stream.
        """
        return self.load(index).captions

    def _decoded(self, row: Row, label: RawLabel, index: int) -> ImageRecord:
        """Decode an image, unless it lacks the condition that the others have."""
        error = ""
        if self.has_captions:
            error = "" if row.captions else "it has no caption"
        elif label is None or label == -1:
            error = "it has no label"
        elif not isinstance(label, int) or not 0 <= label < self.num_classes:
            error = f"its label is {label!r}; expected 0 to {self.num_classes - 1}"
        if error or not isinstance(label, int):
            return ImageRecord(index, None, 0, row.captions, row.name, error)
        return decode(row, index, label, self.config.image_size)


@dataclass(frozen=True, kw_only=True)
class TableSource(ImageSource):
    """Images with random access.

    Attributes:
        fetch: reads a row.
        labels: (rows,), class ids of all rows.
        rows: rows that are kept, in order.
        read_captions: row to its captions alone, where that is cheaper.
    """

    fetch: Callable[[int], Row]
    labels: ClassIds
    rows: ClassIds
    read_captions: Callable[[int], tuple[str, ...]] | None = None

    @property
    def num_images(self) -> int:
        """Images that are kept."""
        return len(self.rows)

    def class_counts(self) -> dict[int, int]:
        """Images of each class that occurs."""
        labels = self.labels[self.rows]
        labels, counts = np.unique(labels[labels >= 0], return_counts=True)
        return dict(zip(labels.tolist(), counts.tolist(), strict=True))

    def pending(self, start: int = 0, stop: int | None = None) -> Iterator[PendingImage]:
        """Yield the images of positions start … stop - 1, not yet decoded."""
        stop = self.num_images if stop is None else min(stop, self.num_images)
        return (partial(self.load, index) for index in range(start, stop))

    def load(self, index: int) -> ImageRecord:
        """Read and decode one image; an unreadable one has ``error`` set."""
        row = int(self.rows[index])
        return self._decoded(self.fetch(row), int(self.labels[row]), index)

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the captions of one image, which is not decoded."""
        row = int(self.rows[index])
        return self.read_captions(row) if self.read_captions else self.fetch(row).captions

    def share(self, stride: int, kept_back: bool, note: str) -> Self:
        """Return every ``stride``-th image, class by class, or the others, with a note on it."""
        chosen = np.zeros(len(self.rows), bool)
        chosen[np.argsort(self.labels[self.rows], kind="stable")[stride - 1 :: stride]] = True
        return dataclasses.replace(self, rows=self.rows[chosen == kept_back], notes=(*self.notes, note))

    def _keep(self, classes: tuple[int, ...]) -> Self:
        rows = self.rows[np.isin(self.labels[self.rows], classes)]
        require(
            len(rows) > 0,
            f"No image of class {', '.join(map(str, classes))} is in {self.config.source}; choose other classes.",
        )
        return dataclasses.replace(self, rows=rows)

    def _relabel(self, ids: dict[int, int]) -> Self:
        labels = np.array([ids.get(label, label) for label in self.labels.tolist()], np.int64)
        return dataclasses.replace(self, labels=labels)

    def digest(self, start: int, stop: int, without: Collection[int] = ()) -> str:
        """Digest of the files of positions start … stop - 1, but for some of them; of all where rows share files."""
        if self.files is None or not self.files.by_row:
            return super().digest(start, stop, without)
        names = self.files.names
        kept = [names[row] for index, row in enumerate(self.rows[start:stop], start) if index not in without]
        return dataclasses.replace(self.files, names=[*kept, *names[len(self.labels) :]]).digest()

    def identity(self) -> dict[str, Any]:
        """Return what distinguishes this data from other data, wherever it lies."""
        checksum = zlib.crc32(np.ascontiguousarray(self.labels[self.rows]).tobytes())
        return {**super().identity(), "source_images": self.num_images, "labels_crc32": checksum}


@dataclass(frozen=True, kw_only=True)
class StreamSource(ImageSource):
    """Images that can only be read from the start.

    Attributes:
        stream: opens the rows anew, from a position on.
        count_rows: counts the rows without reading their images; None where that is not possible.
        has_labels: whether rows without a label are an error.
        classes: labels to keep; empty keeps all.
        stride, kept_back: every ``stride``-th of these is held back; the source is those, or the others.
    """

    stream: Callable[[int], Iterator[Row]]
    has_labels: bool
    count_rows: Callable[[], int] | None = None
    classes: tuple[int, ...] = ()
    stride: int = 0
    kept_back: bool = False

    @property
    def num_images(self) -> None:
        """Not known before the end."""
        return None

    def pending(self, start: int = 0, stop: int | None = None) -> Iterator[PendingImage]:
        """Yield the images of positions start … stop - 1, not yet decoded."""
        number, index = (0, 0) if self.classes else (self._row_of(start), start)
        for row in self.stream(number):
            if stop is not None and index >= stop:
                return
            if self.classes and row.label not in self.classes:
                continue
            number += 1
            if self.stride and (number % self.stride == 0) != self.kept_back:
                continue
            if index >= start:
                yield partial(self._decoded, row, row.label if self.has_labels else 0, index)
            index += 1

    def count(self) -> int | None:
        """Images of the source, where they can be counted without reading them."""
        if self.count_rows is None or self.classes:
            return None
        rows = self.count_rows()
        held_back = rows // self.stride if self.stride else 0
        return held_back if self.kept_back else rows - held_back

    def _row_of(self, index: int) -> int:
        """The row of an image of a source of all classes."""
        if not self.stride:
            return index
        return (index + 1) * self.stride - 1 if self.kept_back else index + index // (self.stride - 1)

    def share(self, stride: int, kept_back: bool, note: str) -> Self:
        """Return every ``stride``-th image, or the others, with a note on it."""
        return dataclasses.replace(self, stride=stride, kept_back=kept_back, notes=(*self.notes, note))

    def _keep(self, classes: tuple[int, ...]) -> Self:
        require(
            self.has_labels,
            f"The stream {self.config.source} has no labels to choose classes by; leave the classes out.",
        )
        return dataclasses.replace(self, classes=classes)

    def _relabel(self, ids: dict[int, int]) -> Self:
        def rows(start: int) -> Iterator[Row]:
            for row in self.stream(start):
                yield row._replace(label=ids.get(row.label, row.label)) if isinstance(row.label, int) else row

        return dataclasses.replace(self, stream=rows)

    def identity(self) -> dict[str, Any]:
        """Return what distinguishes this data from other data, wherever it lies."""
        share = {"share": [self.stride, self.kept_back]} if self.stride else {}
        return {**super().identity(), "classes": sorted(self.classes), **share}


def stream_source(
    config: DataConfig,
    stream: Callable[[int], Iterator[Row]],
    columns: Columns,
    class_names: dict[int, str],
    num_classes: int = 0,
    **fields: Any,
) -> StreamSource:
    """Make a source of the rows of a stream, whose columns decide whether they have labels or captions."""
    num_classes = config.num_classes or num_classes or len(class_names) or (0 if columns.label else 1)
    require(num_classes > 0, f"The stream {config.source} does not list its classes; give --num-classes.")
    return StreamSource(
        config=config,
        stream=stream,
        class_names=class_names,
        num_classes=num_classes,
        has_labels=bool(columns.label),
        has_captions=columns.uses_captions,
        **fields,
    )
