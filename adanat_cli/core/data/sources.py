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
from adanat_cli.core.data import tables
from adanat_cli.core.data.captioned import Captioned, open_captioned
from adanat_cli.core.data.classes import folder_classes
from adanat_cli.core.data.described import describe
from adanat_cli.core.data.folders import class_files
from adanat_cli.core.data.records import ImageRecord, PendingImage, decode, in_order
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.hub import looks_like_hub_id

Labels = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Fetch = Callable[[int], tuple[bytes | Path | None, tuple[str, ...], str]]
"""A row of a table to its encoded image, captions and name."""

_IMAGENET = ("imagenet64", "ILSVRC/imagenet-1k")
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
        shown = f"{self.identity()['source']} ({self.config.split})"
        classes = (self.class_counts(), self.class_names, self.num_classes)
        return describe(shown, self.num_images, *classes, self.has_captions, self.notes)

    def class_counts(self) -> dict[int, int]:
        """Images of each class that occurs; empty where that is not known before the end."""
        return {}

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
        labels, counts = np.unique(self.labels[self.rows], return_counts=True)
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
        return decode(file, index, int(self.labels[row]), captions, name, self.config.image_size)

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
        return {**_identity(self.config), "source_images": self.num_images, "labels_crc32": checksum}


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
                yield self._image(file, label, index, captions, name)
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
        return {**_identity(self.config), "classes": sorted(self.classes)}

    def _image(
        self, file: bytes | Path | None, label: int | None, index: int, captions: tuple[str, ...], name: str
    ) -> PendingImage:
        if not self.has_labels:
            return partial(decode, file, index, 0, captions, name, self.config.image_size)
        if label is None or not 0 <= label < self.num_classes:
            error = f"its label is {label}; expected 0 to {self.num_classes - 1}"
            return partial(ImageRecord, index, None, 0, captions, name, error)
        return partial(decode, file, index, label, captions, name, self.config.image_size)


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
        return _from_table(config, tables.from_urls(config)).keep(config.classes)
    place = Path(config.data_dir or config.source).expanduser()
    if not place.exists():
        if config.data_dir or not looks_like_hub_id(config.source):
            raise AdaNATError(f"{place} does not exist; expected a folder, a file, a preset or a Hub id user/name.")
        return _from_table(config, tables.from_hub(config)).keep(config.classes)
    if found := tables.data_files(place, config.split):
        return _from_table(config, tables.from_files(config, *found)).keep(config.classes)
    if captioned := open_captioned(place, config.split):
        return _from_captioned(config, captioned)
    require(place.is_dir(), f"{place} is no .parquet, .tar or .tsv file; give one, or the folder of its images.")
    return _folder(config, place).keep(config.classes)


def _identity(config: DataConfig) -> dict[str, Any]:
    local = not looks_like_hub_id(config.source) or Path(config.source).exists()
    name = Path(config.source).name if local else config.source
    return {"source": name, "split": config.split, "image_size": config.image_size}


def _from_table(config: DataConfig, opened: tables.Table) -> ImageSource:
    """Make a source of an opened ``datasets`` table or stream."""
    columns = tables.find_columns(opened, config)
    table = tables.as_bytes(opened, columns)
    names = dict(enumerate(columns.class_names))
    if tables.is_stream(table):
        num_classes = config.num_classes or len(names) or (0 if columns.label else 1)
        require(num_classes > 0, f"The stream {config.source} does not tell its classes; give --num-classes.")
        stream = partial(tables.rows, table, columns, config.source)
        return StreamSource(config, stream, names, num_classes, bool(columns.label), columns.uses_captions)
    labels = tables.labels(table, columns)
    require(len(labels) > 0, f"{config.source} ({config.split}) holds no images.")
    num_classes = _count_classes(config, labels, len(names))
    fetch = partial(tables.fetch, table, columns)
    captions = partial(tables.captions_of, table, columns) if columns.uses_captions else None
    rows = np.arange(len(labels))
    return TableSource(config, fetch, labels, rows, names, num_classes, columns.uses_captions, captions)


def _from_captioned(config: DataConfig, captioned: Captioned) -> TableSource:
    """Make a source of captioned images on disk."""
    require(not config.classes, f"{config.source} has captions and no classes to choose by.")
    num = captioned.num_images
    source = TableSource(config, captioned.fetch, np.zeros(num, np.int64), np.arange(num), {}, 1, True)
    return dataclasses.replace(source, read_captions=captioned.captions)


def _folder(config: DataConfig, place: Path) -> TableSource:
    """A folder of images by class, optionally below train/ and val/."""
    root, files, folders = class_files(place, config.split)
    found = sorted(set(folders))
    require(found != [""] or config.num_classes <= 1, f"{root} has no class folders; expected a folder for each class.")
    ids, names, num_classes = folder_classes(found)
    if config.source in _IMAGENET and num_classes != 1000 and not found[0].isdigit():
        raise AdaNATError(f"{root} has the class folder {found[0]!r}; expected synset ids (n01440764) or class ids.")
    labels = np.array([ids[folder] for folder in folders], np.int64)

    def fetch(row: int) -> tuple[Path, tuple[str, ...], str]:
        return root / files[row], (), files[row]

    num_classes = _count_classes(config, labels, num_classes)
    return TableSource(config, fetch, labels, np.arange(len(labels)), names, num_classes)


def _count_classes(config: DataConfig, labels: Labels, num_named: int) -> int:
    """Check the labels against the asked number of classes, or count them."""
    low, high = int(labels.min()), int(labels.max())
    num_classes = config.num_classes or max(num_named, high + 1)
    require(
        low >= 0 and high < num_classes,
        f"{config.source} has labels from {low} to {high}; expected 0 to {num_classes - 1} (--num-classes).",
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
