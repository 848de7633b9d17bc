"""The header of a safetensors file: read without loading a tensor, and without PyTorch."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adanat_cli.core.config.base import Sizes
from adanat_cli.core.config.schema import build, conform
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.reading import parse_json

_MAX_HEADER_BYTES = 2**26
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4}
_BITS |= {"I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "C64": 64}
_FLOATS = {"F64", "F32", "F16", "BF16"}


@dataclass(frozen=True)
class Header:
    """Names, shapes and metadata in one safetensors file.

    Attributes:
        shapes: tensor name -> shape.
        dtypes: number formats that occur, such as "F32", sorted.
        num_bytes: size of the whole file.
        metadata: name -> text.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: tuple[str, ...]
    num_bytes: int
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_parameters(self) -> int:
        """Number of values in all tensors."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def check(self, sizes: Sizes, source: str) -> None:
        """Refuse weights that do not fit a configuration, before a network is built.

        Args:
            sizes: expected sizes; nothing is checked if they are empty.
            source: where the weights are from, for the message.

        Raises:
            AdaNATError: naming the first tensor or list of layers that differs, or the number format.
        """
        for name, expected in sizes.items():
            found = self._num_parts(name) if isinstance(expected, int) else self.shapes.get(name)
            require(
                found == expected,
                f"Weights of {source} do not fit the network that its config.json describes: {name} is "
                f"{found or 'missing'} instead of {expected}; one of the files is damaged or of another version.",
            )
        others = sorted(set(self.dtypes) - _FLOATS) if sizes else []
        require(not others, f"Weights of {source} are of type {', '.join(others)}; expected floating-point numbers.")

    def _num_parts(self, name: str) -> int:
        """Length of a numbered list of layers."""
        names = (tensor.removeprefix(f"{name}.") for tensor in self.shapes if tensor.startswith(f"{name}."))
        return len({part.partition(".")[0] for part in names})


@dataclass(frozen=True)
class _Entry:
    """Description of one tensor."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]

    def num_bytes(self) -> int:
        """Size of its values."""
        if min(self.shape, default=0) < 0 or self.dtype not in _BITS:
            raise ValueError(f"a tensor of shape {self.shape} and type {self.dtype}")
        return math.prod(self.shape) * _BITS[self.dtype] // 8


def read_header(path: Path) -> Header:
    """Read the header and check it against the length of the file.

    Raises:
        AdaNATError: if the file is missing, truncated or of another format.
    """
    require(path.is_file(), f"{path} does not exist; fetch or write it again.")
    try:
        num_bytes = path.stat().st_size
        with path.open("rb") as file:
            (num_header_bytes,) = struct.unpack("<Q", file.read(8))
            if num_header_bytes > min(_MAX_HEADER_BYTES, num_bytes):
                raise ValueError("no header")
            header = conform(
                parse_json(file.read(num_header_bytes), "the header"), Mapping[str, Mapping[str, Any]], "it"
            )
        metadata = conform(header.pop("__metadata__", {}), Mapping[str, str], "its metadata")
        entries = {name: build(_Entry, entry, name) for name, entry in header.items()}
        end = 0
        for entry in sorted(entries.values(), key=lambda entry: entry.data_offsets):
            if entry.data_offsets != (end, end := end + entry.num_bytes()):
                raise ValueError("its tensors do not follow each other")
        if num_bytes != 8 + num_header_bytes + end:
            raise ValueError(f"{num_bytes} bytes instead of {8 + num_header_bytes + end}")
    except (AdaNATError, OSError, ValueError, struct.error) as error:
        raise AdaNATError(f"{path} is not a complete safetensors file ({error}); fetch or write it again.") from error
    dtypes = tuple(sorted({entry.dtype for entry in entries.values()}))
    return Header({name: entry.shape for name, entry in entries.items()}, dtypes, num_bytes, metadata)
