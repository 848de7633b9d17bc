"""JSON values against Python's own type hints: what fits a dataclass is built, what does not is said in one line."""

from __future__ import annotations

import dataclasses
import functools
import math
import reprlib
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from adanat_cli.core.errors import AdaNATError, nearest

Built = TypeVar("Built")
_LARGEST = 2**63
_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    types.NoneType: "null",
}
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring = 2, 80


def build(kind: type[Built], values: Any, source: str) -> Built:
    """Build a dataclass from JSON values.

    Args:
        kind: the dataclass; its annotations are the schema, its defaults stand for what is missing.
        values: the fields; lists become tuples.
        source: where the values came from, for the message.

    Raises:
        AdaNATError: if a field is unknown, missing, of another type or refused by the dataclass itself.
    """
    if not isinstance(values, Mapping):
        raise AdaNATError(f"{source}: a setting is of the wrong type: {shown(values)} instead of an object.")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(map(str, values)) - set(fields)):
        meant = nearest(unknown[0], fields)
        hint = f" (did you mean {meant}?)" if meant else ""
        raise AdaNATError(
            f"{source}: unknown setting {', '.join(unknown)[:200]}{hint}; known: {', '.join(sorted(fields))}."
        )
    optional = {name for name, field in fields.items() if _has_default(field)}
    if missing := [name for name in fields if name not in values and name not in optional]:
        raise AdaNATError(f"{source}: missing setting {', '.join(missing)}.")
    hints = field_types(kind)  # type: ignore[arg-type]
    checked = {name: conform(value, hints[name], f"{source}: {name}") for name, value in values.items()}
    try:
        return kind(**checked)
    except AdaNATError as error:
        raise AdaNATError(f"{source}: {error}") from error


def conform_fields(kind: type[Any], values: Any, source: str) -> dict[str, Any]:
    """Return JSON values of which those that a dataclass names fit it; the others, of another edition, stay.

    Raises:
        AdaNATError: if one does not fit, or the values are not an object.
    """
    hints = field_types(kind)  # type: ignore[arg-type]
    given = conform(values, Mapping[str, Any], source)
    return {key: conform(part, hints.get(key, Any), f"{source}: {key}") for key, part in given.items()}


def conform(value: Any, hint: Any, source: str) -> Any:
    """Return a JSON value as the type that a hint names: lists become tuples, keys that are numbers become numbers.

    Args:
        value: value read from JSON.
        hint: type made of bool, int, float, str, None, Literal, unions, tuples, mappings, dataclasses and Any.
        source: where the value came from, with its name, for the message.

    Raises:
        AdaNATError: if it does not fit.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else build(hint, value, source)
    if origin in (Union, types.UnionType):
        return _first_fit(value, hint, source)
    if origin is tuple and isinstance(value, list | tuple):
        return _as_tuple(value, arguments, hint, source)
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {_as_key(key, arguments[0], source): conform(part, arguments[1], source) for key, part in value.items()}
    if not _is_plain(value, hint):
        raise _wrong(value, hint, source)
    return value


def shown(value: Any) -> str:
    """A value as it may stand in a message: short, however large it is."""
    return "null" if value is None else _SHORT.repr(value)


def _first_fit(value: Any, hint: Any, source: str) -> Any:
    for option in get_args(hint):
        try:
            return conform(value, option, source)
        except AdaNATError:
            continue
    raise _wrong(value, hint, source)


def _as_tuple(value: list[Any] | tuple[Any, ...], kinds: tuple[Any, ...], hint: Any, source: str) -> tuple[Any, ...]:
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise _wrong(value, hint, source)
    return tuple(conform(part, kind, source) for part, kind in zip(value, kinds, strict=True))


def _as_key(key: Any, kind: Any, source: str) -> Any:
    """Keys of JSON are text; where numbers are meant, they are written in digits."""
    if kind is not int:
        return conform(key, kind, source)
    if isinstance(key, int) or (isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) < 19):
        return int(key)
    raise _wrong(key, int, source)


def _is_plain(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return any(type(value) is type(option) and value == option for option in get_args(hint))
    if hint is float:
        return type(value) in (int, float) and abs(value) < _LARGEST and math.isfinite(value)
    if hint is int:
        return type(value) is int and abs(value) < _LARGEST
    return isinstance(hint, type) and type(value) is hint


def _wrong(value: Any, hint: Any, source: str) -> AdaNATError:
    if get_origin(hint) is Literal:
        return AdaNATError(f"{source} is {shown(value)}; expected {in_words(hint)}.")
    if hint in (int, float) and type(value) in (int, hint) and not abs(value) < _LARGEST:
        return AdaNATError(f"{source} is {shown(value)}; expected {in_words(hint)} between -2**63 and 2**63.")
    return AdaNATError(f"{source} is of the wrong type: {shown(value)} instead of {in_words(hint)}.")


def in_words(hint: Any) -> str:
    """A type as a message names it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(map(in_words, arguments))
    if origin is tuple:
        return "a list" if arguments[-1] is Ellipsis else f"a list of {len(arguments)}"
    return str(_WORDS.get(hint, "an object"))


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


@functools.cache
def field_types(kind: type[Any], include_extras: bool = False) -> dict[str, Any]:
    """The types of a dataclass's fields by name; extras are what ``Annotated`` adds."""
    hints = get_type_hints(kind, include_extras=include_extras)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
