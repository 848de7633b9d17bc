"""An option is a field of a frozen dataclass: type, default, flags, help and panel stand there and nowhere else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

REQUIRED: Any = dataclasses.MISSING
"""Default of an option that must be given."""

Asked = Mapping[str, Any]
"""Fields of a configuration that were given, by name; what is missing or None follows from elsewhere."""


@dataclass(frozen=True)
class Option:
    """How a field is typed on the command line.

    Attributes:
        flags: such as "--model", "-m"; empty for the field's name, or for a positional argument.
        help: one or two sentences that stand alone.
        panel: heading of the help page that lists it; "" for the general one.
        kind: type on the command line, where it differs from the field's.
        read: function from the typed value to the field's, where they differ.
        former: flags of earlier versions, which still work and which no help page shows.
        is_argument: whether it is positional.
        acts_on: kinds of input that it acts on, see ``adanat_cli.core.config.acting``; empty for all.
        protocols: evaluation protocols that it acts in; empty for all.
        purpose: what it does, where the refusal of an idle option is clearer with it.
        settings: further ones of Typer, such as ``min``, ``metavar`` and ``show_default``.
    """

    flags: tuple[str, ...]
    help: str
    panel: str = ""
    kind: Any = None
    read: Callable[[Any], Any] | None = None
    former: tuple[str, ...] = ()
    is_argument: bool = False
    acts_on: frozenset[str] = frozenset()
    protocols: frozenset[str] = frozenset()
    purpose: str = ""
    settings: Asked = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The flag that messages name."""
        return self.flags[0].partition("/")[0]


@dataclass(frozen=True)
class Part:
    """Options that are the fields of another dataclass.

    Attributes:
        kind: the other dataclass.
        without: fields that are not options here.
        acts_on, purpose: see ``Option``; they hold for all of these options.
    """

    kind: type[Any]
    without: tuple[str, ...] = ()
    acts_on: frozenset[str] = frozenset()
    purpose: str = ""


_OWN = {field.name for field in dataclasses.fields(Option)} - {"flags", "help", "settings", "is_argument"}


def option(default: Any, *flags: str, help: str, **others: Any) -> Any:  # noqa: A002 — Typer's word
    """Declare a field that is also an option; see ``Option`` for the keywords, others are Typer's."""
    return _declare(default, flags, help, False, others)


def argument(default: Any = REQUIRED, *, help: str, **others: Any) -> Any:  # noqa: A002
    """Declare a field that is also a positional argument."""
    return _declare(default, (), help, True, others)


def part(kind: type[Any], *without: str, **others: Any) -> Any:
    """Declare a field that takes what was typed of a configuration's options, by name (``Asked``); see ``Part``."""
    return dataclasses.field(default_factory=dict, metadata={"part": Part(kind, without, **others)})


def options_of(kind: type[Any]) -> dict[str, Option]:
    """The options among a dataclass's own fields, by field name; flags are complete."""
    found: dict[str, Option] = {}
    for field in dataclasses.fields(kind):
        if declared := field.metadata.get("option"):
            flag = "" if declared.is_argument else f"--{field.name.replace('_', '-')}"
            found[field.name] = declared if declared.flags else dataclasses.replace(declared, flags=(flag,))
    return found


def _declare(default: Any, flags: tuple[str, ...], words: str, is_argument: bool, others: dict[str, Any]) -> Any:
    own = {name: others.pop(name) for name in _OWN & set(others)}
    declared = Option(flags, words, is_argument=is_argument, settings=others, **own)
    return dataclasses.field(default=default, metadata={"option": declared})
