"""Tables of the ``datasets`` library: Parquet files, saved data sets and those of the Hub, opened as sources.

The library is loaded by those who open such a table, for it takes long to load.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

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
    holds_words,
    image_column,
    inside,
    is_feature,
    is_number,
    shortened,
    texts,
)
from adanat_cli.core.data.described import listed
from adanat_cli.core.data.image_source import ImageSource, TableSource, stream_source
from adanat_cli.core.data.labels import ClassIds, class_ids, count_classes, read_label
from adanat_cli.core.data.records import Row
from adanat_cli.core.data.source_files import SourceFiles, file_within
from adanat_cli.core.data.splits import split_of
from adanat_cli.core.errors import AdaNATError, MissingSplit, printable, require
from adanat_cli.core.hub import explain, scrub
from adanat_cli.core.reading import read_object

if TYPE_CHECKING:
    import datasets

    Table: TypeAlias = datasets.Dataset | datasets.IterableDataset

_LOAD_ERRORS = (OSError, ValueError, tarfile.TarError, pa.ArrowException, HfHubHTTPError)
_SCHEMA_ERRORS = (*_LOAD_ERRORS, KeyError, TypeError, AttributeError, NotImplementedError, RecursionError)
"""Those, and what ``datasets`` raises on descriptions of columns that make no sense."""


def open_parquet(config: DataConfig, files: list[Path]) -> ImageSource:
    """Open Parquet files, as a table, or as a stream if asked for.

    Raises:
        AdaNATError: if they cannot be read, or differ in the columns that are needed.
    """
    features = _common_features(config, files)
    table = _load(
        str(files[0].parent),
        "parquet",
        data_files={"train": [str(file.resolve()) for file in files]},
        split="train",
        streaming=config.streaming,
        columns=list(features),
        features=features,
    )
    return _open(config, table, SourceFiles.of(config.path, files), pq.read_schema(files[0]).names, files)


def _common_features(config: DataConfig, files: list[Path]) -> datasets.Features:
    """The types of the needed columns, which all files share; whole numbers may be of any width.

    Raises:
        AdaNATError: naming file and column, if they differ.
    """
    import datasets

    needed = datasets.Features()
    for file in files:
        try:
            features = _features(file)
        except _SCHEMA_ERRORS as error:
            raise AdaNATError(
                f"Data {file.parent} cannot be opened: {file.name}: {_root_cause(error)}; repair or replace it."
            ) from error
        if not needed:
            columns = find_columns(features, config)
            needed = datasets.Features({name: features[name] for name in sorted(columns.needed)})
        for name, kind in needed.items():
            there = features.get(name)
            if there == kind or (_is_struct(there) and _is_struct(kind)):
                continue
            require(
                isinstance(kind, datasets.Value) and is_number(kind) and dtype_of(there).startswith(("int", "uint")),
                f"Column {name!r} is {shortened(there)} in {file.name}, but {shortened(kind)} in {files[0].name}; "
                "write both the same way.",
            )
            needed[name] = datasets.Value("int64")
    return needed


def _features(file: Path) -> datasets.Features:
    """The types of a Parquet file's columns; what pandas keeps as categories counts as their values."""
    import datasets

    schema = pq.read_schema(file)
    for number, column in enumerate(schema):
        if pa.types.is_dictionary(column.type):
            schema = schema.set(number, column.with_type(column.type.value_type))
    return datasets.Features.from_arrow_schema(schema)


def lacks_images(file: Path) -> bool:
    """Whether no column of a Parquet file can be one of images; damage is left for its reader to report."""
    try:
        return not image_column(_features(file))
    except _SCHEMA_ERRORS:
        return False


def _is_struct(feature: Any) -> bool:
    """Whether images are kept as bytes and path, typed or not."""
    return is_feature(feature, "Image") or (isinstance(feature, dict) and holds_bytes(feature))


def open_on_hub(config: DataConfig) -> ImageSource:
    """Open a Hub data set ``user/name[@revision]``.

    Raises:
        MissingSplit: if it has no such split.
        AdaNATError: if it cannot be reached or read.
    """
    name, _, revision = config.source.partition("@")
    asked: dict[str, Any] = {"revision": revision or None, "streaming": config.streaming}
    try:
        table = _load(name, name, split=config.split, **asked)
    except AdaNATError as error:
        if isinstance(error.__cause__, ValueError) and (there := _splits_on_hub(name, revision)):
            split = _split_among(there, config)
            if split != config.split:
                return _open(config, _load(name, name, split=split, **asked))
        first = f"No file or folder here is called {name}."
        if reason := error.__cause__ and explain(error.__cause__):
            raise AdaNATError(
                f"{first} Cannot open data set {config.source}: {reason} --data-dir takes a local copy."
            ) from error
        raise AdaNATError(
            f"{first} {error} Check its name, the network and, for gated data, `hf auth login`; or give a local copy "
            "with --data-dir."
        ) from error
    return _open(config, table)


def _splits_on_hub(name: str, revision: str) -> list[str]:
    """Names of the splits; none if the Hub does not list them."""
    import datasets

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


def open_saved(config: DataConfig) -> ImageSource | None:
    """Open what ``datasets`` has saved with ``save_to_disk``; None if it is something else.

    Raises:
        MissingSplit: if it has no such split.
        AdaNATError: if it is damaged.
    """
    folder = config.path
    try:
        if (folder / "dataset_dict.json").is_file():
            names = read_object(folder / "dataset_dict.json")["splits"]
            folder = folder / _split_among([name for name in names if Path(name).name == name], config)
        elif (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
            _split_among(["train"], config)
        else:
            return None
        import datasets

        table = datasets.load_from_disk(str(folder))
    except (*_LOAD_ERRORS, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AdaNATError(f"Data {folder} cannot be opened: {_root_cause(error)}; save or fetch it again.") from error
    return _open(config, table, SourceFiles.of(config.path, sorted(config.path.rglob("*.arrow"))))


def _load(shown: str, loader: str, **arguments: Any) -> Table:
    """Call ``datasets.load_dataset`` without its bars and with one-line errors."""
    import datasets

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


def _open(
    config: DataConfig,
    opened: Table,
    files: SourceFiles | None = None,
    all_columns: Sequence[str] = (),
    parquet: Sequence[Path] = (),
) -> ImageSource:
    """Make a source of a table or stream, which may lack some of the columns that its files have."""
    import datasets

    require(bool(opened.features), f"Data {config.source} does not list its columns; read it without --streaming.")
    columns = find_columns(opened.features, config)
    needed = opened.select_columns(sorted(columns.needed))
    if isinstance(needed.features[columns.image], datasets.Image):  # as bytes instead of pixels
        needed = needed.cast_column(columns.image, datasets.Image(decode=False))
    table = _Rows(needed, columns, _roots(config), config.source, tuple(parquet))
    if isinstance(opened, datasets.IterableDataset):
        names = dict(enumerate(columns.class_names))
        count = table.count if table.can_skip else None
        return stream_source(config, table.stream, columns, names, count_rows=count, files=files)
    labels, names, num_named = table.labels()
    require(len(labels) > 0, f"{config.source} ({config.split}) holds no images; give other data.")
    notes: list[str] = []
    if num_bare := int((labels < 0).sum()):
        notes.append(f"{num_bare} without a label")
    unread = [printable(name) for name in all_columns or opened.features if name != columns.image]
    if unread and not columns.label and not columns.caption:
        notes.append(f"not read: {listed(unread)} (--label-column and --caption-column take a column)")
    return TableSource(
        config=config,
        fetch=table.fetch,
        labels=labels,
        rows=np.arange(len(labels)),
        class_names=names,
        num_classes=count_classes(config, labels, max(num_named, len(names))),
        has_captions=columns.uses_captions,
        read_captions=table.captions if columns.uses_captions else None,
        notes=tuple(notes),
        files=files,
        has_words=holds_words(opened.features, columns),
    )


def _roots(config: DataConfig) -> tuple[str, ...]:
    """Folders that images may lie in where a table holds their paths: the data set's own, or the caches of the Hub."""
    import datasets

    if config.is_here:
        folder = config.path if config.path.is_dir() else config.path.parent
        return str(folder.absolute()), str(folder.resolve())
    return str(datasets.config.HF_DATASETS_CACHE), str(datasets.config.DOWNLOADED_DATASETS_PATH), HF_HUB_CACHE


@dataclass(frozen=True)
class _Rows:
    """The rows of a table or stream of the needed columns.

    Attributes:
        roots: folders that images may lie in.
        shown: name of the data in messages.
        parquet: files on this machine that a stream reads, in order; empty where it reads others.
    """

    table: Table
    columns: Columns
    roots: tuple[str, ...]
    shown: str
    parquet: tuple[Path, ...] = ()

    def fetch(self, row: int) -> Row:
        """Read a row of a table."""
        return self._parse(self.table[row], row)

    def captions(self, row: int) -> tuple[str, ...]:
        """Read the captions of a row and nothing else."""
        name, path = self.columns.caption[0], self.columns.caption
        return texts(inside({name: self.table.data.column(name)[row].as_py()}, path))

    @property
    def can_skip(self) -> bool:
        """Whether a stream can begin at a row group: with Parquet files here, and a library that has ``reshard``."""
        return bool(self.parquet) and hasattr(self.table, "reshard")

    def count(self) -> int:
        """Number of rows of the Parquet files."""
        return int(self._ends[-1])

    @cached_property
    def _ends(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Rows up to the end of each row group of all Parquet files, and 0 in front."""
        described = map(pq.read_metadata, self.parquet)
        rows = [about.row_group(group).num_rows for about in described for group in range(about.num_row_groups)]
        return np.cumsum([0, *rows])

    def _from_row_group(self, start: int) -> tuple[Table, int]:
        """The stream from the row group that holds a row, and the number of that group's first row."""
        group = int(np.searchsorted(self._ends, start, side="right")) - 1
        table = self.table.reshard()  # a shard a row group
        state = table.state_dict()
        inner = state
        while "shard_idx" not in inner:
            inner = inner.get("examples_iterable")
            if inner is None:  # a version of the library that notes its place in another way
                return self.table, 0
        inner["shard_idx"] = group
        table.load_state_dict(state)
        return table, int(self._ends[group])

    def stream(self, start: int = 0) -> Iterator[Row]:
        """Yield the rows of a stream from a position on; whole row groups before it are not read."""
        number = 0
        try:
            table, first = self._from_row_group(start) if start and self.can_skip else (self.table, 0)
            for number, values in enumerate(table, first):
                if number >= start:
                    yield self._parse(values, number)
        except _LOAD_ERRORS as error:
            raise AdaNATError(
                f"The stream {self.shown} broke off after {number} rows: {_root_cause(error)}; try again."
            ) from error

    def labels(self) -> tuple[ClassIds, dict[int, str], int]:
        """Read the class ids of all rows; labels that are words become classes in the order of their names.

        Returns:
            (rows,) ids, -1 where a row has no label and 0 where the table has none; class id to name; and the number
            of classes if labels are words, else 0.
        """
        path = self.columns.label
        if not path:
            return np.zeros(len(self.table), np.int64), {}, 0
        column = self.table.data.column(path[0])
        for name in path[1:]:
            column = pa.chunked_array([chunk.field(name) for chunk in column.chunks])
        if pa.types.is_signed_integer(column.type):
            ids = np.ascontiguousarray(column.fill_null(-1).to_numpy(), np.int64)
            return ids, dict(enumerate(self.columns.class_names)), 0
        if pa.types.is_floating(column.type):
            column = column.cast(pa.float64())  # half precision cannot be looked up
        values = column.unique().to_pylist()
        raw = [read_label(value) for value in values]
        unread = [value for value, label in zip(values, raw, strict=True) if label is None]
        wrong = [value for value in unread if value not in (None, "") and value == value]  # NaN is an empty cell
        require(
            not wrong,
            f"Column {'.'.join(path)!r} of {self.shown} holds {shortened(wrong[:1])}; expected whole numbers or names "
            "as labels.",
        )
        ids, names, num_classes = class_ids(raw, self.shown)
        return ids[pc.index_in(column, pa.array(values, column.type)).to_numpy()], names, num_classes

    def _parse(self, values: dict[str, Any], number: int) -> Row:
        image = values[self.columns.image]
        path = ""
        if isinstance(image, dict):
            path, image = image.get("path") or "", image.get("bytes")
        file = image or (file_within(self.roots, path) if path else None)
        # Token sets list unreadable images by name; the folder on the machine that wrote the table is not part of it.
        name = Path(path).name if Path(path).is_absolute() else path
        name = f"{name} (row {number})" if name else f"row {number}"
        captions = texts(inside(values, self.columns.caption))
        return Row(file, captions, name, read_label(inside(values, self.columns.label)))
