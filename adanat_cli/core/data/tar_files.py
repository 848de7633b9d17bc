"""Tars from disk or by address: read in order, sample by sample, and checked to their ends."""

from __future__ import annotations

import importlib
import io
import json
import lzma
import re
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, Self, cast

from adanat_cli.core.data.columns import JSON_NAMES
from adanat_cli.core.data.folders import IMAGE_SUFFIXES
from adanat_cli.core.data.tables import expand_braces
from adanat_cli.core.errors import AdaNATError, hide_secrets, require
from adanat_cli.core.hub import one_line

Sample = dict[str, Any]
"""``__key__``, and for every kind of member (``jpg``, ``json`` …) its bytes, text or parsed JSON; None if not read."""

_PARTS = re.compile(r"((?:.*/|)[^./][^./]*)[.]([^/]*)")
"""Key and kind, as webdataset tells them: the name up to the first dot, and what follows."""
_MOST_TEXT, _MOST_IMAGE = 2**20, 2**28
_BLOCK = 2**18
_NAMES_AHEAD = (b"x", b"g", b"X", b"L", b"K")
"""Types of headers that hold the long name, or other facts, of the member after them; they are read whole."""
_DAMAGES: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError)
_WAITS = (1.0, 5.0, 15.0)
"""Seconds before each new try to go on with a broken transfer."""


class _Checked(tarfile.TarInfo):
    """A header; one that is missing or damaged is an error, not the end of the archive, as it is for ``tarfile``."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _NAMES_AHEAD and header.size > _MOST_TEXT):
            raise tarfile.ReadError("a header of it is damaged: no name takes so many bytes")
        return header

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Checked:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
                raise
            raise tarfile.ReadError("it is cut off or damaged, without the mark of an archive's end") from error


def samples(place: str, wanted: Callable[[str], bool]) -> Iterator[Sample]:
    """Yield the samples of one tar, gzipped or not; kinds that are not ``wanted`` are named but not read.

    Raises:
        AdaNATError: if it cannot be read to its end, or is not a tar.
    """
    sample: Sample = {}
    with _one_line(place):
        for name, file in _members(place):
            found = _PARTS.fullmatch(name)
            if found is None:
                continue
            key, kind = found[1], found[2].lower()
            if sample and sample["__key__"] != key:
                yield sample
                sample = {}
            require(kind not in sample, f"{shown(place)} holds two members {kind!r} of {key!r}; keep one.")
            sample.setdefault("__key__", key)
            sample[kind] = _content(file, kind) if wanted(kind) else None
        if sample:
            yield sample


def is_image(kind: str) -> bool:
    """Whether members of a kind are images."""
    return f".{kind}" in IMAGE_SUFFIXES


def _content(file: Callable[[int], bytes], kind: str) -> Any:
    if is_image(kind):
        return file(_MOST_IMAGE)
    text = file(_MOST_TEXT).decode("utf-8-sig", errors="replace")
    if kind not in JSON_NAMES:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _members(place: str) -> Iterator[tuple[str, Callable[[int], bytes]]]:
    """Names of the files in a tar, each with what reads so many bytes of it; nothing at all of larger ones."""
    with _opened(place) as raw, _archive(raw, "r|*" if is_address(place) else "r:*") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # they would pile up
            if member.isfile():
                yield member.name, lambda most, member=member: _read(archive, member, most)  # type: ignore[misc]
        rest = cast(IO[bytes], archive.fileobj)
        while block := rest.read(_BLOCK):
            if block.strip(b"\0"):
                raise tarfile.ReadError("data follow its end, as where tars were joined; give them one by one")


def _archive(raw: IO[bytes], mode: str) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=raw, mode=cast(Any, mode), tarinfo=_Checked, bufsize=_BLOCK)
    except tarfile.ReadError as error:  # it names every compression that was tried
        raise tarfile.ReadError("it is not a tar, or damaged from its beginning") from error


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    file = archive.extractfile(member) if member.size <= most else None
    return file.read() if file else b""


@contextmanager
def _one_line(place: str) -> Iterator[None]:
    try:
        yield
    except (*_DAMAGES, *_transfer_errors(place)) as error:
        raise AdaNATError(f"Reading {shown(place)} broke off: {one_line(error).rstrip('.')}.") from error


def shown(place: str) -> str:
    """The last part of a path or an address, without its secrets."""
    return hide_secrets(place).rsplit("/", 1)[-1]


def _opened(place: str) -> IO[bytes]:
    if not is_address(place):
        return Path(place).open("rb")
    return cast(IO[bytes], io.BufferedReader(_Transfer(place), _BLOCK))


def is_address(place: str) -> bool:
    """Tell an address from a path."""
    return place.startswith(("http://", "https://"))


class _Response(Protocol):
    """What ``fsspec`` gives for an address that is read in order."""

    r: Any

    def read(self, num: int) -> bytes: ...

    def close(self) -> None: ...


class _Transfer(io.RawIOBase):
    """The bytes behind an address, in order; a broken transfer goes on where it broke, if the server can."""

    def __init__(self, address: str) -> None:
        self._address, self._position = address, 0
        self._response = _request(address, 0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        for wait in (*_WAITS, None):
            try:
                data = self._response.read(len(buffer))
                break
            except _transfer_errors(self._address):
                if wait is None:
                    raise
                time.sleep(wait)
                self._response.close()
                self._response = _request(self._address, self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._response.close()
        super().close()


def _request(address: str, start: int) -> _Response:
    """Ask for an address from a byte on."""
    from aiohttp import ClientTimeout
    from fsspec.implementations.http import HTTPFileSystem

    patience = ClientTimeout(total=None, sock_connect=30, sock_read=120)
    system = HTTPFileSystem(client_kwargs={"trust_env": True, "timeout": patience})
    headers = {"headers": {"Range": f"bytes={start}-"}} if start else {}
    # A block size of 0 makes it a stream; a size spares the question for it, which signed addresses do not answer.
    response = cast(_Response, system.open(address, block_size=0, size=1, **headers))
    if start and response.r.status != 206:
        response.close()
        raise OSError("the connection was lost, and the server cannot go on in the middle")
    return response


def _transfer_errors(place: str) -> tuple[type[Exception], ...]:
    if not is_address(place):
        return ()
    from aiohttp import ClientError

    return (ClientError, TimeoutError, OSError, ValueError)


def addresses(pattern: str) -> list[str]:
    """The addresses that a pattern such as ``https://host/train-{0000..0009}.tar`` stands for; all of them answer.

    Raises:
        AdaNATError: if some do not, which it names, or the HTTP client is not installed.
    """
    try:
        importlib.import_module("aiohttp")
    except ImportError as error:
        raise AdaNATError(
            "Data by address needs aiohttp, which is not installed; try: pip install 'adanat[http]'."
        ) from error
    places = expand_braces(pattern)
    with ThreadPoolExecutor(16) as pool:
        missing = [line for line in pool.map(_why_missing, places) if line]
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    require(
        not missing,
        f"Data {pattern} cannot be opened: {len(missing)} of {len(places)} files do not answer: "
        f"{'; '.join(missing[:3])}{more}.",
    )
    return places


def _why_missing(address: str) -> str:
    try:
        _request(address, 0).close()
    except _transfer_errors(address) as error:
        status = getattr(error, "status", 404 if isinstance(error, FileNotFoundError) else None)
        return f"{shown(address)} ({status or one_line(error)})"
    return ""
