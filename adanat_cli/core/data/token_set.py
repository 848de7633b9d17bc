"""A token set in memory: the ids of all its shards, with labels or captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from adanat_cli.core.data.caption_states import NULL_STATES, CaptionStates, states_file
from adanat_cli.core.data.token_shards import (
    SUMMARY,
    Ids,
    Labels,
    TokenSetInfo,
    check_sha256,
    read_header,
    read_rows,
    read_summary,
    shard_files,
)
from adanat_cli.core.errors import AdaNATError, require

Draws = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

_HASHED_STATES = 2**32
"""Bytes of encoded captions that are hashed when a set is opened: seconds. Of more, shapes are checked."""


@dataclass(frozen=True)
class TokenSet:
    """A whole set in memory, but for the states of encoded captions, which stay on disk.

    Attributes:
        info: what the ids mean.
        tokens: (n, N) ids.
        tokens_flipped: (n, N) ids of the flipped images; None where the set has none.
        labels: (n,) class ids; zeros where the condition is text.
        first_caption: (n + 1,) number of the first caption of each image, and of all captions; empty for classes.
        states: encoded captions, where the set has them.
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
            AdaNATError: if there are none, one is damaged or missing, or they belong to different sets.
        """
        folder = Path(path)
        require(folder.is_dir(), f"Token set {folder} is not a folder; give the one that `adanat tokenize` wrote.")
        files = shard_files(folder)
        require(bool(files), f"{folder} holds no token shards (tokens-*.parquet); make them with `adanat tokenize`.")
        require(
            (folder / SUMMARY).exists(),
            f"{folder} is not complete: {SUMMARY} is missing; run the same `adanat tokenize` again to finish it.",
        )
        info, hashes = _check_whole(folder, files)
        try:
            tables = [read_rows(file, info, hashes.get(file.name)) for file in files]
            tokens = cls._from_table(info, pa.concat_tables(tables))
            if info.text_width == 0:
                return tokens
            numbers = [int(_captions(table["caption"])[0][-1]) for table in tables]
            states = CaptionStates.open(files, numbers, info.text_width, info.text_length)
            beside = [folder / NULL_STATES, *map(states_file, files)]
            if sum(file.stat().st_size for file in beside) <= _HASHED_STATES:
                for file in beside:
                    check_sha256(file, hashes.get(file.name))
            return replace(tokens, states=states)
        except (OSError, KeyError, pa.ArrowException) as error:
            raise AdaNATError(
                f"The shards of {folder} cannot be read: {error}; run the same `adanat tokenize` again."
            ) from error

    @classmethod
    def _from_table(cls, info: TokenSetInfo, table: pa.Table) -> TokenSet:
        flipped = _ids(table, "tokens_flipped", info) if info.has_flips else None
        if info.condition == "text":
            first, captions = _captions(table["caption"])
            labels = np.zeros(len(table), np.int64)
            return cls(info, _ids(table, "tokens", info), flipped, labels, first, None, captions)
        labels = np.concatenate([np.empty(0, np.int64), *map(_numpy, table["label"].chunks)])
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


def _check_whole(folder: Path, files: Sequence[Path]) -> tuple[TokenSetInfo, Mapping[str, str]]:
    """Check that all shards are there and of one set; returns what their ids mean, and the files' sha256."""
    headers = [read_header(file) for file in files]
    first = headers[0]
    for file, header, start in zip(files, headers, [0, *(header.stop for header in headers)], strict=False):
        require(
            header.info == first.info and header.plan == first.plan,
            f"{file.name} belongs to another token set than {files[0].name}; keep one set in {folder}.",
        )
        require(
            header.start == start,
            f"A shard is missing before {file} (images {start} to {header.start - 1}); run the same "
            "`adanat tokenize` again.",
        )
    summary = read_summary(folder)
    require(
        summary.get("num_shards") == len(files),
        f"{folder} holds {len(files)} shards, but {SUMMARY} lists {summary.get('num_shards')}; run the same "
        "`adanat tokenize` again.",
    )
    return first.info, summary["sha256"]


def _captions(column: pa.ChunkedArray) -> tuple[Labels, pa.ChunkedArray]:
    """Captions one after the other, with the number of each image's first; a column of single ones is read, too."""
    if not pa.types.is_list(column.type):
        return np.arange(len(column) + 1), column
    counts = pc.list_value_length(column).to_numpy()
    flat = pa.chunked_array([chunk.flatten() for chunk in column.chunks], column.type.value_type)
    return np.cumsum([0, *counts]), flat


def _numpy(column: pa.Array) -> np.ndarray[Any, Any]:
    """The numbers of a column without gaps; its own ``to_numpy`` would load pandas, which takes 45 MB."""
    numbers: np.ndarray[Any, Any] = np.from_dlpack(column)
    return numbers


def _ids(table: pa.Table, name: str, info: TokenSetInfo) -> Ids:
    """A column of fixed-size lists as (n, N), chunk by chunk into one array."""
    ids = np.empty((len(table), info.num_tokens), np.uint16)
    row = 0
    for chunk in table[name].chunks:
        ids[row : row + len(chunk)] = _numpy(chunk.flatten()).reshape(-1, info.num_tokens)
        row += len(chunk)
    return ids
