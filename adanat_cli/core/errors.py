"""The one exception for mistakes that a user can make, and text of strangers as it may be shown."""

from __future__ import annotations

import re

_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves the cursor, ends a line, turns the direction of writing or stands for a byte that is no text."""


class AdaNATError(Exception):
    """A user's mistake or a failed run, told in one line.

    The message says what came, what was expected and what to try. ``cli.main`` prints it without
    a traceback and exits with 1; every other exception is a bug and keeps its traceback.
    """


def require(condition: bool, message: str) -> None:
    """Raise ``AdaNATError(message)`` unless the condition holds."""
    if not condition:
        raise AdaNATError(message)


def printable(text: str) -> str:
    """Return text on one line that cannot act on a terminal: what would is escaped as in JSON."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
