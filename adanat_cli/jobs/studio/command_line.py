"""The command line of a request, as one would type it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adanat_cli.core.config.option import Option, options_of


def command_line(command: str, request: Any, names: Mapping[Path, str]) -> str:
    """Return the line that asks for the same; what has its default is left out.

    Args:
        command: such as "sample".
        request: the command's request.
        names: files that the user knows under other names, also within values such as ``table:FILE``.
    """
    options, words = options_of(type(request)), ["adanat", command]
    for field in dataclasses.fields(request):
        value = getattr(request, field.name)
        if field.name in options and value != field.default:
            words += _words(options[field.name], value, names)
    return shlex.join(words)


def _words(option: Option, value: Any, names: Mapping[Path, str]) -> Iterator[str]:
    if option.is_argument:
        yield _text(value, names)
    elif value is True:
        yield option.name
    elif isinstance(value, tuple) and option.kind is None:  # a repeated option
        for each in value:
            yield from (option.name, _text(each, names))
    else:
        yield from (option.name, _text(value, names))


def _text(value: Any, names: Mapping[Path, str]) -> str:
    if hasattr(value, "_asdict"):  # a box, or the sides of an extension
        is_box = "x" in value._fields
        return ",".join(str(each) if is_box else f"{name}={each}" for name, each in value._asdict().items())
    text = str(value)
    for path, name in names.items():
        text = text.replace(str(path), name)
    return text
