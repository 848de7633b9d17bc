"""Sets of token ids on disk: Parquet shards that ``datasets.load_dataset`` opens."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adanat_cli.core.config.base import require_within
from adanat_cli.core.config.schema import build, conform
from adanat_cli.core.data.caption_states import NULL_STATES, CaptionStates, states_file
from adanat_cli.core.data.token_rows import check_sha256, read_rows
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.reading import parse_json, read_object

Ids = np.ndarray[tuple[int, ...], np.dtype[np.uint16]]
Labels = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Draws = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

SUMMARY = "token_set.json"
"""Written when all shards are there."""
_HASHED_STATES = 2**32
"""Bytes of encoded captions that are hashed when a set is opened: seconds. Of more, shapes are checked."""
_LARGEST_SUMMARY = 2**28
"""Bytes; it names every image that could not be read."""


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
        text_encoder, text_fingerprint, text_width, text_length: of the encoder whose states of the captions lie
            beside the shards; "" and 0 where there are none. A folder is named by its last name, and lies in ``text/``.
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
    text_encoder: str = ""
    text_fingerprint: str = ""
    text_width: int = 0
    text_length: int = 0

    def __post_init__(self) -> None:
        sizes = {"image_size": self.image_size, "grid": min(self.grid), "num_classes": self.num_classes}
        for name, value in sizes.items():
            require_within(name, value, 1, 2**20)
        require_within("codebook_size", self.codebook_size, 1, 2**16)
        require(self.num_tokens <= 2**20, f"{self.num_tokens:,} tokens an image are too many.")
        require(self.condition in ("class", "text"), f"condition is {self.condition!r}; expected class or text.")

    @property
    def num_tokens(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        names = {str(label): name for label, name in self.class_names.items()}
        return {**self.__dict__, "grid": list(self.grid), "class_names": names}


@dataclass(frozen=True)
class Shard:
    """One file of a set: the images of a fixed range of the source.

    Attributes:
        plan: what decides the content of every shard, for telling one run's shards from another's.
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
    """What a shard says of itself without its rows; see ``Shard``.

    Attributes:
        skipped_at: None in shards of older editions, which do not tell.
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
        about = parse_json(metadata[b"adanat_shard"], str(path))
        about |= {"info": parse_json(metadata[b"adanat"], str(path)), "num_rows": num_rows}
        return build(ShardHeader, about, str(path))
    except (AdaNATError, OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise AdaNATError(
            f"{path} is not a whole shard of a token set; remove it and run `adanat tokenize` again."
        ) from error


def recorded_hashes(folder: Path) -> dict[str, str]:
    """The sha256 of each shard by its name, as the summary notes it; empty where it notes none.

    Raises:
        AdaNATError: if the summary is damaged.
    """
    noted = read_object(folder / SUMMARY, _LARGEST_SUMMARY).get("sha256", {})
    hashes: dict[str, str] = conform(noted, Mapping[str, str], f"{folder / SUMMARY}: sha256")
    return hashes


def shard_files(folder: Path) -> list[Path]:
    """Shards of a folder, in order."""
    return sorted(folder.glob("tokens-*.parquet"))


@dataclass(frozen=True)
class TokenSet:
    """A whole set in memory, but for the states of encoded captions, which stay on disk.

    Attributes:
        info: what the ids mean.
        tokens: (n, N) ids.
        tokens_flipped: (n, N) ids of the flipped images; None where the set has none.
        labels: (n,) class ids; zeros where the condition is text.
        first_caption: (n + 1,) number of the first caption of each image, and of all captions; empty for classes.
        states: of the captions, where they were encoded.
    """

    info: TokenSetInfo
    tokens: Ids
    tokens_flipped: Ids | None
    labels: Labels
    first_caption: Labels = field(default_factory=lambda: np.zeros(0, np.int64))
    states: CaptionStates | None = None
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
        summary = read_object(folder / SUMMARY, _LARGEST_SUMMARY)
        require(
            summary.get("num_shards") == len(files),
            f"{folder} holds {len(files)} shards, but {SUMMARY} tells of {summary.get('num_shards')}; run the same "
            "`adanat tokenize` again.",
        )
        try:
            hashes = recorded_hashes(folder)
            tables = [read_rows(file, first.info, hashes.get(file.name)) for file in files]
            tokens = cls._from_table(first.info, pa.concat_tables(tables))
            if first.info.text_width == 0:
                return tokens
            numbers = [int(_captions(table["caption"])[0][-1]) for table in tables]
            states = CaptionStates.open(files, numbers, first.info.text_width, first.info.text_length)
            beside = [folder / NULL_STATES, *map(states_file, files)]
            if sum(file.stat().st_size for file in beside) <= _HASHED_STATES:
                for file in beside:
                    check_sha256(file, hashes.get(file.name))
            return replace(tokens, states=states)
        except (OSError, KeyError, pa.ArrowException) as error:
            raise AdaNATError(f"The shards of {folder} cannot be read: {error}.") from error

    @classmethod
    def _from_table(cls, info: TokenSetInfo, table: pa.Table) -> TokenSet:
        flipped = _ids(table, "tokens_flipped", info) if info.has_flips else None
        if info.condition == "text":
            first, captions = _captions(table["caption"])
            labels = np.zeros(len(table), np.int64)
            return cls(info, _ids(table, "tokens", info), flipped, labels, first, None, captions)
        labels = np.ascontiguousarray(table["label"].to_numpy(), np.int64)
        return cls(info, _ids(table, "tokens", info), flipped, labels)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def num_captions(self) -> int:
        """Captions of all images."""
        return int(self.first_caption[-1]) if len(self.first_caption) else 0

    def batch(
        self, indices: Labels, flipped: np.ndarray[Any, np.dtype[np.bool_]], draws: Draws | None = None
    ) -> tuple[Labels, Labels]:
        """Return images by index.

        Args:
            indices: (B,).
            flipped: (B,) bool, which of them come flipped; no effect where the set has no flips.
            draws: (B,) in [0, 1), which of an image's captions comes with it; None for the first.

        Returns:
            (B, N) int64 ids, and (B,) int64 labels or, for text, numbers of captions.
        """
        ids = self.tokens[indices]
        if self.tokens_flipped is not None:
            ids = np.where(flipped[:, None], self.tokens_flipped[indices], ids)
        if self._captions is None:
            return ids.astype(np.int64), self.labels[indices]
        first = self.first_caption[indices]
        if draws is None:
            return ids.astype(np.int64), first
        return ids.astype(np.int64), first + (draws * (self.first_caption[indices + 1] - first)).astype(np.int64)

    def captions(self, numbers: Labels) -> list[str]:
        """Return captions by number, as ``batch`` gives them; -1 is the empty prompt.

        Raises:
            AdaNATError: if the set has labels instead.
        """
        if self._captions is None:
            raise AdaNATError("This token set has class labels, not captions.")
        there = pa.array(numbers, mask=numbers < 0)
        return [caption or "" for caption in self._captions.take(there).to_pylist()]


def _captions(column: pa.ChunkedArray) -> tuple[Labels, pa.ChunkedArray]:
    """Captions one after the other, with the number of each image's first; a column of single ones is read, too."""
    if not pa.types.is_list(column.type):
        return np.arange(len(column) + 1), column
    counts = pc.list_value_length(column).to_numpy()
    flat = pa.chunked_array([chunk.flatten() for chunk in column.chunks], column.type.value_type)
    return np.cumsum([0, *counts]), flat


def _ids(table: pa.Table, name: str, info: TokenSetInfo) -> Ids:
    """A column of fixed-size lists as (n, N), chunk by chunk into one array."""
    ids = np.empty((len(table), info.num_tokens), np.uint16)
    row = 0
    for chunk in table[name].chunks:
        ids[row : row + len(chunk)] = chunk.flatten().to_numpy().reshape(-1, info.num_tokens)
        row += len(chunk)
    return ids
