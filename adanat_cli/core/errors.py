"""The exception for mistakes that a user can make, and the cleaning of text for display."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that move the cursor, end a line, change the writing direction or stand for an undecodable byte."""
_USER = re.compile(r"(://)[^/\s@?#]+@")
_SIGNATURE = re.compile(r"([a-zA-Z][\w+.-]*:/+[^\s?#]+)[?#]\S*")
"""Query and fragment of a URL: they carry signatures and tokens. ``Path`` turns two slashes into one."""


class AdaNATError(Exception):
    """A user's mistake or a failed run, reported in one line.

    The message says what came, what was expected and what to try. ``cli.main`` prints it without
    a traceback and exits with 1; every other exception is a bug and keeps its traceback.
    """

    def __init__(self, message: str) -> None:
        """Keep the message without the secrets in its URLs."""
        super().__init__(hide_secrets(message))


class MissingSplit(AdaNATError):  # noqa: N818 (what is missing is no fault of the data)
    """The data lacks the requested split, such as a validation split."""


def require(condition: bool, message: str) -> None:
    """Raise ``AdaNATError(message)`` unless the condition holds."""
    if not condition:
        raise AdaNATError(message)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is spelled most like this one, whatever its case; "" where none is near."""
    by_folded = {name.casefold(): name for name in known}
    found = get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.7)
    return by_folded[found[0]] if found else ""


def not_known(what: str, word: str, known: Iterable[str], expected: str) -> str:
    """Return the message that a word is not known, with the known one that is spelled most like it.

    Args:
        what: the word with what it stands for, such as ``--track wandbb``.
        word: the word alone.
        known: the known ones.
        expected: these in words.
    """
    meant = nearest(word, known)
    return f"{what} is not known; {f'did you mean {meant}? E' if meant else 'e'}xpected {expected}."


def printable(text: str) -> str:
    """Return text on one line that cannot control a terminal: such characters are escaped as in JSON."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def hide_secrets(text: str) -> str:
    """Return a text whose URLs have no user, password, query or fragment."""
    return _SIGNATURE.sub(r"\1", _USER.sub(r"\1…@", text))
