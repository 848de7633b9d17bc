"""Tars from disk or by URL: read in order, sample by sample, and checked to their ends."""

from __future__ import annotations

import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, Self, cast

from adanat_cli.core.data.addresses import is_address, last_part, open_address, transfer_errors
from adanat_cli.core.data.columns import JSON_NAMES
from adanat_cli.core.data.source_files import IMAGE_SUFFIXES
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.hub import one_line

Sample = dict[str, Any]
"""``__key__``, and for every kind of member (``jpg``, ``json`` …) its bytes, text or parsed JSON; None if not read."""

_PARTS = re.compile(r"((?:.*/|)[^./][^./]*)[.]([^/]*)")
"""Key and kind, as webdataset defines them: the name up to the first dot, and what follows."""
_MOST_TEXT, _MOST_IMAGE = 2**20, 2**28
_BLOCK = 2**18
_NAMES_AHEAD = (b"x", b"g", b"X", b"L", b"K")
"""Types of headers that hold the long name, or other facts, of the member after them; they are read whole."""
_DAMAGES: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError)


def samples(tar: str, wanted: Callable[[str], bool]) -> Iterator[Sample]:
    """Yield the samples of one tar, gzipped or not; kinds that are not ``wanted`` are named but not read.

    Raises:
        AdaNATError: if it cannot be read to its end, or is not a tar.
    """
    sample: Sample = {}
    with _one_line(tar):
        for name, read in _members(tar):
            found = _PARTS.fullmatch(name)
            if found is None:
                continue
            key, kind = found[1], found[2].lower()
            if sample and sample["__key__"] != key:
                yield sample
                sample = {}
            require(kind not in sample, f"{last_part(tar)} holds two members {kind!r} of {key!r}; keep one.")
            sample.setdefault("__key__", key)
            sample[kind] = _content(read, kind) if wanted(kind) else None
        if sample:
            yield sample


def is_image(kind: str) -> bool:
    """Whether members of a kind are images."""
    return f".{kind}" in IMAGE_SUFFIXES


def is_compressed(tar: str) -> bool:
    """Whether a tar on this machine is compressed, so that all of it has to be read to get to its end."""
    try:
        with tarfile.open(tar, "r:"):
            return False
    except tarfile.ReadError:
        return True


def _content(read: Callable[[int], bytes], kind: str) -> Any:
    if is_image(kind):
        return read(_MOST_IMAGE)
    text = read(_MOST_TEXT).decode("utf-8-sig", errors="replace")
    if kind not in JSON_NAMES:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _members(tar: str) -> Iterator[tuple[str, Callable[[int], bytes]]]:
    """Yield the files in a tar: name, and a call that reads them up to a limit in bytes; nothing of larger ones."""
    with open_address(tar) if is_address(tar) else open(tar, "rb") as raw, _archive(raw, tar) as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # they would pile up
            if member.isfile():
                yield member.name, partial(_read, archive, member)
        rest = cast(IO[bytes], archive.fileobj)
        while block := rest.read(_BLOCK):
            if block.strip(b"\0"):
                raise tarfile.ReadError("data follow its end, as where tars were joined; give them one by one")


def _archive(raw: IO[bytes], tar: str) -> tarfile.TarFile:
    mode = cast(Any, "r|*" if is_address(tar) else "r:*")
    try:
        return tarfile.open(fileobj=raw, mode=mode, tarinfo=_Checked, bufsize=_BLOCK)
    except tarfile.ReadError as error:  # it names every compression that was tried
        raise tarfile.ReadError("it is not a tar, or damaged from its beginning") from error


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    file = archive.extractfile(member) if member.size <= most else None
    return file.read() if file else b""


@contextmanager
def _one_line(tar: str) -> Iterator[None]:
    damages = (*_DAMAGES, *transfer_errors()) if is_address(tar) else _DAMAGES
    try:
        yield
    except damages as error:
        raise AdaNATError(
            f"Reading {last_part(tar)} broke off: {one_line(error).rstrip('.')}; try again, or fetch the file again."
        ) from error


class _Checked(tarfile.TarInfo):
    """A header; one that is missing or damaged is an error, not the end of the archive, as it is for ``tarfile``."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _NAMES_AHEAD and header.size > _MOST_TEXT):
            raise tarfile.ReadError("a header is damaged: its name would take too many bytes")
        return header

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Checked:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
                raise
            raise tarfile.ReadError("it is cut off or damaged, without the mark of an archive's end") from error
