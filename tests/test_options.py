"""Every option of every command, kept in two files that are read whenever one changes.

``python tests/test_options.py`` writes both anew: ``options.txt`` for those who review a change, and the page
``examples/commands.md`` for those who use the program.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import typer
from typer.testing import CliRunner

from adanat_cli.cli import app, loaded
from adanat_cli.commands.examples import EXAMPLES
from adanat_cli.commands.options import takes
from adanat_cli.core.config.base import Config
from adanat_cli.core.config.option import REQUIRED, Asked, argument, option, part

OPTIONS = Path(__file__).parent / "options.txt"
PAGE = Path(__file__).parents[1] / "examples" / "commands.md"
INTRODUCTION = """# All commands

What `adanat COMMAND --help` says, on one page. It is written by `python tests/test_options.py`; do not edit it.
"""


def described() -> str:
    """All commands with their parameters: flags, type, default, panel, and help."""
    group: Any = typer.main.get_command(app)
    commands = [("adanat", group), *((f"adanat {name}", loaded(name)) for name in sorted(group.commands))]
    return "\n\n".join("\n".join(_command(name, command)) for name, command in commands) + "\n"


def _command(name: str, command: Any) -> Iterator[str]:
    yield name
    for parameter in command.params:
        yield f"  {_flags(parameter)}  {_type(parameter)}"
        if parameter.param_type_name == "option":
            yield f"      panel {getattr(parameter, 'rich_help_panel', None) or 'Options'}"
        yield from textwrap.wrap(parameter.help or "-", 110, initial_indent=" " * 6, subsequent_indent=" " * 6)


def page() -> str:
    """The help of all commands in Markdown, in the order of `adanat --help`."""
    group: Any = typer.main.get_command(app)
    commands = {name: loaded(name) for name in group.commands}
    contents = [f"* [`adanat {name}`](#adanat-{name}): {_first(each.help)}" for name, each in commands.items()]
    sections = ["\n".join(_section(*each)) for each in commands.items()]
    before = "\n".join(["Options that go before the command:", "", *map(_item, group.params)])
    return "\n\n".join([INTRODUCTION.rstrip(), "\n".join(contents), before, *sections]) + "\n"


def _section(name: str, command: Any) -> Iterator[str]:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    yield f"## adanat {name}\n\n{_markdown(command.help)}"
    yield "\n" + "\n".join(["```text", " ".join(["adanat", name, "[OPTIONS]", *map(_argument, arguments)]), "```"])
    panels: dict[str, list[str]] = {}
    for parameter in command.params:
        if not parameter.hidden and (parameter.param_type_name == "option" or parameter.help):
            named = "Arguments" if parameter in arguments else getattr(parameter, "rich_help_panel", None) or "Options"
            panels.setdefault(named, []).append(_item(parameter))
    for panel, items in panels.items():
        yield "\n" + "\n".join([f"**{panel}**", "", *items])
    for words, line in EXAMPLES.get(name, ()):
        yield f"\n{words}:\n\n```bash\n{line}\n```"


def _argument(parameter: Any) -> str:
    shown = _flags(parameter).rstrip("….")
    repeated = "..." if parameter.nargs == -1 else ""
    return f"{shown}{repeated}" if parameter.required else f"[{shown.strip('[]')}]{repeated}"


def _item(parameter: Any) -> str:
    names = " / ".join(", ".join(f"`{name}`" for name in part) for part in _spellings(parameter))
    facts = [] if parameter.param_type_name == "argument" else [_kind(parameter)]
    facts += ["required"] if parameter.required else []
    default = re.sub(r"^none \((.*)\)$", r"\1", _default(parameter))
    facts += [] if default in ("none", "False") or parameter.required else [f"default {default}"]
    shown = ", ".join(fact for fact in facts if fact)
    return f"* {names}{f' ({_markdown(shown)})' if shown else ''}: {_markdown(parameter.help or '-')}"


def _spellings(parameter: Any) -> list[list[str]]:
    if parameter.param_type_name == "argument":
        return [[_flags(parameter)]]
    return [part for part in (parameter.opts, parameter.secondary_opts) if part]


def _kind(parameter: Any) -> str:
    words = _type(parameter).partition(", required" if parameter.required else ", default")[0]
    return {"bool": "", "str": "text"}.get(words, words.replace("str", "text"))


def _first(text: str) -> str:
    return _markdown(text).partition("\n\n")[0]


def _markdown(text: str) -> str:
    """Help texts without Rich's escapes, one line a paragraph, where only backticks have a meaning."""
    paragraphs = [" ".join(part.split()) for part in text.replace("\\[", "[").strip().split("\n\n")]
    parts = "\n\n".join(paragraphs).split("`")
    return "`".join(re.sub(r"([*<])", r"\\\1", part) if not odd % 2 else part for odd, part in enumerate(parts))


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
    assert described() == OPTIONS.read_text(), "run `python tests/test_options.py`, and read the difference"


def test_the_page_of_all_commands_is_what_they_say() -> None:
    written = PAGE.read_text() if PAGE.is_file() else ""
    assert page() == written, (
        "a command or its help has changed; run `python tests/test_options.py`, and commit its files"
    )


def test_the_line_that_stands_for_a_command_is_the_first_of_its_help() -> None:
    group: Any = typer.main.get_command(app)
    for name, listed in group.commands.items():
        assert listed.help == " ".join(loaded(name).help.partition("\n\n")[0].split())


def test_a_former_flag_works_for_one_version_and_names_the_new_one() -> None:
    words = ["train-tokenizer", "--dataset", "digits", "--device", "cpu", "--dry-run", "--json"]
    done = CliRunner().invoke(app, [*words, "--steps", "77"], catch_exceptions=False)
    assert json.loads(done.stdout)["training"]["steps"] == 77
    assert "--steps is now --updates" in done.stderr
    assert CliRunner().invoke(app, [*words, "--updates", "77"], catch_exceptions=False).stdout == done.stdout


@pytest.mark.parametrize(
    "typed",
    [
        ["train-tokenizer", "--dataset", "digits", "--steps", "3", "--updates", "5"],
        ["sample", "--temperature", "2", "--remask-temperature", "3"],
        ["train-policy", "--dataset", "digits", "--rollout", "fp32", "--keep-features", "bf16"],
    ],
)
def test_a_former_flag_beside_the_new_one_is_refused(typed: list[str]) -> None:
    done = CliRunner().invoke(app, typed)
    words = re.sub(r"[\s│]+", " ", done.stderr)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{typed[-4]} is the former name of {typed[-2]}; give one of the two." in words


@pytest.mark.parametrize(
    "typed",
    [
        ["sample", "-n", "1", "--output", ""],
        ["train-tokenizer", "--dataset", "digits", "--dry-run", "--data-dir", ""],
        ["pretrain-nat", "--dataset", "digits", "--dry-run", "--tokens", ""],
        ["import", "nat.pth", "--output", ""],
    ],
)
def test_an_empty_path_is_refused_and_is_not_the_current_folder(typed: list[str]) -> None:
    done = CliRunner().invoke(app, typed)
    words = re.sub(r"[\s│]+", " ", done.stderr)
    assert (done.exit_code, done.stdout) == (2, "")
    assert typed[-2] in words
    assert "An empty path was given; give a path, or . for the current folder." in words


@dataclass(frozen=True)
class _Inner(Config):
    rate: float = option(0.5, help="Rate.")
    name: str = option("a", help="Name.")
    hidden: int = 3


@dataclass(frozen=True)
class _Asked:
    files: tuple[Path, ...] = argument(help="Files.")
    size: Literal["small", "large"] = option(REQUIRED, "--size", "-s", help="Size.")
    inner: _Inner = field(default_factory=_Inner)
    words: tuple[str, ...] = option((), "--word", help="Words.", former=("--term",))
    doubled: int = option(2, help="Doubled.", kind=int, read=lambda number: 2 * number)
    kept: int = 7


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        (["a", "b", "-s", "small"], _Asked((Path("a"), Path("b")), "small")),
        (
            ["a", "--size", "large", "--word", "x", "--word", "y", "--doubled", "4", "--name", "n"],
            _Asked((Path("a"),), "large", _Inner(name="n"), ("x", "y"), 8),
        ),
        (["a", "-s", "small", "--term", "x"], _Asked((Path("a"),), "small", words=("x",))),
    ],
)
def test_a_request_holds_what_was_typed_and_its_defaults(typed: list[str], asked: _Asked) -> None:
    taken: list[Any] = []
    toy = typer.Typer()
    toy.command()(takes(_Asked)(taken.append))
    done = CliRunner().invoke(toy, typed, catch_exceptions=False)
    assert (done.exit_code, taken) == (0, [asked])


def test_a_value_that_cannot_be_read_is_a_usage_error() -> None:
    for typed in ("4,a", ""):
        done = CliRunner().invoke(app, ["evaluate", "--steps", typed])
        assert done.exit_code == 2
        assert f"--steps is '{typed}'; expected whole numbers such as 4,8,16" in " ".join(done.stderr.split())


def test_a_part_holds_what_was_typed_alone() -> None:
    taken: list[Any] = []

    @dataclass(frozen=True)
    class Trained:
        training: Asked = part(_Inner, "name")

    toy = typer.Typer()
    toy.command()(takes(Trained)(taken.append))
    for typed in ([], ["--rate", "0.25"]):
        CliRunner().invoke(toy, typed, catch_exceptions=False)
    assert [one.training for one in taken] == [{}, {"rate": 0.25}]
    assert CliRunner().invoke(toy, ["--hidden", "1"]).exit_code == 2


if __name__ == "__main__":
    OPTIONS.write_text(described())
    PAGE.write_text(page())
