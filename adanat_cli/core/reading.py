"""Text, JSON and YAML: untrusted files are read within bounds, and all JSON is written in one way."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adanat_cli.core.errors import AdaNATError

MAX_BYTES = 2**24
"""Largest file of settings, labels or results; adanat itself writes at most a hundredth of it."""
_MAX_DEPTH = 32
"""Deepest nesting of objects and lists; adanat itself writes a quarter of it."""
_MAX_DIGITS = 100
"""Digits of an integer; transformers writes 31 for a length without a limit."""


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a regular file of limited size; a pipe or device is refused before it can block.

    Raises:
        AdaNATError: if it is missing, not a regular file, too large or unreadable.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise AdaNATError(f"{path} is not a file; fetch or write it again.")
            content = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise AdaNATError(f"{path} does not exist; fetch or write it again.") from error
    except (OSError, ValueError) as error:  # ValueError: a name that is not valid for a file
        raise AdaNATError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    if len(content) > max_bytes:
        raise AdaNATError(f"{path} is larger than {max_bytes:,} bytes; expected a small file. Fetch or write it again.")
    return content


def read_json(path: Path, max_bytes: int = MAX_BYTES) -> Any:
    """Read JSON.

    Raises:
        AdaNATError: as ``read_bytes`` and ``parse_json``.
    """
    return parse_json(read_bytes(path, max_bytes), str(path))


def read_object(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        AdaNATError: as ``read_json``, or if it is a list or scalar.
    """
    values = read_json(path, max_bytes)
    if not isinstance(values, dict):
        raise AdaNATError(f"{path} is not a JSON object; fetch or write it again.")
    return values


def parse_json(text: str | bytes, source: str, infinite: bool = False) -> Any:
    """Parse JSON; numbers that are not finite, which older versions wrote, are read as null.

    Args:
        text: text, or bytes in UTF-8, UTF-16 or UTF-32.
        source: where it came from, for the message.
        infinite: keep such numbers instead, which training states contain.

    Raises:
        AdaNATError: if it is not JSON, is nested too deeply or has an integer of more than 100 digits.
    """
    try:
        number = float if infinite else _finite
        values = json.loads(text, parse_int=_integer, parse_float=number, parse_constant=number)
        _check_depth(values)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise AdaNATError(f"{source} cannot be read as JSON ({reason}); fetch or write it again.") from error
    return values


def read_yaml(path: Path, max_bytes: int = MAX_BYTES, max_depth: int = _MAX_DEPTH, as_text: bool = False) -> Any:
    """Read plain YAML: lists, mappings and scalars.

    Aliases, deep nesting and repeated keys are refused before anything is built, and no tag builds an object.

    Args:
        path: the file.
        max_bytes: size of the largest file.
        max_depth: deepest nesting of lists and mappings.
        as_text: keep every scalar as text; otherwise they are YAML 1.1's, and ``1e-3`` is a number, as in YAML 1.2.

    Raises:
        AdaNATError: as ``read_bytes``, or if it is not such YAML.
    """
    import yaml  # few commands read any

    content, loader, depth = read_bytes(path, max_bytes), yaml.BaseLoader if as_text else _yaml_loader(), 0
    try:
        for event in yaml.parse(content, Loader=yaml.BaseLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > max_depth or isinstance(event, yaml.AliasEvent):
                raise ValueError("it holds an alias, or lists nested too deeply")
        _check_keys(yaml.compose(content, Loader=yaml.BaseLoader))
        return yaml.load(content, Loader=loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise AdaNATError(f"{path} is not YAML: {error.problem or error.context}{line}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise AdaNATError(f"{path} is not YAML: {str(error).splitlines()[0]}.") from error


@functools.cache
def _yaml_loader() -> Any:
    """PyYAML's safe loader, which also reads numbers such as ``1e-3``."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    number = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$", re.ASCII)
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    return Loader


def _check_keys(root: Any) -> None:
    """Check that no mapping holds a key twice."""
    import yaml

    nodes = [root]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise ValueError(f"it holds a key twice, {twice!r}")
            nodes += [value for _, value in node.value]


def json_text(values: Any, indent: int | None = None, ascii_only: bool = False) -> str:
    """Return strict JSON, with null for numbers that are not finite and escapes for lone surrogates."""
    try:
        text = json.dumps(values, indent=indent, ensure_ascii=ascii_only, allow_nan=False)
    except ValueError:
        text = json.dumps(_without_infinities(values), indent=indent, ensure_ascii=ascii_only, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # a lone surrogate becomes JSON's own escape


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _check_depth(values: Any) -> None:
    """Check the nesting level by level, without recursion."""
    level: list[Any] = [values]
    for _ in range(_MAX_DEPTH + 1):
        level = [node for node in level if isinstance(node, dict | list)]
        if not level:
            return
        level = [part for node in level for part in (node.values() if isinstance(node, dict) else node)]
    raise RecursionError


def _without_infinities(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _without_infinities(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_without_infinities(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
