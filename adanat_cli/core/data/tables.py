"""Tables and streams of the ``datasets`` library: which columns they have, and their rows as bytes."""

from __future__ import annotations

import importlib
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import numpy as np
import pyarrow as pa
from huggingface_hub.errors import HfHubHTTPError

from adanat_cli.core.config import DataConfig
from adanat_cli.core.data.folders import split_of
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.hub import explain, scrub

Table: TypeAlias = datasets.Dataset | datasets.IterableDataset
Row = tuple[bytes | Path | None, int | None, tuple[str, ...], str]
"""Encoded image, label, captions and name."""

_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "picture", "photo")
_LABEL_NAMES = ("label", "labels", "cls", "class", "class_id", "fine_label", "target", "category_id")
_CAPTION_NAMES = ("caption", "captions", "text", "txt", "prompt", "sentences", "sentences_raw", "sentence", "title")
_JSON_NAMES = ("json", "jsn")
_LOAD_ERRORS = (OSError, ValueError, tarfile.TarError, pa.ArrowException, HfHubHTTPError)


@dataclass(frozen=True)
class Columns:
    """Paths of the columns, outermost name first (``("json", "label")``); () where there is none."""

    image: str
    label: tuple[str, ...] = ()
    caption: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()

    @property
    def uses_captions(self) -> bool:
        """Whether captions, not labels, are the condition."""
        return bool(self.caption) and not self.label


def is_stream(table: Table) -> bool:
    """Tell a stream from a table with random access."""
    return isinstance(table, datasets.IterableDataset)


def data_files(place: Path, split: str) -> tuple[str, list[Path]] | None:
    """Find Parquet files or tars of a split.

    Returns:
        The loader's name and the files in order, or None if there are none.

    Raises:
        AdaNATError: if there are such files, but of other splits only.
    """
    loaders = {".parquet": "parquet", ".tar": "webdataset"}
    if place.is_file():
        return (loaders[place.suffix], [place]) if place.suffix in loaders else None
    for suffix, loader in loaders.items():
        found = [
            file
            for folder in (".", "data", "train", "val", "validation", "test")
            for file in sorted((place / folder).glob(f"*{suffix}"))
            if not file.name.startswith(".")
        ]
        if found:
            return loader, _of_split(found, split, place)
    return None


def _of_split(files: list[Path], split: str, place: Path) -> list[Path]:
    """Choose the files that their own or their folder's name gives to a split; unnamed ones are train."""
    splits: dict[str, list[Path]] = {}
    for file in files:
        folder = split_of(file.parent.name) if file.parent != place else ""
        splits.setdefault(split_of(file.name) or folder or "train", []).append(file)
    require(
        split in splits,
        f"{place} has no {split} files; it has {', '.join(sorted(splits))} "
        "(file names begin with the split, as in validation-00000.parquet).",
    )
    return splits[split]


def from_files(config: DataConfig, loader: str, files: list[Path]) -> Table:
    """Open Parquet files (a table, or a stream if asked for) or tars (always a stream).

    Raises:
        AdaNATError: if they cannot be read.
    """
    names = [str(file.resolve()) for file in files]
    # Tars have no index, so they are always streamed.
    streaming = config.streaming or loader == "webdataset"
    return _load(str(files[0].parent), loader, data_files={"train": names}, split="train", streaming=streaming)


def from_urls(config: DataConfig) -> datasets.IterableDataset:
    """Open tars by their addresses, ``https://host/train-{0000..0009}.tar``, as a stream.

    Raises:
        AdaNATError: if the first cannot be read, or the HTTP client is not installed.
    """
    try:
        importlib.import_module("aiohttp")
    except ImportError as error:
        raise AdaNATError(
            "Data by address needs aiohttp, which is not installed; try: pip install 'adanat[http]'."
        ) from error
    urls = expand_braces(config.source)
    return _load(config.source, "webdataset", data_files={"train": urls}, split="train", streaming=True)


def expand_braces(pattern: str) -> list[str]:
    """``a-{08..11}`` to ``a-08`` … ``a-11``, as shells and webdataset write ranges."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not found:
        return [pattern]
    first, last = found.groups()
    before, after = pattern[: found.start()], pattern[found.end() :]
    numbers = range(int(first), int(last) + 1)
    return [path for number in numbers for path in expand_braces(f"{before}{number:0{len(first)}d}{after}")]


def from_hub(config: DataConfig) -> Table:
    """Open a Hub data set ``user/name[@revision]``.

    Raises:
        AdaNATError: if it cannot be reached or has no such split.
    """
    name, _, revision = config.source.partition("@")
    try:
        return _load(name, name, revision=revision or None, split=config.split, streaming=config.streaming)
    except AdaNATError as error:
        if told := error.__cause__ and explain(error.__cause__):
            raise AdaNATError(f"Cannot open data set {config.source}: {told} --data-dir takes a local copy.") from error
        raise AdaNATError(
            f"{error} Check its name, the network and, for gated data, `hf auth login`; or give a local copy "
            "with --data-dir."
        ) from error


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
    return (scrub(str(error)).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def find_columns(table: Table, config: DataConfig) -> Columns:
    """Find image, label and caption columns by name and type; names in the configuration win.

    Raises:
        AdaNATError: if there is no image column, or a column that was named does not exist.
    """
    features = table.features
    if not features:
        raise AdaNATError(f"Data {config.source} does not tell its columns; read it without --streaming.")
    for asked in (config.image_column, config.label_column, config.caption_column):
        require(
            not asked or asked in features, f"{config.source} has no column {asked!r}; it has {', '.join(features)}."
        )
    image = config.image_column or _image_column(features)
    require(
        bool(image), f"{config.source} has no image column; it has {', '.join(features)} (name it: --image-column)."
    )
    label = (config.label_column,) if config.label_column else _find(features, _LABEL_NAMES, _is_label)
    caption = (config.caption_column,) if config.caption_column else _find(features, _CAPTION_NAMES, _is_caption)
    if config.caption_column and not config.label_column:
        label = ()
    names: list[str] = []
    if label:
        feature = features[label[0]] if len(label) == 1 else features[label[0]][label[1]]
        require(_is_label(feature), f"Column {label[-1]!r} of {config.source} holds {feature}; expected whole numbers.")
        names = list(getattr(feature, "names", None) or [])
    return Columns(image, label, caption, tuple(names))


def _image_column(features: datasets.Features) -> str:
    """The column with the Image feature, or one of a usual name that holds bytes; usual names first."""
    usual = [name for name in _IMAGE_NAMES if name in features]
    candidates = [*usual, *(name for name in features if name not in usual)]
    typed = [name for name in candidates if isinstance(features[name], datasets.Image)]
    return str((typed or [name for name in candidates if _holds_bytes(features[name])] or [""])[0])


def _holds_bytes(feature: Any) -> bool:
    if isinstance(feature, dict):
        return "bytes" in feature and _holds_bytes(feature["bytes"])
    return getattr(feature, "dtype", "") in ("binary", "large_binary")


def _is_label(feature: Any) -> bool:
    return isinstance(feature, datasets.ClassLabel) or "int" in str(getattr(feature, "dtype", ""))


def _is_caption(feature: Any) -> bool:
    inner = getattr(feature, "feature", feature)
    return getattr(inner, "dtype", "") in ("string", "large_string")


def _find(features: Any, names: tuple[str, ...], fits: Any) -> tuple[str, ...]:
    """Path to the first column with a usual name and a fitting type, also inside a ``json`` column."""
    for name in names:
        if name in features and fits(features[name]):
            return (name,)
    for json in _JSON_NAMES:
        if isinstance(features.get(json), dict) and (inside := _find(features[json], names, fits)):
            return (json, *inside)
    return ()


def as_bytes(table: Table, columns: Columns) -> Table:
    """Keep the needed columns, with images as bytes instead of pixels."""
    needed = {path[0] for path in ((columns.image,), columns.label, columns.caption) if path}
    keys = {"__key__"} & set(table.column_names or [])
    table = table.select_columns(sorted(needed | keys))
    if isinstance(table.features[columns.image], datasets.Image):
        table = table.cast_column(columns.image, datasets.Image(decode=False))
    return table


def labels(table: datasets.Dataset, columns: Columns) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """(rows,) class ids, -1 where there is none; zeros where the table has no labels."""
    if not columns.label:
        return np.zeros(len(table), np.int64)
    column = table.data.column(columns.label[0])
    for name in columns.label[1:]:
        column = pa.chunked_array([chunk.field(name) for chunk in column.chunks])
    values = column.fill_null(-1).to_numpy()
    return np.ascontiguousarray(values, np.int64)


def fetch(table: datasets.Dataset, columns: Columns, row: int) -> tuple[bytes | Path | None, tuple[str, ...], str]:
    """Read the encoded image, captions and name of a row."""
    file, _, captions, name = _parse(table[row], columns, row)
    return file, captions, name


def captions_of(table: datasets.Dataset, columns: Columns, row: int) -> tuple[str, ...]:
    """Read the captions of a row and nothing else."""
    return _texts(_inside({columns.caption[0]: table.data.column(columns.caption[0])[row].as_py()}, columns.caption))


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
    file = image if image or not path else Path(path)
    captions = _texts(_inside(values, columns.caption))
    label = _inside(values, columns.label)
    # Token sets list what cannot be read by name: where it lay on the machine that wrote the table tells nobody more.
    name = values.get("__key__") or (Path(path).name if Path(path).is_absolute() else path)
    name = f"{name} (row {number})" if name else f"row {number}"
    return file, None if label is None else int(label), captions, name


def _texts(value: Any) -> tuple[str, ...]:
    """One caption, several captions of one image, or none."""
    texts = value if isinstance(value, list) else [value]
    return tuple(text.strip() for text in texts if text)


def _inside(values: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        values = None if values is None else values[name]
    return values if path else None
