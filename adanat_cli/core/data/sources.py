"""Where images come from, opened: random access where the data allows it, a stream elsewhere."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from adanat_cli.core.config import DataConfig
from adanat_cli.core.data import tables, tar_files, tars
from adanat_cli.core.data.captioned import Captioned, open_captioned
from adanat_cli.core.data.classes import MAX_UNASKED
from adanat_cli.core.data.columns import Columns, find_columns, holds_words
from adanat_cli.core.data.described import listed
from adanat_cli.core.data.folder_images import open_folder
from adanat_cli.core.data.image_source import ImageSource, StreamSource, TableSource, preset_note
from adanat_cli.core.data.source_files import SourceFiles
from adanat_cli.core.data.text_files import refuse_pointer
from adanat_cli.core.errors import AdaNATError, MissingSplit, hide_secrets, printable, require
from adanat_cli.core.hub import looks_like_hub_id

__all__ = ["ImageSource", "StreamSource", "TableSource", "open_source"]

_RANGE = re.compile(r"\{\d+\.\.\d+\}")
_HOMELESS = {
    "imagenet64": "the folder of its Parquet files",
    "mscoco": "the folder of train2014/, val2014/ and dataset_coco.json",
}


def open_source(config: DataConfig) -> ImageSource:
    """Open a data set: images by class, captioned images, Parquet, webdataset tars, a TSV, a Hub id or a preset.

    Raises:
        MissingSplit: if it has other splits but not the one asked for.
        AdaNATError: if it does not exist, cannot be read, or holds no images.
    """
    try:
        return _numbered_as_train(_open(config)).keep(config.classes)
    except AdaNATError as error:
        if note := preset_note(config):
            raise type(error)(f"{error} ({note}.)") from error
        raise


def _open(config: DataConfig) -> ImageSource:
    if config.source == "sklearn-digits":
        return _digits(config)
    if config.source in _HOMELESS and not config.data_dir:
        raise AdaNATError(f"{config.source} has no public home; give {_HOMELESS[config.source]} with --data-dir.")
    if config.source.startswith(("http://", "https://")) and not config.data_dir:
        addresses = tar_files.addresses(config.address or config.source)
        files = SourceFiles(None, [tar_files.shown(address) for address in addresses])
        return _from_tars(config, addresses, files)
    place = config.place
    if not config.is_here:
        _refuse_missing(config, place)
        return _from_table(config, tables.from_hub(config))
    if saved := tables.from_disk(config, place):
        files = SourceFiles.of(place, sorted(place.rglob("*.arrow")))
        return _from_table(config, saved, files)
    if found := tables.data_files(place, config.split):
        loader, paths = found
        for path in paths:
            refuse_pointer(path)
        files = SourceFiles.of(place, paths)
        if loader == "tar":
            return _from_tars(config, [str(path) for path in paths], files)
        return _from_table(config, tables.from_files(config, paths), files, tables.column_names(paths[0]))
    if captioned := open_captioned(place, config.split):
        return _from_captioned(config, captioned, SourceFiles.of(place, captioned.files))
    what = "is" if place.is_file() else "is a pipe or device,"
    require(place.is_dir(), f"{place} {what} no .parquet, .tar or .tsv file; give one, or the folder of its images.")
    return _folder(config, place)


def _numbered_as_train(source: ImageSource) -> ImageSource:
    """Give words as labels the ids that they have in the train split; those that it lacks get the next ones."""
    if not source.has_words or source.config.split == "train":
        return source
    try:
        train = _open(source.config.replace(split="train"))
    except MissingSplit:
        return source
    words = bool(source.class_names)
    require(
        bool(train.class_names) or not words,
        f"The labels of {source.config.source} are words in the {source.config.split} split, but numbers in the train "
        "split; write both the same way.",
    )
    return source.renumber(train.class_names) if train.class_names else source


def _refuse_missing(config: DataConfig, place: Path) -> None:
    """Refuse a path that leads nowhere; what may be an id on the Hub is for the Hub to tell."""
    require(
        bool(config.data_dir) or "://" not in config.source,
        f"{hide_secrets(config.source)} is an address that is not read; expected http:// or https:// and a tar, or "
        "fetch it and give the file.",
    )
    require(
        bool(config.data_dir) or not _RANGE.search(config.source),
        f"{place} does not exist; ranges in braces are read of addresses only: give the folder of the files.",
    )
    folder, _, revision = config.source.partition("@")
    here = not revision and os.path.isdir(folder.split("/")[0])
    beside = f", though {place.parent} does" if here and folder[0] != "." else ""
    require(
        not config.data_dir and looks_like_hub_id(config.source) and not here,
        f"{place} does not exist{beside}; expected a folder, a file, a preset "
        "or a Hub id user/name (user/name@main, if it is one).",
    )


def _from_table(
    config: DataConfig, opened: tables.Table, files: SourceFiles | None = None, there: Sequence[str] = ()
) -> ImageSource:
    """Make a source of an opened ``datasets`` table or stream; ``there`` names columns, of which it may lack some."""
    require(bool(opened.features), f"Data {config.source} does not tell its columns; read it without --streaming.")
    columns = dataclasses.replace(find_columns(opened.features, config), roots=tables.roots(config))
    table = tables.as_bytes(opened, columns)
    if tables.is_stream(table):
        stream = partial(tables.rows, table, columns, config.source)
        names = dict(enumerate(columns.class_names))
        return _stream(config, stream, columns, names, len(names), files)
    labels, names, num_named = tables.labels(table, columns, config.source)
    require(len(labels) > 0, f"{config.source} ({config.split}) holds no images.")
    num_classes = _count_classes(config, labels, max(num_named, len(names)))
    num_bare = int((labels < 0).sum())
    notes: tuple[str, ...] = (f"{num_bare} without a label",) if num_bare else ()
    unread = [printable(name) for name in there or opened.features if name != columns.image]
    if unread and not columns.label and not columns.caption:
        notes += (f"not read: {listed(unread)} (--label-column and --caption-column take a column)",)
    fetch = partial(tables.fetch, table, columns)
    captions = partial(tables.captions_of, table, columns) if columns.uses_captions else None
    rows = np.arange(len(labels))
    has_captions = columns.uses_captions
    source = TableSource(config, fetch, labels, rows, names, num_classes, has_captions, captions, notes, files)
    return dataclasses.replace(source, has_words=holds_words(opened.features, columns))


def _from_tars(config: DataConfig, places: list[str], files: SourceFiles) -> StreamSource:
    """Make a source of webdataset tars."""
    opened = tars.open_tars(config, places)
    source = _stream(config, opened.rows, opened.columns, opened.class_names, opened.num_classes, files)
    return dataclasses.replace(source, has_words=bool(opened.class_names))


def _stream(
    config: DataConfig,
    rows: Callable[[], Iterator[tables.Row]],
    columns: Columns,
    names: dict[int, str],
    num_named: int,
    files: SourceFiles | None,
) -> StreamSource:
    num_classes = config.num_classes or num_named or (0 if columns.label else 1)
    require(num_classes > 0, f"The stream {config.source} does not tell its classes; give --num-classes.")
    return StreamSource(config, rows, names, num_classes, bool(columns.label), columns.uses_captions, files=files)


def _from_captioned(config: DataConfig, captioned: Captioned, files: SourceFiles) -> TableSource:
    """Make a source of captioned images on disk."""
    require(not config.classes, f"{config.source} has captions and no classes to choose by.")
    _refuse_column(config)
    num = captioned.num_images
    source = TableSource(config, captioned.fetch, np.zeros(num, np.int64), np.arange(num), {}, 1, True)
    return dataclasses.replace(source, read_captions=captioned.captions, files=files)


def _folder(config: DataConfig, place: Path) -> TableSource:
    """Make a source of a folder of images."""
    _refuse_column(config)
    found = open_folder(config, place)
    num_classes = _count_classes(config, found.labels, found.num_classes)
    rows, has_captions = np.arange(len(found.files)), found.captions is not None
    source = TableSource(config, found.fetch, found.labels, rows, found.names, num_classes, has_captions)
    source = dataclasses.replace(source, has_words=found.has_words)
    # Captions may lie in any of the files beside the images; what those say of labels is in the labels.
    names = [*found.files, *(found.layout.listing.others if has_captions else ())]
    files = SourceFiles(place.resolve(), names, by_row=True)
    return dataclasses.replace(source, read_captions=found.captions, notes=found.notes, files=files)


def _refuse_column(config: DataConfig) -> None:
    """Refuse a column of data without columns, where it would choose nothing."""
    require(
        not config.image_column,
        f"--image-column has no meaning with {config.source}, which has no columns; leave it out.",
    )


def _count_classes(config: DataConfig, labels: tables.Labels, num_named: int) -> int:
    """Check the labels against the asked number of classes, or count them."""
    num_bare, low, high = int((labels < 0).sum()), int(labels.min()), int(labels.max())
    require(
        num_bare <= min(config.max_bad * len(labels), len(labels) - 1),
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
    _refuse_column(config)
    require(not config.data_dir, "--data-dir has no meaning with digits, which come with scikit-learn; leave it out.")
    images = (bundled.images * (255 / 16)).round().astype(np.uint8)
    labels = bundled.target.astype(np.int64)
    validation = np.arange(len(labels)) % 5 == 4
    rows = np.flatnonzero(validation if config.split == "validation" else ~validation)

    def fetch(row: int) -> tuple[bytes, tuple[str, ...], str]:
        # A portable grey map: two words of header, then the pixels.
        return b"P5 8 8 255\n" + images[row].tobytes(), (), f"digit {row}"

    return TableSource(config, fetch, labels, rows, {digit: str(digit) for digit in range(10)}, 10)
