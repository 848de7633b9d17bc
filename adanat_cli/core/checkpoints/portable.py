"""Values that may leave this machine: local paths are reduced to their last part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

_PATH = re.compile(
    r"(?P<head>(?:[\w.-]+[=:])?)(?P<path>(?:/(?!/)|\.{1,2}/|~[\w.-]*/|[A-Za-z]:[\\/](?!/)|\\\\).*)", re.DOTALL
)
"""A path that is absolute or begins with ``./``, ``../`` or ``~``; also after ``dino=`` or ``table:``."""
_WITHIN = re.compile(r"(?<![\w:/.~-])~?(?:/[\w.@%+-]+){2,}/?")
"""An absolute path within a sentence; neither a URL nor a Hub id."""


def portable(values: Any) -> Any:
    """Return JSON values with every local path reduced to its last part; tuples become lists."""
    if isinstance(values, Mapping):
        return {key: portable(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [portable(value) for value in values]
    return _portable_text(values) if isinstance(values, str) else values


def _portable_text(text: str) -> str:
    if found := _PATH.fullmatch(text):
        return found["head"] + _last_name(found["path"])
    return _WITHIN.sub(lambda found: _last_name(found[0]), text)


def _last_name(path: str) -> str:
    return (PureWindowsPath(path) if "\\" in path else PurePosixPath(path)).name
