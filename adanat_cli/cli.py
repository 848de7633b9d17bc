"""The Typer app, and the conversion of errors to one-line messages."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
import warnings
from importlib import import_module
from keyword import iskeyword
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from adanat_cli import __version__
from adanat_cli.commands import processes, streams
from adanat_cli.commands.examples import epilog
from adanat_cli.core.errors import AdaNATError, printable
from adanat_cli.jobs.runtime.group import is_main_process, num_processes, settle_group
from adanat_cli.jobs.runtime.interrupts import ended_by_signals, kept

_ENDED = {130: "Interrupted", 129: "Ended by SIGHUP", 143: "Ended by SIGTERM"}
"""Exit code -> message. Typer sets that of Ctrl-C; the others make schedulers requeue the job."""

_LONGEST_LINE = 2000
"""Characters of a message; longer ones are cut."""

_PATIENCE = 3.0
"""Seconds before the main one of several processes reports an unexpected error; the others wait twice as long."""

_KIND_OF_ERROR = "Value error, "
"""How Pydantic, with which Typer reads options, begins the message of a ValueError."""

_LOST = ("Connection closed by peer", "Connection reset by peer")
"""Words of gloo's error in a process that waits for one that is gone."""


class _PlainGroup(TyperGroup):
    """Commands that are loaded when called; usage errors do not name the type of Python's error, as Typer's do."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command that is called."""
        name, command, left = super().resolve_command(ctx, args)
        return name, loaded(name) if name in _LINES else command, left

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix(_KIND_OF_ERROR)
            raise


app = typer.Typer(
    name="adanat",
    cls=_PlainGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
_COMMANDS = {
    "Generate": {
        "sample": "Generate images from classes or prompts.",
        "edit": "Draw parts of images anew: what a mask or a box covers, or what lies beyond their sides.",
        "studio": "Serve a page on this machine: watch images appear, compare schedules, change them by hand, edit "
        "images.",
    },
    "Train": {
        "tokenize": "Write the token ids of all images as Parquet; run the same command again to resume.",
        "pretrain-nat": "Train a NAT on a token set; run the same command again to resume.",
        "train-policy": "Train a generation policy for a model; run the same command again to resume.",
        "train-tokenizer": "Train a small VQ autoencoder; run the same command again to resume.",
    },
    "Measure": {
        "evaluate": "Measure FID, sFID, Inception Score, precision, recall, density, coverage and KID, and the CLIP "
        "score of prompts.",
        "reproduce": "Measure published figures again, or those that a model records of itself, and compare.",
        "stats": "Write the reference statistics for `adanat evaluate`; run the same command again to resume.",
        "bench": "Measure sampling, tokenizing and training: speed, floating-point operations and memory.",
    },
    "Models": {
        "import": "Import the authors' weights (VQGAN, NAT, AdaNAT or AdaGen policy) into a model folder.",
        "pull": "Fetch a model, or some of its parts.",
        "push": "Push a model or a token set, with a card: results, use, samples, the policies' curves, how it was "
        "trained.",
        "info": "Show what a model holds: sizes, classes, policies, results, and where its weights came from.",
    },
}
"""Panel -> commands, each with its line of `adanat --help`, which is the first of its own help."""
_LINES = {name: line for commands in _COMMANDS.values() for name, line in commands.items()}
for _panel, _commands in _COMMANDS.items():
    for _name, _line in _commands.items():
        app.command(_name, rich_help_panel=_panel, help=_line)(lambda: None)


def loaded(name: str) -> Any:
    """One of the commands, as Typer runs it; its module is imported here, so that others and `--help` do without."""
    module = import_module(f"adanat_cli.commands.{name.replace('-', '_')}{'_' * iskeyword(name)}")
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(name, epilog=epilog(name))(module.command)
    return typer.main.get_command(alone)


def _version(requested: bool) -> None:
    if requested:
        print(f"adanat {__version__}")
        raise typer.Exit


@app.callback()
def callback(
    context: typer.Context,
    num_processes: Annotated[
        int,
        typer.Option(
            "--nproc",
            help="Processes on this machine that share the work, one per GPU; goes before the command, as in "
            "`adanat --nproc 8 pretrain-nat …`.",
            metavar="N",
        ),
    ] = 1,
    version: Annotated[  # noqa: ARG001 - its own callback prints it and leaves
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Token-based image generation with learned, per-sample generation policies."""
    command = context.invoked_subcommand
    if num_processes != 1 and command is not None:
        processes.launch(num_processes, command, sys.argv[1:])


def main() -> None:
    """Run the command line; exit codes are 0 done, 1 mistake or failed run, 2 usage, 128 + N ended by signal N."""
    streams.prepare()
    warnings.showwarning = lambda message, *_, **__: _print_line(
        f"Warning: {message}"
    )  # it may contain names from untrusted files
    try:
        with ended_by_signals():
            settle_group()
            _run()
    except processes.ProcessesLeft:
        raise
    except AdaNATError as error:
        _print_line(f"Error: {error}")
        sys.exit(1)
    except SystemExit as leaving:
        if leaving.code in _ENDED:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would change the exit code of the first
        if leaving.code in _ENDED and is_main_process():
            _print_line(f"{_ENDED[leaving.code]}. {kept(sys.argv[1:])}".rstrip())
        if num_processes() > 1:
            _end_process(leaving.code)
        raise


def _end_process(code: object) -> None:
    """End a process of a group at once: during Python's own shutdown, threads of libraries sometimes abort it."""
    if code not in _ENDED:  # an interrupted group cannot be left in an orderly way
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _run() -> None:
    """Run the command; of several processes that fail, the one that knows the cause reports first."""
    try:
        app()
    except Exception as error:
        # The others mostly fail for the same reason as the main process, or because one is gone; the launcher then ends
        # them while they wait here.
        main = is_main_process()
        if not main or (num_processes() > 1 and not isinstance(error, AdaNATError)):
            try:
                time.sleep(_PATIENCE if main else 2 * _PATIENCE)
            except SystemExit as ended:
                raise processes.ProcessesLeft(ended.code) from error
        if not main and any(words in str(error) for words in _LOST):
            raise processes.ProcessesLeft(1) from error  # the process that left has said why, or the launcher does
        raise
    finally:
        sys.stdout.flush()  # a failure to write must be reported before Python's own shutdown, which cannot report it


def _print_line(line: str) -> None:
    """Print one line on standard error that cannot act on a terminal."""
    line = " ".join(line.split())
    cut = f"{line[:_LONGEST_LINE]} …" if len(line) > _LONGEST_LINE else line
    print(printable(cut), file=sys.stderr)
