"""NumPy archives from unknown sources: shapes are checked before arrays are read, and pickles are never loaded."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.hub import one_line

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]
_BYTES_AT_ONCE = 2**24
_MAX_BYTES = 2**30
"""Most bytes that one read may allocate, whatever a header claims: the features of 100,000 images."""
_OF_PARSING = (SyntaxError, MemoryError, TypeError, LookupError, ArithmeticError, AttributeError)
_DAMAGE = (*_OF_PARSING, OSError, EOFError, ValueError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error)
"""What reading a damaged archive raises, depending on the damage: NumPy parses an array's header as Python."""


class ArrayHeader(NamedTuple):
    """The header of an array in an archive.

    Attributes:
        shape: shape of the array.
        dtype: number format of its values.
        fortran_order: whether the array is stored column by column.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool


class Archive:
    """An ``.npz`` file whose arrays are read one at a time, or in parts.

    Attributes:
        path: the file.
        names: names of the arrays, in the order of the file.
    """

    def __init__(self, path: Path) -> None:
        """Read the table of contents.

        Raises:
            AdaNATError: if the file is missing or is not such an archive.
        """
        require(path.is_file(), f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; give an .npz file.")
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.namelist()
        except _DAMAGE as error:
            raise AdaNATError(
                f"{path} is not an .npz archive, or is cut short ({one_line(error)}); fetch it again."
            ) from error
        self.names = tuple(name.removesuffix(".npy") for name in members if name.endswith(".npy"))
        require(bool(self.names), f"{path} holds no arrays; expected an archive written by numpy.savez.")

    def header(self, name: str) -> ArrayHeader:
        """Read the header of an array, without its values.

        Raises:
            AdaNATError: if there is no such array, it is damaged, or it holds pickled objects.
        """
        with self._open(name) as (_, header):
            return header

    def read(self, name: str) -> Array:
        """Read a whole array.

        Raises:
            AdaNATError: as ``header``, or if the array is too large to read whole.
        """
        with self._open(name) as (file, header):
            self._check_size(name, math.prod(header.shape) * header.dtype.itemsize)
            flat = _next_values(file, header.dtype, math.prod(header.shape))
        return flat.reshape(header.shape, order="F" if header.fortran_order else "C")

    def parts(self, name: str, size: int) -> Iterator[Array]:
        """Yield an array in parts of ``size`` rows, of which one at a time is in memory.

        Raises:
            AdaNATError: as ``header``, or if the array is not stored row by row.
        """
        with self._open(name) as (file, header):
            rows, row = header.shape[:1], header.shape[1:]
            if not rows or (header.fortran_order and row):
                raise AdaNATError(f"{name} in {self.path} is not stored row by row; write it in C order.")
            self._check_size(name, size * math.prod(row) * header.dtype.itemsize)
            for start in range(0, rows[0], size):
                num = min(size, rows[0] - start)
                yield _next_values(file, header.dtype, num * math.prod(row)).reshape(num, *row)

    def _check_size(self, name: str, num_bytes: int) -> None:
        require(
            num_bytes <= _MAX_BYTES,
            f"{name} in {self.path} takes {num_bytes / 2**30:,.1f} GiB of memory; expected at most "
            f"{_MAX_BYTES / 2**30:.0f}. Write fewer rows, or in float32.",
        )

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[IO[bytes], ArrayHeader]]:
        """Open an array at its first value; errors in the block are reported as damage of the file."""
        if name not in self.names:
            raise AdaNATError(f"{self.path} holds no {name}; it holds {', '.join(self.names[:8])}.")
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as file:
                header = _read_header(file)
                if header.dtype.hasobject:
                    raise AdaNATError(
                        f"{name} in {self.path} holds pickled objects, which are never loaded; save plain numbers."
                    )
                num_bytes = math.prod(header.shape) * header.dtype.itemsize
                if num_bytes != archive.getinfo(f"{name}.npy").file_size - file.tell():
                    raise ValueError("its length does not fit its shape")
                yield file, header
        except _DAMAGE as error:
            raise AdaNATError(f"{name} in {self.path} is damaged ({one_line(error)}); fetch the file again.") from error


def _read_header(file: IO[bytes]) -> ArrayHeader:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"format version {version} is not known")
    if not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"a shape {shape}")
    return ArrayHeader(shape, dtype, fortran_order)


def _next_values(file: IO[bytes], dtype: np.dtype[Any], num: int) -> Array:
    """Read ``num`` values into one writable array, without a second copy."""
    values = np.empty(num, dtype)
    target, start = values.view(np.uint8), 0
    while start < len(target):
        data = file.read(min(_BYTES_AT_ONCE, len(target) - start))
        if not data:
            raise EOFError("it ends early")
        target[start : start + len(data)] = np.frombuffer(data, np.uint8)
        start += len(data)
    return values
