"""Options of a command, made from the fields of its request (``adanat_cli.core.config.option``)."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import typer

from adanat_cli.commands import console
from adanat_cli.commands.completion import completion
from adanat_cli.core.config.option import REQUIRED, Option, Part, option, options_of
from adanat_cli.core.config.schema import field_types
from adanat_cli.core.errors import AdaNATError

_KEYWORD = inspect.Parameter.KEYWORD_ONLY


@dataclass(frozen=True)
class Printing:
    """How a command prints its result."""

    as_json: bool = option(False, "--json", help="Print the result as one JSON object.", panel="Run")


@dataclass(frozen=True)
class RunOptions(Printing):
    """What every command has whose result can be pushed."""

    push_to_hub: str = option(
        "",
        help="Hub id user/repo\\[@branch] to push the result to; account and id are checked before the run starts.",
        panel="Run",
    )
    dry_run: bool = option(False, help="Print what would run and what it takes, and do nothing else.", panel="Run")


@dataclass(frozen=True)
class TrainingOptions(RunOptions):
    """What the trainings have as well."""

    print_config: bool = option(
        False, help="Print the settings of this run as YAML, for --config, and do nothing else.", panel="Run"
    )

    @property
    def only_plans(self) -> bool:
        """Whether nothing runs."""
        return self.dry_run or self.print_config


def need(value: object, flag: str, advice: str) -> None:
    """Refuse a command line that lacks an option which nothing else stands for.

    Raises:
        typer.BadParameter: if the value is empty.
    """
    if not value:
        raise typer.BadParameter(f"No {flag} was given; {advice}.")


def need_data(request: Any) -> None:
    """Refuse a training without data: typed, or those of the run that ``--config`` names."""
    need(request.dataset or request.config, "--dataset", "name the data, or a run's config.json with --config")


def takes(*kinds: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function of requests: its options are their fields, walked into nested configurations."""

    def made(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**typed: Any) -> None:
            function(*(_request(kind, typed) for kind in kinds))

        command.__signature__ = inspect.Signature([*_parameters(kinds)])  # type: ignore[attr-defined]
        command.__annotations__ = {}
        return command

    return made


def _parameters(kinds: tuple[type[Any], ...]) -> Iterator[inspect.Parameter]:
    for kind in kinds:
        for name, one, hint, default in _walk(kind):
            is_path = hint is Path or set(get_args(hint)) == {Path, NoneType}
            settings = {**({"parser": _path, "metavar": "PATH"} if is_path else {}), **one.settings}
            if one.is_argument:
                if offered := completion((str(one.settings.get("metavar", name.upper())),)):
                    settings["autocompletion"] = offered
                info = typer.Argument(help=one.help, **settings)
            else:
                if (offered := completion(one.flags)) and "autocompletion" not in settings:
                    settings["autocompletion"] = offered
                info = typer.Option(*one.flags, help=one.help, rich_help_panel=one.panel or None, **settings)
            given = inspect.Parameter.empty if default is REQUIRED else default
            yield inspect.Parameter(name, _KEYWORD, default=given, annotation=Annotated[hint, info])
            if one.former:
                info = typer.Option(*one.former, hidden=True)
                yield inspect.Parameter(f"{name}__former", _KEYWORD, default=None, annotation=Annotated[hint, info])


def _path(text: str | Path) -> Path:
    """Read a path; an empty one, as of an unset variable in a script, would mean the current folder."""
    if not str(text):
        raise typer.BadParameter("An empty path was given; give a path, or . for the current folder.")
    return Path(text)


def _walk(kind: type[Any], prefix: str = "", part: Part | None = None) -> Iterator[tuple[str, Option, Any, Any]]:
    """Yield name, option, type and default of every option; in a part, what was not typed is None."""
    hints, own = field_types(kind), options_of(kind)  # type: ignore[arg-type]
    for field in dataclasses.fields(kind):
        name, hint, default = prefix + field.name, hints[field.name], field.default
        if inner := _inner(field, hint):
            yield from _walk(inner.kind, f"{name}__", field.metadata.get("part"))
        elif field.name in own and field.name not in (part.without if part else ()):
            one = own[field.name]
            if one.kind is not None:
                hint, default = one.kind | None, default if default is REQUIRED else None
            if get_origin(hint) is tuple:
                hint = list[hint.__args__[0]] | None  # type: ignore[name-defined]
            if part:
                hint, default = hint | None, None
            yield name, one, hint, None if default == () else default


def _inner(field: dataclasses.Field[Any], hint: Any) -> Part | None:
    """The configuration that a field holds, or typed options of which it holds."""
    return field.metadata.get("part") or (Part(hint) if dataclasses.is_dataclass(hint) else None)  # type: ignore[arg-type]


def _request(kind: type[Any], typed: dict[str, Any], prefix: str = "", part: Part | None = None) -> Any:
    """Build a request of what was typed; of a part, a mapping of it."""
    hints, own, values = field_types(kind), options_of(kind), {}  # type: ignore[arg-type]
    for field in dataclasses.fields(kind):
        name = prefix + field.name
        if inner := _inner(field, hints[field.name]):
            values[field.name] = _request(inner.kind, typed, f"{name}__", field.metadata.get("part"))
        elif name in typed:
            values[field.name] = _value(own[field.name], typed, name)
    given = {name: value for name, value in values.items() if value is not None}
    return given if part else kind(**given)


def _value(one: Option, typed: dict[str, Any], name: str) -> Any:
    """The field's value; None if it was not typed."""
    value = typed[name]
    if (former := typed.get(f"{name}__former")) is not None:
        if value is not None:
            raise typer.BadParameter(f"{one.former[0]} is the former name of {one.name}; give one of the two.")
        console.ConsoleReporter().warn(f"{one.former[0]} is now {one.name}; the next version knows the new name only.")
        value = former
    if value is None:
        return None
    if one.read is not None:
        try:
            return one.read(value)
        except AdaNATError as error:
            raise typer.BadParameter(str(error)) from error
    return tuple(value) if isinstance(value, list) else value
