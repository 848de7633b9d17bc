"""Standard output and error whatever their encoding is, and where their reader has left or their disk is full."""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from collections.abc import Callable
from typing import TextIO

from adanat_cli.core.errors import AdaNATError, printable

READER_LEFT = 141
"""Exit code of a program whose output nobody reads any longer, as shells report SIGPIPE: `adanat info | head -1`."""

_ACTING = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[[\d;?]*[A-Za-z])")
"""What no program of this kind writes on purpose; of escape sequences, those of colours and progress bars stay."""

_IN_ASCII = {"…": "...", "—": "--", "\N{MULTIPLICATION SIGN}": "x", "·": "*", "²": "^2", "³": "^3"}
"""How our own words look where they cannot be written; all else is escaped."""


def prepare() -> None:
    """Make ``sys.stdout`` and ``sys.stderr`` write anything: what their encoding lacks comes out as an escape.

    Where standard output cannot be written, the command ends: quietly with exit code 141 if the reader has left, else
    with an ``AdaNATError``. Where standard error cannot be written, the work goes on in silence.
    """
    codecs.register_error("adanat", _escape)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, _reopen(number))
    sys.stdout = _Stream(sys.stdout, _end)
    sys.stderr = _Stream(sys.stderr, _go_on)


class _Stream(io.TextIOWrapper):
    """A stream that reports its loss once, and then discards what is written."""

    def __init__(self, stream: TextIO, on_loss: Callable[[OSError], None]) -> None:
        super().__init__(
            stream.buffer,
            encoding=stream.encoding,
            errors="adanat",
            line_buffering=getattr(stream, "line_buffering", False),
            write_through=getattr(stream, "write_through", False),
        )
        self._replaced, self._on_loss = stream, on_loss  # the one that was replaced would close the buffer

    def write(self, text: str) -> int:
        try:
            return super().write(_ACTING.sub(lambda found: printable(found[0]), text))
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        # What is still in the buffers has to go somewhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        self._on_loss(error)


def _end(error: OSError) -> None:
    """Leave because standard output is lost."""
    if isinstance(error, BrokenPipeError):
        raise SystemExit(READER_LEFT)
    raise AdaNATError(f"Cannot write to standard output: {error.strerror or error}.") from error


def _go_on(_: OSError) -> None:
    """Work on: losing messages is no reason to lose a run."""


def _reopen(number: int) -> TextIO:
    """Open a standard stream that the caller has closed: to read nothing, and to write in vain.

    Otherwise the next file that is opened would get its number, and with it all that libraries print.
    """
    opened = os.open(os.devnull, os.O_RDONLY)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
    return open(number, "w" if number else "r", encoding="utf-8", closefd=False)


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding lacks in ASCII: our own signs as words do, anything else by its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    escaped = (_IN_ASCII.get(letter) or letter.encode("ascii", "backslashreplace").decode() for letter in lacking)
    return "".join(escaped), error.end
