"""Files by URL: ranges in braces, requests over HTTP, and broken transfers that resume."""

from __future__ import annotations

import importlib
import io
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, cast

from adanat_cli.core.data.described import listed
from adanat_cli.core.errors import AdaNATError, hide_secrets, require
from adanat_cli.core.hub import one_line

_MOST_FILES, _MOST_RANGES = 100_000, 8
_BLOCK = 2**18
_WAITS = (1.0, 5.0, 15.0)
"""Seconds before each new try to resume a broken transfer."""


def is_address(path: str) -> bool:
    """Whether a path is a URL that can be read."""
    return path.startswith(("http://", "https://"))


def last_part(path: str) -> str:
    """The last part of a path or URL, without its secrets."""
    return hide_secrets(path).rsplit("/", 1)[-1]


def expand_braces(pattern: str) -> list[str]:
    """``a-{08..11}`` to ``a-08`` … ``a-11``, as shells and webdataset write ranges.

    Raises:
        AdaNATError: if a range is empty or very large.
    """
    require(pattern.count("{") <= _MOST_RANGES, f"{pattern[:80]} … holds more than {_MOST_RANGES} ranges; give fewer.")
    found = re.search(r"\{(\d{1,12})\.\.(\d{1,12})\}", pattern)
    if not found:
        return [pattern]
    first, last = found.groups()
    numbers, rest = range(int(first), int(last) + 1), expand_braces(pattern[found.end() :])
    num = len(numbers) * len(rest)
    require(0 < num <= _MOST_FILES, f"{pattern} stands for {num} files; expected 1 to {_MOST_FILES}.")
    return [f"{pattern[: found.start()]}{number:0{len(first)}d}{end}" for number in numbers for end in rest]


def reachable(pattern: str) -> list[str]:
    """The URLs that a pattern such as ``https://host/train-{0000..0009}.tar`` stands for; all of them answer.

    Raises:
        AdaNATError: if some do not, which it names, or the HTTP client is not installed.
    """
    try:
        importlib.import_module("aiohttp")
    except ImportError as error:
        raise AdaNATError(
            "Reading data from a URL needs aiohttp, which is not installed; try pip install 'adanat[http]'."
        ) from error
    addresses = expand_braces(pattern)
    with ThreadPoolExecutor(16) as pool:
        missing = [line for line in pool.map(_why_missing, addresses) if line]
    require(
        not missing,
        f"Data {pattern} cannot be opened: {len(missing)} of {len(addresses)} files do not answer: "
        f"{listed(missing, '; ')}. Check the URL.",
    )
    return addresses


def _why_missing(address: str) -> str:
    try:
        _request(address, 0).close()
    except transfer_errors() as error:
        status = getattr(error, "status", 404 if isinstance(error, FileNotFoundError) else None)
        return f"{last_part(address)} ({status or one_line(error)})"
    return ""


def open_address(address: str) -> IO[bytes]:
    """Open the bytes of a URL, to be read in order."""
    return cast(IO[bytes], io.BufferedReader(_Transfer(address), _BLOCK))


def transfer_errors() -> tuple[type[Exception], ...]:
    """What reading from a URL may raise."""
    from aiohttp import ClientError

    return (ClientError, TimeoutError, OSError, ValueError)


class _Transfer(io.RawIOBase):
    """The bytes of a URL, in order; a broken transfer resumes, if the server can."""

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
            except transfer_errors():
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


def _request(address: str, start: int) -> Any:
    """Request a URL from a byte on; returns what ``fsspec`` gives for one that is read in order."""
    from aiohttp import ClientTimeout
    from fsspec.implementations.http import HTTPFileSystem

    patience = ClientTimeout(total=None, sock_connect=30, sock_read=120)
    system = HTTPFileSystem(client_kwargs={"trust_env": True, "timeout": patience})
    headers = {"headers": {"Range": f"bytes={start}-"}} if start else {}
    # A block size of 0 makes it a stream; a size spares the question for it, which signed URLs do not answer.
    response = system.open(address, block_size=0, size=1, **headers)
    if start and response.r.status != 206:
        response.close()
        raise OSError("the connection was lost, and the server cannot resume a transfer")
    return response
