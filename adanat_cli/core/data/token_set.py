"""Sets of token ids on disk: Parquet shards that ``datasets.load_dataset`` opens."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adanat_cli.core.errors import AdaNATError, require

Ids = np.ndarray[tuple[int, ...], np.dtype[np.uint16]]
Labels = np.ndarray[tuple[int, ...], np.dtype[np.int64]]

SUMMARY = "token_set.json"
"""Written when all shards are there."""


@dataclass(frozen=True)
class TokenSetInfo:
    """What the ids of a set mean.

    Attributes:
        image_size: side of the images, in pixels.
        grid: (h, w) tokens of an image; N = h * w.
        codebook_size: K.
        tokenizer_fingerprint: of the tokenizer's weights.
        condition: "class" or "text".
        num_classes: classes of the label numbering.
        has_flips: whether the flipped images' ids are there too.
        class_names: class id to name.
        source: the data set, for people.
    """

    image_size: int
    grid: tuple[int, int]
    codebook_size: int
    tokenizer_fingerprint: str
    condition: str
    num_classes: int
    has_flips: bool
    class_names: Mapping[int, str] = field(default_factory=dict)
    source: str = ""

    @property
    def num_tokens(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        names = {str(label): name for label, name in self.class_names.items()}
        return {**self.__dict__, "grid": list(self.grid), "class_names": names}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TokenSetInfo:
        """Undo ``to_json``."""
        names = {int(label): name for label, name in values["class_names"].items()}
        return cls(**{**values, "grid": tuple(values["grid"]), "class_names": names})


@dataclass(frozen=True)
class Shard:
    """One file of a set: the images of a fixed range of the source.

    Attributes:
        plan: what decides the content of every shard, for telling one run's shards from another's.
        start, stop: range of the source, before unreadable images are left out.
        skipped: unreadable images, name to reason.
        tokens: (n, N) ids.
        tokens_flipped: (n, N) ids of the flipped images, or None.
        labels: (n,) class ids.
        captions: n captions.
    """

    plan: Mapping[str, Any]
    start: int
    stop: int
    skipped: Mapping[str, str]
    tokens: Ids
    tokens_flipped: Ids | None
    labels: Labels
    captions: Sequence[str] = ()


@dataclass(frozen=True)
class ShardHeader:
    """What a shard says of itself without its rows."""

    info: TokenSetInfo
    plan: Mapping[str, Any]
    start: int
    stop: int
    skipped: Mapping[str, str]
    num_rows: int


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
        columns["caption"] = pa.array(list(shard.captions), pa.string())
        features["caption"] = {"dtype": "string", "_type": "Value"}
    else:
        columns["label"] = pa.array(shard.labels, pa.int64())
        features["label"] = _label_feature(info)
    about = {"plan": shard.plan, "start": shard.start, "stop": shard.stop, "skipped": shard.skipped}
    metadata = {
        b"huggingface": json.dumps({"info": {"features": features}}),
        b"adanat": json.dumps(info.to_json(), sort_keys=True),
        b"adanat_shard": json.dumps(about, sort_keys=True),
    }
    table = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)


def _ids_array(ids: Ids, kind: pa.DataType) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(ids.reshape(-1)), type=kind)


def _label_feature(info: TokenSetInfo) -> dict[str, Any]:
    """ClassLabel where every id of the numbering has a name of its own."""
    names = [info.class_names.get(label, "") for label in range(info.num_classes)]
    occurrences = Counter(names)
    distinct = [
        name if name and occurrences[name] == 1 else f"{name or 'class'} ({label})" for label, name in enumerate(names)
    ]
    return {"names": distinct, "_type": "ClassLabel"}


def read_header(path: Path) -> ShardHeader:
    """Read what a shard says of itself.

    Raises:
        AdaNATError: if the file is damaged or is no shard of a token set.
    """
    try:
        with pq.ParquetFile(path) as file:
            metadata, num_rows = file.schema_arrow.metadata or {}, file.metadata.num_rows
        about = json.loads(metadata[b"adanat_shard"])
        return ShardHeader(TokenSetInfo.from_json(json.loads(metadata[b"adanat"])), num_rows=num_rows, **about)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise AdaNATError(
            f"{path} is not a whole shard of a token set; remove it and run `adanat tokenize` again."
        ) from error


def shard_files(folder: Path) -> list[Path]:
    """Shards of a folder, in order."""
    return sorted(folder.glob("tokens-*.parquet"))


@dataclass(frozen=True)
class TokenSet:
    """A whole set in memory.

    Attributes:
        info: what the ids mean.
        tokens: (n, N) ids.
        tokens_flipped: (n, N) ids of the flipped images; None where the set has none.
        labels: (n,) class ids; zeros where the condition is text.
    """

    info: TokenSetInfo
    tokens: Ids
    tokens_flipped: Ids | None
    labels: Labels
    _captions: pa.ChunkedArray | None = None

    @classmethod
    def open(cls, path: Path | str) -> TokenSet:
        """Read all shards of a folder.

        Raises:
            AdaNATError: if there are none, one is damaged or missing, or they do not belong together.
        """
        folder = Path(path)
        require(folder.is_dir(), f"Token set {folder} is not a folder; give the one that `adanat tokenize` wrote.")
        files = shard_files(folder)
        require(bool(files), f"{folder} holds no token shards (tokens-*.parquet); make them with `adanat tokenize`.")
        require(
            (folder / SUMMARY).exists(),
            f"{folder} is not complete: {SUMMARY} is missing; run the same `adanat tokenize` again to finish it.",
        )
        headers = [read_header(file) for file in files]
        first = headers[0]
        for file, header, start in zip(files, headers, [0, *(header.stop for header in headers)], strict=False):
            require(
                header.info == first.info and header.plan == first.plan,
                f"{file.name} belongs to another token set than {files[0].name}; keep one set in {folder}.",
            )
            require(header.start == start, f"A shard is missing before {file} (images {start} to {header.start - 1}).")
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        require(
            summary.get("num_shards") == len(files),
            f"{folder} holds {len(files)} shards, but {SUMMARY} tells of {summary.get('num_shards')}; run the same "
            "`adanat tokenize` again.",
        )
        try:
            table = pa.concat_tables([pq.read_table(file) for file in files])
            return cls._from_table(first.info, table)
        except (OSError, KeyError, pa.ArrowException) as error:
            raise AdaNATError(f"The shards of {folder} cannot be read: {error}.") from error

    @classmethod
    def _from_table(cls, info: TokenSetInfo, table: pa.Table) -> TokenSet:
        flipped = _ids(table, "tokens_flipped", info) if info.has_flips else None
        if info.condition == "text":
            return cls(info, _ids(table, "tokens", info), flipped, np.zeros(len(table), np.int64), table["caption"])
        labels = np.ascontiguousarray(table["label"].to_numpy(), np.int64)
        return cls(info, _ids(table, "tokens", info), flipped, labels)

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, indices: Labels, flipped: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[Labels, Labels]:
        """Return images by index.

        Args:
            indices: (B,).
            flipped: (B,) bool, which of them come flipped; no effect where the set has no flips.

        Returns:
            (B, N) int64 ids and (B,) int64 labels.
        """
        ids = self.tokens[indices]
        if self.tokens_flipped is not None:
            ids = np.where(flipped[:, None], self.tokens_flipped[indices], ids)
        return ids.astype(np.int64), self.labels[indices]

    def captions(self, indices: Labels) -> list[str]:
        """Return captions by index.

        Raises:
            AdaNATError: if the set has labels instead.
        """
        if self._captions is None:
            raise AdaNATError("This token set has class labels, not captions.")
        return [str(caption) for caption in self._captions.take(pa.array(indices)).to_pylist()]


def _ids(table: pa.Table, name: str, info: TokenSetInfo) -> Ids:
    """A column of fixed-size lists as (n, N), chunk by chunk into one array."""
    ids = np.empty((len(table), info.num_tokens), np.uint16)
    row = 0
    for chunk in table[name].chunks:
        ids[row : row + len(chunk)] = chunk.flatten().to_numpy().reshape(-1, info.num_tokens)
        row += len(chunk)
    return ids
