"""Captions encoded once: the states that condition a text NAT, beside the shards of a token set."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adanat_cli.core.errors import AdaNATError

States = np.ndarray[tuple[int, ...], np.dtype[np.float16]]

NULL_STATES = "null.states.npy"
"""File of the (1, L, D) states of the empty prompt."""


def states_file(shard: Path) -> Path:
    """Where the states of a shard's captions lie."""
    return shard.with_name(f"{shard.stem}.states.npy")


def write_states(path: Path, parts: Iterable[States], shape: tuple[int, int, int]) -> None:
    """Write states of the shape (n, L, D) as float16, in parts of (m, L, D) with n rows in all."""
    with path.open("wb") as file:
        file.write(_header(shape))
        for part in parts:
            file.write(np.ascontiguousarray(part, "<f2").tobytes())


@dataclass(frozen=True)
class CaptionStates:
    """States of all captions of a set, read from disk as they are asked for.

    Attributes:
        parts: (n, L, D) float16 of each shard, mapped into memory.
        starts: number of the first caption of each shard, and the number of all.
        null: (L, D) float16, states of the empty prompt.
    """

    parts: tuple[States, ...]
    starts: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
    null: States

    @classmethod
    def open(cls, shards: Sequence[Path], num_captions: Sequence[int], width: int, length: int) -> CaptionStates:
        """Map the files beside the shards.

        Raises:
            AdaNATError: if one is missing, damaged or of another size.
        """
        parts = [
            _mapped(states_file(shard), (number, length, width))
            for shard, number in zip(shards, num_captions, strict=True)
        ]
        null = _mapped(shards[0].with_name(NULL_STATES), (1, length, width))
        return cls(tuple(parts), np.cumsum([0, *num_captions]), np.array(null[0]))

    def read(self, numbers: np.ndarray[Any, np.dtype[np.int64]]) -> States:
        """Return (B, L, D) of captions by number; -1 is the empty prompt."""
        states = np.empty((len(numbers), *self.null.shape), np.float16)
        states[numbers < 0] = self.null
        shards = np.searchsorted(self.starts, numbers, side="right") - 1
        for shard in np.unique(shards[numbers >= 0]):
            here = (shards == shard) & (numbers >= 0)
            states[here] = self.parts[shard][numbers[here] - self.starts[shard]]
        return states


def _mapped(file: Path, shape: tuple[int, ...]) -> States:
    expected = _header(shape)
    try:
        with file.open("rb") as opened:
            found = opened.read(len(expected))
        # The header is known, so that of an untrusted file is compared, not parsed.
        if found != expected or file.stat().st_size != len(expected) + 2 * math.prod(shape):
            raise ValueError(f"expected {shape} in float16")
        return np.memmap(file, "<f2", "r", len(expected), shape)
    except (OSError, ValueError) as error:
        raise AdaNATError(
            f"{file} does not hold the encoded captions ({error}); run the same `adanat tokenize --encode-captions` "
            "again."
        ) from error


def _header(shape: tuple[int, ...]) -> bytes:
    """What an .npy file of (n, L, D) float16 begins with."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f2", "fortran_order": False, "shape": shape})
    return header.getvalue()
