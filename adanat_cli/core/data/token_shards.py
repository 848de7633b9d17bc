"""The shards of a token set: Parquet files that ``datasets.load_dataset`` opens, checked as they are read."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adanat_cli.core.config.base import Bounds, check_fields
from adanat_cli.core.config.data import DATA_PRESETS
from adanat_cli.core.config.schema import build, conform
from adanat_cli.core.errors import AdaNATError, hide_secrets, printable, require
from adanat_cli.core.reading import parse_json, read_object, sha256_of

_Size = Annotated[int, Bounds(1, 2**20)]
Ids = np.ndarray[tuple[int, ...], np.dtype[np.uint16]]
Labels = np.ndarray[tuple[int, ...], np.dtype[np.int64]]

SUMMARY = "token_set.json"
"""Written when all shards are there."""
LARGEST_SUMMARY = 2**28
"""Bytes; it lists all images that could not be read."""
_AGAIN = "remove it and run the same `adanat tokenize` again, or fetch it again"


@dataclass(frozen=True)
class TokenSetInfo:
    """What the ids of a set mean.

    Attributes:
        image_size: side of the images, in pixels.
        grid: (h, w) tokens of an image; N = h * w.
        codebook_size: K.
        tokenizer_fingerprint: hash of the tokenizer's weights.
        condition: "class" or "text".
        num_classes: classes of the label numbering.
        has_flips: whether the flipped images' ids are there too.
        class_names: class id to name.
        source: the data set, for people.
        text_encoder, text_fingerprint, text_width, text_length: name and shape of the encoder whose states of the
            captions lie beside the shards; "" and 0 where there are none. An encoder that was a
            folder is named by it, and lies in ``text/``.
    """

    image_size: _Size
    grid: Annotated[tuple[int, int], Bounds(1, 2**20)]
    codebook_size: Annotated[int, Bounds(1, 2**16)]
    tokenizer_fingerprint: str
    condition: Literal["class", "text"]
    num_classes: _Size
    has_flips: bool
    class_names: Mapping[int, str] = field(default_factory=dict)
    source: str = ""
    text_encoder: str = ""
    text_fingerprint: str = ""
    text_width: int = 0
    text_length: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        require(self.num_tokens <= 2**20, f"{self.num_tokens:,} tokens per image; expected at most 1,048,576.")

    @property
    def num_tokens(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]

    def instead_of(self, dataset: str) -> str:
        """A line where the images were others than those of a data set, as far as the last part of its name tells."""
        named, ours = hide_secrets(dataset), self.source.rpartition(" (")[0]
        source = DATA_PRESETS.get(dataset, {}).get("source", named)
        if not ours or Path(ours).name == printable(Path(os.path.abspath(os.path.expanduser(source))).name):
            return ""
        return f"The tokens are those of {self.source}, not of {named}, which is not read here."

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        names = {str(label): name for label, name in self.class_names.items()}
        return {**self.__dict__, "grid": list(self.grid), "class_names": names}


@dataclass(frozen=True)
class Shard:
    """One file of a set: the images of a fixed range of the source.

    Attributes:
        plan: settings that decide the content of all shards, to distinguish one run's shards from another's.
        start, stop: range of the source, before unreadable images are left out.
        skipped: unreadable images, name to reason.
        skipped_at: their positions in the source.
        tokens: (n, N) ids.
        tokens_flipped: (n, N) ids of the flipped images, or None.
        labels: (n,) class ids.
        captions: the captions of each of the n images, at least one.
    """

    plan: Mapping[str, Any]
    start: int
    stop: int
    skipped: Mapping[str, str]
    tokens: Ids
    tokens_flipped: Ids | None
    labels: Labels
    captions: Sequence[Sequence[str]] = ()
    skipped_at: Sequence[int] = ()


@dataclass(frozen=True)
class ShardHeader:
    """The metadata of a shard; see ``Shard``.

    Attributes:
        skipped_at: None in shards of older versions, which do not record it.
    """

    info: TokenSetInfo
    plan: Mapping[str, Any]
    start: int
    stop: int
    skipped: Mapping[str, str]
    num_rows: int
    skipped_at: tuple[int, ...] | None = None


def write_shard(path: Path, info: TokenSetInfo, shard: Shard) -> None:
    """Write one shard; the same content gives the same bytes."""
    ids = pa.list_(pa.uint16(), info.num_tokens)
    feature = {"feature": {"dtype": "uint16", "_type": "Value"}, "length": info.num_tokens, "_type": "List"}
    columns: dict[str, pa.Array] = {"tokens": _ids_array(shard.tokens, ids)}
    features: dict[str, Any] = {"tokens": feature}
    if shard.tokens_flipped is not None:
        columns["tokens_flipped"] = _ids_array(shard.tokens_flipped, ids)
        features["tokens_flipped"] = feature
    if info.condition == "text":
        columns["caption"] = pa.array(list(map(list, shard.captions)), pa.list_(pa.string()))
        features["caption"] = {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}
    else:
        columns["label"] = pa.array(shard.labels, pa.int64())
        features["label"] = _label_feature(info)
    about = {"plan": shard.plan, "start": shard.start, "stop": shard.stop, "skipped": shard.skipped}
    if shard.skipped:
        about["skipped_at"] = list(shard.skipped_at)
    metadata = {
        b"huggingface": json.dumps({"info": {"features": features}}),
        b"adanat": json.dumps(info.to_json(), sort_keys=True),
        b"adanat_shard": json.dumps(about, sort_keys=True),
    }
    table = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(
        table, path, compression="zstd", use_dictionary=False, write_statistics=False, write_page_checksum=True
    )


def _ids_array(ids: Ids, kind: pa.DataType) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(ids.reshape(-1)), type=kind)


def _label_feature(info: TokenSetInfo) -> dict[str, Any]:
    """A ClassLabel in which each class id has a name of its own."""
    names = [info.class_names.get(label, "") for label in range(info.num_classes)]
    occurrences = Counter(names)
    distinct = [
        name if name and occurrences[name] == 1 else f"{name or 'class'} ({label})" for label, name in enumerate(names)
    ]
    return {"names": distinct, "_type": "ClassLabel"}


def read_header(path: Path) -> ShardHeader:
    """Read the metadata of a shard.

    Raises:
        AdaNATError: if the file is damaged or is not a shard of a token set.
    """
    try:
        with pq.ParquetFile(path) as file:
            metadata, num_rows = file.schema_arrow.metadata or {}, file.metadata.num_rows
        about = parse_json(metadata[b"adanat_shard"], str(path))
        about |= {"info": parse_json(metadata[b"adanat"], str(path)), "num_rows": num_rows}
        return build(ShardHeader, about, str(path))
    except (AdaNATError, OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise AdaNATError(
            f"{path} is not a complete shard of a token set; remove it and run `adanat tokenize` again."
        ) from error


def read_summary(folder: Path) -> dict[str, Any]:
    """Read the summary of a token set; ``sha256`` is empty in those of older versions.

    Raises:
        AdaNATError: if it is damaged.
    """
    summary = read_object(folder / SUMMARY, LARGEST_SUMMARY)
    summary["sha256"] = conform(summary.get("sha256", {}), Mapping[str, str], f"{folder / SUMMARY}: sha256")
    return summary


def shard_files(folder: Path) -> list[Path]:
    """Shards of a folder, in order."""
    return sorted(folder.glob("tokens-*.parquet"))


def check_sha256(file: Path, sha256: str | None) -> None:
    """Refuse a file whose hash is not the recorded one; None where none was recorded."""
    require(
        sha256 is None or sha256 == sha256_of(file),
        f"{file} is not what was written (its sha256 differs from that in token_set.json); {_AGAIN}.",
    )


def read_rows(file: Path, info: TokenSetInfo, sha256: str | None = None) -> pa.Table:
    """Read a shard's rows; ``sha256`` is the hash in the set's summary, None in sets of older versions.

    Raises:
        AdaNATError: if the shard is damaged, or holds ids that the tokenizer or the classes do not have.
    """
    try:
        check_sha256(file, sha256)
        # ``pq.read_table`` would load pandas, which takes 45 MB.
        with pq.ParquetFile(file, page_checksum_verification=True) as shard:
            table = shard.read()
    except (OSError, pa.ArrowException) as error:
        raise AdaNATError(f"{file} is damaged ({error}); {_AGAIN}.") from error
    for name in ("tokens", "tokens_flipped") if info.has_flips else ("tokens",):
        _check_column(file, table, name, pa.list_(pa.uint16(), info.num_tokens))
        _check_range(file, table[name], "token id", info.codebook_size, f"codebook has {info.codebook_size:,}")
    if info.condition == "class":
        _check_column(file, table, "label", pa.int64())
        _check_range(file, table["label"], "label", info.num_classes, f"set has {info.num_classes:,} classes")
    else:
        _check_column(file, table, "caption", pa.list_(pa.string()), pa.string())
    return table


def _check_column(file: Path, table: pa.Table, name: str, *kinds: pa.DataType) -> None:
    require(name in table.column_names, f"{file} has no column {name}; {_AGAIN}.")
    column = table[name]
    # The name of a list's items does not count.
    require(
        any(_plain(column.type) == _plain(kind) for kind in kinds) and column.null_count == 0,
        f"Column {name} of {file} is {column.type} with {column.null_count} empty rows; expected {kinds[0]}; {_AGAIN}.",
    )


def _plain(kind: pa.DataType) -> tuple[Any, ...]:
    if pa.types.is_fixed_size_list(kind):
        return (kind.list_size, kind.value_type)
    return ("list", kind.value_type) if pa.types.is_list(kind) else (kind,)


def _check_range(file: Path, column: pa.ChunkedArray, what: str, limit: int, there: str) -> None:
    """Refuse values outside 0 … limit - 1."""
    bounds = pc.min_max(pc.list_flatten(column) if pa.types.is_fixed_size_list(column.type) else column).as_py()
    least, most = bounds["min"] or 0, bounds["max"] or 0  # None if there are no values
    wrong = least if least < 0 else most
    require(least >= 0 and most < limit, f"{file} holds {what} {wrong}, but the {there}; {_AGAIN}.")
