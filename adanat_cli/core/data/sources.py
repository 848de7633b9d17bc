"""Where images come from, opened: random access where the data allows it, a stream elsewhere."""

from __future__ import annotations

import dataclasses
import importlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from adanat_cli.core.config import DataConfig
from adanat_cli.core.data import tables, tar_files, tars
from adanat_cli.core.data.captioned import Captioned, open_captioned
from adanat_cli.core.data.classes import MAX_UNASKED
from adanat_cli.core.data.columns import Columns, find_columns
from adanat_cli.core.data.described import describe
from adanat_cli.core.data.folder_images import open_folder
from adanat_cli.core.data.labels import RawLabel
from adanat_cli.core.data.records import ImageRecord, PendingImage, decode, in_order
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.hub import looks_like_hub_id

Labels = tables.Labels
Fetch = Callable[[int], tuple[bytes | Path | None, tuple[str, ...], str]]
"""A row of a table to its encoded image, captions and name."""

_HOMELESS = {
    "imagenet64": "the folder of its Parquet files",
    "mscoco": "the folder of train2014/, val2014/ and dataset_coco.json",
}


class ImageSource(ABC):
    """Images in a fixed order, each with a label or a caption.

    Attributes:
        config: what was asked for.
        class_names: class id to name; empty where the data has no names.
        num_classes: classes of the numbering, of which not all need occur.
        has_captions: whether captions, not labels, are the condition.
        notes: what was left out or decided when it was opened, for people.
    """

    config: DataConfig
    class_names: dict[int, str]
    num_classes: int
    has_captions: bool
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Say in one line what was understood of the data; a run prints it before its work starts."""
        shown = f"{self.name} ({self.config.split})"
        classes = (self.class_counts(), self.class_names, self.num_classes)
        return describe(shown, self.num_images, *classes, self.has_captions, self.notes)

    def class_counts(self) -> dict[int, int]:
        """Images of each class that occurs; empty where that is not known before the end."""
        return {}

    @property
    def name(self) -> str:
        """The data in a word: a preset, a Hub id, or the last part of where it lies, which itself is never told."""
        source = self.config.source
        if looks_like_hub_id(source) and not Path(source).exists():
            return source
        return source.rsplit("/", 1)[-1] if "://" in source else Path(source).expanduser().resolve().name

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
    def identity(self) -> dict[str, Any]:
        """Return what tells this data from other data, wherever it lies."""

    def _identity(self) -> dict[str, Any]:
        return {"source": self.name, "split": self.config.split, "image_size": self.config.image_size}

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

    def class_counts(self) -> dict[int, int]:
        """Images of each class that occurs."""
        labels = self.labels[self.rows]
        labels, counts = np.unique(labels[labels >= 0], return_counts=True)
        return dict(zip(labels.tolist(), counts.tolist(), strict=True))

    @property
    def num_images(self) -> int:
        """Images that are kept."""
        return len(self.rows)

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
    """

    config: DataConfig
    stream: Callable[[], Iterator[tables.Row]]
    class_names: dict[int, str]
    num_classes: int
    has_labels: bool
    has_captions: bool = False
    classes: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def num_images(self) -> None:
        """Not known before the end."""
        return None

    def pending(self, start: int = 0, stop: int | None = None) -> Iterator[PendingImage]:
        """Yield the images of positions start … stop - 1, not yet decoded."""
        index = 0
        for file, label, captions, name in self.stream():
            if stop is not None and index >= stop:
                return
            if self.classes and label not in self.classes:
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

    def identity(self) -> dict[str, Any]:
        """Return what tells this data from other data, wherever it lies."""
        return {**self._identity(), "classes": sorted(self.classes)}


def open_source(config: DataConfig) -> ImageSource:
    """Open a data set: images by class, captioned images, Parquet, webdataset tars, a TSV, a Hub id or a preset.

    Raises:
        AdaNATError: if it does not exist, cannot be read, or holds no images.
    """
    if config.source == "sklearn-digits":
        return _digits(config).keep(config.classes)
    if config.source in _HOMELESS and not config.data_dir:
        raise AdaNATError(f"{config.source} has no public home; give {_HOMELESS[config.source]} with --data-dir.")
    if config.source.startswith(("http://", "https://")) and not config.data_dir:
        return _from_tars(config, tar_files.addresses(config.address or config.source)).keep(config.classes)
    place = Path(config.data_dir or config.source).expanduser()
    if not place.exists():
        _refuse_missing(config, place)
        return _from_table(config, tables.from_hub(config)).keep(config.classes)
    if saved := tables.from_disk(config, place):
        return _from_table(config, saved).keep(config.classes)
    if found := tables.data_files(place, config.split):
        loader, files = found
        if loader == "tar":
            return _from_tars(config, [str(file) for file in files]).keep(config.classes)
        return _from_table(config, tables.from_files(config, files)).keep(config.classes)
    if captioned := open_captioned(place, config.split):
        return _from_captioned(config, captioned)
    require(place.is_dir(), f"{place} is no .parquet, .tar or .tsv file; give one, or the folder of its images.")
    return _folder(config, place).keep(config.classes)


def _refuse_missing(config: DataConfig, place: Path) -> None:
    """Refuse a path that leads nowhere; what may be an id on the Hub is for the Hub to tell."""
    folder, _, revision = config.source.partition("@")
    here = not revision and Path(folder.split("/")[0]).is_dir()
    require(
        not config.data_dir and looks_like_hub_id(config.source) and not here,
        f"{place} does not exist{f', though {place.parent} does' if here else ''}; expected a folder, a file, a preset "
        "or a Hub id user/name (user/name@main, if it is one).",
    )


def _from_table(config: DataConfig, opened: tables.Table) -> ImageSource:
    """Make a source of an opened ``datasets`` table or stream."""
    require(bool(opened.features), f"Data {config.source} does not tell its columns; read it without --streaming.")
    columns = dataclasses.replace(find_columns(opened.features, config), roots=tables.roots(config))
    table = tables.as_bytes(opened, columns)
    if tables.is_stream(table):
        stream = partial(tables.rows, table, columns, config.source)
        return _stream(config, stream, columns, dict(enumerate(columns.class_names)), len(columns.class_names))
    labels, names, num_named = tables.labels(table, columns, config.source)
    require(len(labels) > 0, f"{config.source} ({config.split}) holds no images.")
    num_classes = _count_classes(config, labels, max(num_named, len(names)))
    fetch = partial(tables.fetch, table, columns)
    captions = partial(tables.captions_of, table, columns) if columns.uses_captions else None
    rows = np.arange(len(labels))
    return TableSource(config, fetch, labels, rows, names, num_classes, columns.uses_captions, captions)


def _from_tars(config: DataConfig, places: list[str]) -> StreamSource:
    """Make a source of webdataset tars."""
    opened = tars.open_tars(config, places)
    return _stream(config, opened.rows, opened.columns, opened.class_names, opened.num_classes)


def _stream(
    config: DataConfig,
    rows: Callable[[], Iterator[tables.Row]],
    columns: Columns,
    names: dict[int, str],
    num_named: int,
) -> StreamSource:
    num_classes = config.num_classes or num_named or (0 if columns.label else 1)
    require(num_classes > 0, f"The stream {config.source} does not tell its classes; give --num-classes.")
    return StreamSource(config, rows, names, num_classes, bool(columns.label), columns.uses_captions)


def _from_captioned(config: DataConfig, captioned: Captioned) -> TableSource:
    """Make a source of captioned images on disk."""
    require(not config.classes, f"{config.source} has captions and no classes to choose by.")
    num = captioned.num_images
    source = TableSource(config, captioned.fetch, np.zeros(num, np.int64), np.arange(num), {}, 1, True)
    return dataclasses.replace(source, read_captions=captioned.captions)


def _folder(config: DataConfig, place: Path) -> TableSource:
    """Make a source of a folder of images."""
    found = open_folder(config, place)
    num_classes = _count_classes(config, found.labels, found.num_classes)
    rows, has_captions = np.arange(len(found.files)), found.captions is not None
    source = TableSource(config, found.fetch, found.labels, rows, found.names, num_classes, has_captions)
    return dataclasses.replace(source, read_captions=found.captions, notes=found.notes)


def _count_classes(config: DataConfig, labels: Labels, num_named: int) -> int:
    """Check the labels against the asked number of classes, or count them."""
    num_bare, low, high = int((labels < 0).sum()), int(labels.min()), int(labels.max())
    require(
        num_bare <= config.max_bad * len(labels),
        f"{num_bare} of the {len(labels)} images of {config.source} ({config.split}) have no label (null or below 0); "
        "label them or leave them out, or allow more with --max-bad.",
    )
    num_classes = config.num_classes or max(num_named, high + 1)
    require(
        high < num_classes,
        f"{config.source} has labels from {low} to {high}; expected 0 to {num_classes - 1} (--num-classes).",
    )
    require(
        bool(config.num_classes) or num_classes <= MAX_UNASKED,
        f"{config.source} has labels up to {high}; number the classes from 0, or give --num-classes {num_classes} if "
        "there are really so many.",
    )
    return num_classes


def _digits(config: DataConfig) -> TableSource:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels; every fifth is for validation."""
    try:
        bundled = importlib.import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        raise AdaNATError(
            "The digits come with scikit-learn, which is not installed; try pip install 'adanat[digits]'."
        ) from error
    images = (bundled.images * (255 / 16)).round().astype(np.uint8)
    labels = bundled.target.astype(np.int64)
    validation = np.arange(len(labels)) % 5 == 4
    rows = np.flatnonzero(validation if config.split == "validation" else ~validation)

    def fetch(row: int) -> tuple[bytes, tuple[str, ...], str]:
        # A portable grey map: two words of header, then the pixels.
        return b"P5 8 8 255\n" + images[row].tobytes(), (), f"digit {row}"

    return TableSource(config, fetch, labels, rows, {digit: str(digit) for digit in range(10)}, 10)
