"""What a safetensors file holds, read from its header alone: no tensor is loaded and no PyTorch is needed."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from adanat_cli.core.errors import AdaNATError

_MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class Header:
    """Names, shapes and metadata of one safetensors file.

    Attributes:
        shapes: tensor name -> shape.
        dtypes: the number formats that occur, such as "F32", sorted.
        num_bytes: of the whole file.
        metadata: what the writer noted.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: tuple[str, ...]
    num_bytes: int
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_parameters(self) -> int:
        """Numbers held, over all tensors."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def read_header(path: Path) -> Header:
    """Read the header and check that the file is as long as it says.

    Raises:
        AdaNATError: if the file is missing, cut short or of another format.
    """
    try:
        with path.open("rb") as file:
            (num_header_bytes,) = struct.unpack("<Q", file.read(8))
            if num_header_bytes > _MAX_HEADER_BYTES:
                raise ValueError("no header")
            entries = json.loads(file.read(num_header_bytes))
        metadata = entries.pop("__metadata__", {})
        shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
        dtypes = tuple(sorted({entry["dtype"] for entry in entries.values()}))
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        num_bytes = path.stat().st_size
        if num_bytes != 8 + num_header_bytes + end:
            raise ValueError(f"{num_bytes} bytes instead of {8 + num_header_bytes + end}")
    except FileNotFoundError as error:
        raise AdaNATError(f"{path} does not exist.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise AdaNATError(f"{path} is not a whole safetensors file ({error}); fetch or write it again.") from error
    return Header(shapes, dtypes, num_bytes, metadata)
