"""Every option of every command, kept as a file that is read whenever one changes.

``python tests/test_options.py`` writes the file anew.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import typer

from adanat_cli.cli import app

OPTIONS = Path(__file__).parent / "options.txt"


def described() -> str:
    """All commands with their parameters: flags, type, default, panel, and help."""
    group: Any = typer.main.get_command(app)
    commands = [("adanat", group), *((f"adanat {name}", group.commands[name]) for name in sorted(group.commands))]
    return "\n\n".join("\n".join(_command(name, command)) for name, command in commands) + "\n"


def _command(name: str, command: Any) -> Iterator[str]:
    yield name
    for parameter in command.params:
        yield f"  {_flags(parameter)}  {_type(parameter)}"
        if parameter.param_type_name == "option":
            yield f"      panel {getattr(parameter, 'rich_help_panel', None) or 'Options'}"
        yield from textwrap.wrap(parameter.help or "-", 110, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _flags(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    names = ", ".join(parameter.opts)
    return f"{names} / {', '.join(parameter.secondary_opts)}" if parameter.secondary_opts else names


def _type(parameter: Any) -> str:
    hint = parameter.type_descriptor.annotation
    words = [" | ".join(getattr(part, "__name__", str(part)) for part in get_args(hint) or [hint])]
    if parameter.min is not None:
        words.append(f"from {parameter.min}")
    if getattr(parameter, "multiple", False) or parameter.nargs == -1:
        words.append("repeated")
    words.append("required" if parameter.required else f"default {_default(parameter)}")
    if parameter.hidden:
        words.append("hidden")
    return ", ".join(words)


def _default(parameter: Any) -> str:
    value = parameter.default
    told = parameter.show_default if isinstance(getattr(parameter, "show_default", None), str) else None
    plain = "none" if value in (None, "", [], ()) else re.sub(r"\s+", " ", str(value))
    return f"{plain} ({told})" if told else plain


def test_options_are_those_that_the_file_lists() -> None:
    assert described() == OPTIONS.read_text(), "an option has changed; run this file, and read the difference"


if __name__ == "__main__":
    OPTIONS.write_text(described())
