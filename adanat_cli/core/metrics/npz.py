"""NumPy archives of strangers: arrays with their shapes checked before they are read, never a pickle."""

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
"""Of an array that is held whole, or of a part: the features of 100,000 images. What an archive says costs nothing."""
_OF_PARSING = (SyntaxError, MemoryError, TypeError, LookupError, ArithmeticError, AttributeError)
_DAMAGE = (*_OF_PARSING, OSError, EOFError, ValueError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error)
"""What reading a damaged archive raises, by where the damage is: NumPy parses an array's header as Python."""


class ArrayHeader(NamedTuple):
    """What an archive says of one of its arrays.

    Attributes:
        shape: of the array.
        dtype: number format.
        fortran_order: whether it is stored column by column.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool


class Archive:
    """An ``.npz`` file whose arrays are read one by one, or in parts.

    Attributes:
        path: the file.
        names: of its arrays, in the order of the file.
    """

    def __init__(self, path: Path) -> None:
        """Read the table of contents.

        Raises:
            AdaNATError: if the file is missing or is no such archive.
        """
        require(path.is_file(), f"{path} does not exist or is a folder; give an .npz file.")
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.namelist()
        except _DAMAGE as error:
            raise AdaNATError(
                f"{path} is not an .npz archive, or is cut short ({one_line(error)}); fetch it again."
            ) from error
        self.names = tuple(name.removesuffix(".npy") for name in members if name.endswith(".npy"))
        require(bool(self.names), f"{path} holds no arrays; expected an archive that numpy.savez wrote.")

    def header(self, name: str) -> ArrayHeader:
        """Shape and number format of an array, without its values.

        Raises:
            AdaNATError: if there is no such array, it is damaged, or it holds pickled objects.
        """
        with self._open(name) as (_, header):
            return header

    def read(self, name: str) -> Array:
        """Read a whole array.

        Raises:
            AdaNATError: as ``header``, or if it is too large to be held whole.
        """
        with self._open(name) as (file, header):
            self._check_size(name, math.prod(header.shape) * header.dtype.itemsize)
            flat = _next_values(file, header.dtype, math.prod(header.shape))
        return flat.reshape(header.shape, order="F" if header.fortran_order else "C")

    def parts(self, name: str, size: int) -> Iterator[Array]:
        """Yield an array ``size`` rows at a time, which is all that memory has to hold.

        Raises:
            AdaNATError: as ``header``, or if the array has no rows that lie together.
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
        """Open an array at its first value; what goes wrong until the block ends is said of the file."""
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
    """Read ``num`` values into memory that is writable and held once."""
    values = np.empty(num, dtype)
    target, start = values.view(np.uint8), 0
    while start < len(target):
        data = file.read(min(_BYTES_AT_ONCE, len(target) - start))
        if not data:
            raise EOFError("it ends early")
        target[start : start + len(data)] = np.frombuffer(data, np.uint8)
        start += len(data)
    return values
