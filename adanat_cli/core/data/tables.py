"""Tables and streams of the ``datasets`` library: which columns they have, and their rows as bytes."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HfHubHTTPError

from adanat_cli.core.config import DataConfig
from adanat_cli.core.data.columns import (
    Columns,
    dtype_of,
    find_columns,
    holds_bytes,
    image_column,
    inside,
    is_number,
    texts,
    told,
)
from adanat_cli.core.data.folders import IMAGE_SUFFIXES, split_of
from adanat_cli.core.data.labels import RawLabel, number_words, read_label
from adanat_cli.core.data.source_files import file_within
from adanat_cli.core.errors import AdaNATError, MissingSplit, require
from adanat_cli.core.hub import explain, scrub
from adanat_cli.core.reading import read_object

Labels: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Table: TypeAlias = datasets.Dataset | datasets.IterableDataset
Row = tuple[bytes | Path | None, RawLabel, tuple[str, ...], str]
"""Encoded image, label, captions and name."""

_MOST_FILES, _MOST_RANGES = 100_000, 8
_LOAD_ERRORS = (OSError, ValueError, tarfile.TarError, pa.ArrowException, HfHubHTTPError)
_SCHEMA_ERRORS = (*_LOAD_ERRORS, KeyError, TypeError, AttributeError, NotImplementedError, RecursionError)
"""What ``datasets`` raises on descriptions of columns that make no sense, as well."""


def is_stream(table: Table) -> bool:
    """Tell a stream from a table with random access."""
    return isinstance(table, datasets.IterableDataset)


def data_files(place: Path, split: str) -> tuple[str, list[Path]] | None:
    """Find Parquet files or tars of a split.

    Returns:
        The loader's name ("parquet" or "tar") and the files in order, or None if there are none.

    Raises:
        AdaNATError: if there are such files, but of other splits only, or images lie beside them in other forms.
    """
    if place.is_file():
        return next(((loader, [place]) for loader, ends in _LOADERS.items() if place.name.endswith(ends)), None)
    found = {loader: files for loader, ends in _LOADERS.items() if (files := _files(place, ends))}
    # Tables without images tell of images elsewhere, as img2dataset writes them beside its tars.
    elsewhere = _class_folders(place) if found else []
    described = [file.name for file in found.get("parquet", [])] == ["metadata.parquet"]
    if all(map(_lacks_images, found.get("parquet", []))) and ("tar" in found or elsewhere or described):
        found.pop("parquet", None)
    if not found:
        return None
    names = [files[0].name for files in found.values()] + elsewhere
    require(
        len(names) == 1,
        f"{place} holds images in several forms ({', '.join(names[:3])}); give one of them, or move the others away.",
    )
    loader, files = found.popitem()
    return loader, _of_split(files, split, place)


_LOADERS = {"parquet": (".parquet",), "tar": (".tar", ".tar.gz", ".tgz")}


def _files(place: Path, ends: tuple[str, ...]) -> list[Path]:
    return [
        file
        for folder in (".", "data", "train", "val", "validation", "test")
        for file in sorted((place / folder).glob("*"))
        if file.name.endswith(ends) and not file.name.startswith(".") and file.is_file()
    ]


def _lacks_images(file: Path) -> bool:
    """Whether no column of a table can be one of images; a damaged one is for its reader to tell of."""
    try:
        return not image_column(_features(file))
    except _SCHEMA_ERRORS:
        return False


def _class_folders(place: Path) -> list[str]:
    """The first two folders below that hold images, if there are two: those of classes, not some picture of a card."""
    found: list[str] = []
    for folder, _, names in os.walk(place):
        if folder != str(place) and any(name.lower().endswith(IMAGE_SUFFIXES) for name in names):
            found.append(f"{os.path.relpath(folder, place)}/")
        if len(found) == 2:
            return found
    return []


def _of_split(files: list[Path], split: str, place: Path) -> list[Path]:
    """Choose the files that their own or their folder's name gives to a split; unnamed ones are train."""
    splits: dict[str, list[Path]] = {}
    for file in files:
        folder = split_of(file.parent.name) if file.parent != place else ""
        splits.setdefault(split_of(file.name) or folder or "train", []).append(file)
    if split not in splits:
        raise MissingSplit(
            f"{place} has no {split} files; it has {', '.join(sorted(splits))} "
            "(file names begin with the split, as in validation-00000.parquet)."
        )
    return splits[split]


def from_files(config: DataConfig, files: list[Path]) -> Table:
    """Open Parquet files, as a table, or as a stream if asked for.

    Raises:
        AdaNATError: if they cannot be read, or differ in the columns that are needed.
    """
    names = [str(file.resolve()) for file in files]
    features = _common_features(config, files)
    return _load(
        str(files[0].parent),
        "parquet",
        data_files={"train": names},
        split="train",
        streaming=config.streaming,
        columns=list(features),
        features=features,
    )


def _common_features(config: DataConfig, files: list[Path]) -> datasets.Features:
    """The types of the needed columns, which all files share; whole numbers may be of any width.

    Raises:
        AdaNATError: naming file and column, if they differ.
    """
    needed = datasets.Features()
    for file in files:
        try:
            features = _features(file)
        except _SCHEMA_ERRORS as error:
            raise AdaNATError(f"Data {file.parent} cannot be opened: {file.name}: {_root_cause(error)}.") from error
        if not needed:
            columns = find_columns(features, config)
            needed = datasets.Features({name: features[name] for name in sorted(columns.needed)})
        for name, kind in needed.items():
            there = features.get(name)
            if there == kind or (_is_struct(there) and _is_struct(kind)):
                continue
            require(
                isinstance(kind, datasets.Value) and is_number(kind) and dtype_of(there).startswith(("int", "uint")),
                f"Column {name!r} is {told(there)} in {file.name}, but {told(kind)} in {files[0].name}; write both "
                "the same way.",
            )
            needed[name] = datasets.Value("int64")
    return needed


def _features(file: Path) -> datasets.Features:
    """The types of a Parquet file's columns; what pandas keeps as categories counts as their values."""
    schema = pq.read_schema(file)
    for place, column in enumerate(schema):
        if pa.types.is_dictionary(column.type):
            schema = schema.set(place, column.with_type(column.type.value_type))
    return datasets.Features.from_arrow_schema(schema)


def column_names(file: Path) -> list[str]:
    """Names of the columns of a Parquet file."""
    return list(pq.read_schema(file).names)


def _is_struct(feature: Any) -> bool:
    """Whether images are kept as bytes and path, typed or not."""
    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and holds_bytes(feature))


def expand_braces(pattern: str) -> list[str]:
    """``a-{08..11}`` to ``a-08`` … ``a-11``, as shells and webdataset write ranges.

    Raises:
        AdaNATError: if a range is empty or very large.
    """
    require(pattern.count("{") <= _MOST_RANGES, f"{pattern[:80]} … holds more than {_MOST_RANGES} ranges.")
    found = re.search(r"\{(\d{1,12})\.\.(\d{1,12})\}", pattern)
    if not found:
        return [pattern]
    first, last = found.groups()
    numbers, rest = range(int(first), int(last) + 1), expand_braces(pattern[found.end() :])
    num = len(numbers) * len(rest)
    require(0 < num <= _MOST_FILES, f"{pattern} stands for {num} files; expected 1 to {_MOST_FILES}.")
    return [f"{pattern[: found.start()]}{number:0{len(first)}d}{end}" for number in numbers for end in rest]


def from_hub(config: DataConfig) -> Table:
    """Open a Hub data set ``user/name[@revision]``.

    Raises:
        MissingSplit: if it has no such split.
        AdaNATError: if it cannot be reached or read.
    """
    name, _, revision = config.source.partition("@")
    asked: dict[str, Any] = {"revision": revision or None, "streaming": config.streaming}
    try:
        return _load(name, name, split=config.split, **asked)
    except AdaNATError as error:
        if isinstance(error.__cause__, ValueError) and (there := _splits_on_hub(name, revision)):
            split = _split_among(there, config)
            if split != config.split:
                return _load(name, name, split=split, **asked)
        first = f"No file or folder here is called {name}."
        if reason := error.__cause__ and explain(error.__cause__):
            raise AdaNATError(
                f"{first} Cannot open data set {config.source}: {reason} --data-dir takes a local copy."
            ) from error
        raise AdaNATError(
            f"{first} {error} Check its name, the network and, for gated data, `hf auth login`; or give a local copy "
            "with --data-dir."
        ) from error


def _splits_on_hub(name: str, revision: str) -> list[str]:
    """Names of the splits, as far as the Hub tells."""
    try:
        return list(datasets.get_dataset_split_names(name, revision=revision or None))
    except (*_LOAD_ERRORS, datasets.exceptions.DatasetsError):
        return []


def _split_among(names: list[str], config: DataConfig) -> str:
    """Choose the name that stands for the split that is asked for, as "test" and "val" do for validation."""
    split = next((name for name in (config.split, *names) if name in names and split_of(name) == config.split), "")
    if not split:
        raise MissingSplit(f"{config.source} has no {config.split} split; it has {', '.join(names)}.")
    return split


def from_disk(config: DataConfig, place: Path) -> Table | None:
    """Open what ``datasets`` has saved with ``save_to_disk``; None if it is something else.

    Raises:
        MissingSplit: if it has no such split.
        AdaNATError: if it is damaged.
    """
    try:
        if (place / "dataset_dict.json").is_file():
            names = read_object(place / "dataset_dict.json")["splits"]
            place = place / _split_among([name for name in names if Path(name).name == name], config)
        elif not ((place / "state.json").is_file() and (place / "dataset_info.json").is_file()):
            return None
        else:
            _split_among(["train"], config)
        return datasets.load_from_disk(str(place))
    except (*_LOAD_ERRORS, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AdaNATError(f"Data {place} cannot be opened: {_root_cause(error)}.") from error


def _load(shown: str, loader: str, **arguments: Any) -> Table:
    """Call ``datasets.load_dataset`` without its bars and with one-line errors."""
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        table: Table = datasets.load_dataset(loader, **arguments)
        return table
    except (*_LOAD_ERRORS, datasets.exceptions.DatasetsError) as error:
        raise AdaNATError(f"Data {shown} cannot be opened: {_root_cause(error)}.") from error
    finally:
        if not bars:
            datasets.enable_progress_bars()


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = scrub(str(error)).strip().splitlines() or [type(error).__name__]
    # The reason comes first or, after what could not be cast into what, last.
    return " … ".join(dict.fromkeys(line.strip().rstrip(".") for line in (lines[0], lines[-1])))[:300]


def as_bytes(table: Table, columns: Columns) -> Table:
    """Keep the needed columns, with images as bytes instead of pixels."""
    table = table.select_columns(sorted(columns.needed))
    if isinstance(table.features[columns.image], datasets.Image):
        table = table.cast_column(columns.image, datasets.Image(decode=False))
    return table


def labels(table: datasets.Dataset, columns: Columns, shown: str) -> tuple[Labels, dict[int, str], int]:
    """Read the class ids of all rows; labels that are words become classes in the order of their names.

    Returns:
        (rows,) ids, -1 where a row has no label and 0 where the table has none; the words' names, and their number.

    Raises:
        AdaNATError: if a value can be no label.
    """
    if not columns.label:
        return np.zeros(len(table), np.int64), {}, 0
    column = table.data.column(columns.label[0])
    for name in columns.label[1:]:
        column = pa.chunked_array([chunk.field(name) for chunk in column.chunks])
    if pa.types.is_signed_integer(column.type):
        return np.ascontiguousarray(column.fill_null(-1).to_numpy(), np.int64), dict(enumerate(columns.class_names)), 0
    if pa.types.is_floating(column.type):
        column = column.cast(pa.float64())  # half precision cannot be looked up
    values = column.unique().to_pylist()
    raw = [read_label(value) for value in values]
    wrong = [value for value, label in zip(values, raw, strict=True) if label is None and not _is_empty(value)]
    require(
        not wrong,
        f"Column {'.'.join(columns.label)!r} of {shown} holds {told(wrong[:1])}; expected whole numbers or "
        "names as labels.",
    )
    ids: dict[RawLabel, int] = {label: label for label in raw if isinstance(label, int)}
    names: dict[int, str] = {}
    num_classes = 0
    if any(isinstance(label, str) for label in raw):
        ids, names, num_classes = number_words(raw, shown)
    numbers = np.array([ids.get(label, -1) for label in raw], np.int64)
    places = pc.index_in(column, pa.array(values, column.type)).to_numpy()
    return numbers[places], names, num_classes


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or value != value


def fetch(table: datasets.Dataset, columns: Columns, row: int) -> tuple[bytes | Path | None, tuple[str, ...], str]:
    """Read the encoded image, captions and name of a row."""
    file, _, captions, name = _parse(table[row], columns, row)
    return file, captions, name


def captions_of(table: datasets.Dataset, columns: Columns, row: int) -> tuple[str, ...]:
    """Read the captions of a row and nothing else."""
    return texts(inside({columns.caption[0]: table.data.column(columns.caption[0])[row].as_py()}, columns.caption))


def rows(table: datasets.IterableDataset, columns: Columns, shown: str) -> Iterator[Row]:
    """Yield the rows of a stream from the start.

    Raises:
        AdaNATError: if the stream breaks off.
    """
    number = 0
    try:
        for number, values in enumerate(table):
            yield _parse(values, columns, number)
    except _LOAD_ERRORS as error:
        raise AdaNATError(f"The stream {shown} broke off after {number} rows: {_root_cause(error)}.") from error


def _parse(values: dict[str, Any], columns: Columns, number: int) -> Row:
    image = values[columns.image]
    path = ""
    if isinstance(image, dict):
        path, image = image.get("path") or "", image.get("bytes")
    file = image or (file_within(columns.roots, path) if path else None)
    captions = texts(inside(values, columns.caption))
    label = read_label(inside(values, columns.label))
    # Token sets list what cannot be read by name: where it lay on the machine that wrote the table tells nobody more.
    name = Path(path).name if Path(path).is_absolute() else path
    name = f"{name} (row {number})" if name else f"row {number}"
    return file, label, captions, name


def roots(config: DataConfig) -> tuple[str, ...]:
    """Folders that images may lie in where a table holds their paths: the data set's own, or the caches of the Hub."""
    place = config.place
    if config.is_here:
        folder = place if place.is_dir() else place.parent
        return str(folder.absolute()), str(folder.resolve())
    return str(datasets.config.HF_DATASETS_CACHE), str(datasets.config.DOWNLOADED_DATASETS_PATH), HF_HUB_CACHE
