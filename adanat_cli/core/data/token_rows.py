"""The rows of a token set's shards, checked as they are read: what is damaged is named and never trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.reading import sha256_of

if TYPE_CHECKING:
    from adanat_cli.core.data.token_set import TokenSetInfo

_AGAIN = "remove it and run the same `adanat tokenize` again, or fetch it again"


def check_sha256(file: Path, sha256: str | None) -> None:
    """Refuse a file that is not what was written; None where that was not noted.

    Raises:
        AdaNATError: if it is not.
    """
    require(
        sha256 is None or sha256 == sha256_of(file),
        f"{file} is not what was written (its sha256 is another than that in token_set.json); {_AGAIN}.",
    )


def read_rows(file: Path, info: TokenSetInfo, sha256: str | None = None) -> pa.Table:
    """Read a shard's rows.

    Args:
        file: the shard.
        info: of its set.
        sha256: that the set's summary notes; None where it notes none, as in sets of older editions.

    Raises:
        AdaNATError: if the shard is damaged, or holds ids that the tokenizer or the classes do not have.
    """
    try:
        check_sha256(file, sha256)
        table = pq.read_table(file, page_checksum_verification=True)
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
    # Names within a list are no part of its type.
    require(
        any(_plain(column.type) == _plain(kind) for kind in kinds) and column.null_count == 0,
        f"Column {name} of {file} is {column.type} with {column.null_count} empty rows; expected {kinds[0]}; {_AGAIN}.",
    )


def _plain(kind: pa.DataType) -> tuple[Any, ...]:
    if pa.types.is_fixed_size_list(kind):
        return (kind.list_size, kind.value_type)
    return ("list", kind.value_type) if pa.types.is_list(kind) else (kind,)


def _check_range(file: Path, column: pa.ChunkedArray, what: str, limit: int, there: str) -> None:
    """Refuse values outside 0 … limit - 1, chunk by chunk."""
    for values in _numbers(column):
        least, most = (int(values.min()), int(values.max())) if len(values) else (0, 0)
        wrong = least if least < 0 else most
        require(least >= 0 and most < limit, f"{file} holds {what} {wrong}, but the {there}; {_AGAIN}.")


def _numbers(column: pa.ChunkedArray) -> Iterator[np.ndarray[Any, np.dtype[Any]]]:
    for chunk in column.chunks:
        values = chunk.flatten() if pa.types.is_fixed_size_list(chunk.type) else chunk
        yield values.to_numpy(zero_copy_only=False)
