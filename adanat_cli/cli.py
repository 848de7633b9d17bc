"""The Typer app, and the one place where errors become one-line messages."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
import warnings
from typing import Annotated

import typer

from adanat_cli import __version__
from adanat_cli.commands import (
    evaluate,
    import_,
    info,
    pretrain_nat,
    processes,
    pull,
    push,
    sample,
    stats,
    streams,
    tokenize,
    train_policy,
    train_tokenizer,
)
from adanat_cli.core.errors import AdaNATError, printable
from adanat_cli.jobs.runtime.group import is_main_process, num_processes, settle_group
from adanat_cli.jobs.runtime.interrupts import ended_by_signals

_ENDED = {130: "Interrupted", 129: "Ended by SIGHUP", 143: "Ended by SIGTERM"}
"""What exit codes tell: that of Ctrl-C is Typer's, the others are those that make schedulers start again."""

_LONGEST_LINE = 2000
"""Of a message, in letters."""

_PATIENCE = 3.0
"""Seconds for which one of several processes keeps its error to itself; those other than the main one twice as long."""

app = typer.Typer(
    name="adanat",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
app.command("sample", rich_help_panel="Generate")(sample.command)
app.command("tokenize", rich_help_panel="Train")(tokenize.command)
app.command("pretrain-nat", rich_help_panel="Train")(pretrain_nat.command)
app.command("train-policy", rich_help_panel="Train")(train_policy.command)
app.command("train-tokenizer", rich_help_panel="Train")(train_tokenizer.command)
app.command("evaluate", rich_help_panel="Measure")(evaluate.command)
app.command("stats", rich_help_panel="Measure")(stats.command)
app.command("import", rich_help_panel="Models")(import_.command)
app.command("pull", rich_help_panel="Models")(pull.command)
app.command("push", rich_help_panel="Models")(push.command)
app.command("info", rich_help_panel="Models")(info.command)


def _version(asked: bool) -> None:
    if asked:
        print(f"adanat {__version__}")
        raise typer.Exit


@app.callback()
def callback(
    context: typer.Context,
    num_processes: Annotated[
        int,
        typer.Option(
            "--nproc",
            help="Processes of this machine that share the work, one per GPU; before the command, as in "
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
    warnings.showwarning = lambda message, *_, **__: _tell(f"Warning: {message}")  # it may name what strangers named
    try:
        with ended_by_signals():
            settle_group()
            _run()
    except processes.ProcessesLeft:
        raise
    except AdaNATError as error:
        _tell(f"Error: {error}")
        sys.exit(1)
    except SystemExit as leaving:
        if leaving.code in _ENDED:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would change the exit code of the first
        if leaving.code in _ENDED and is_main_process():
            _tell(
                f"{_ENDED[leaving.code]}. What was saved is kept; the same command resumes a training, tokens or a "
                "measurement."
            )
        if num_processes() > 1:
            _end_process(leaving.code)
        raise


def _end_process(code: object) -> None:
    """End a process of a group: the threads of its libraries would now and then abort Python's own end."""
    if code not in _ENDED:  # a group that was broken off cannot be left in order
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _run() -> None:
    """Run the command; of several processes that fail, the one that knows why is the first to say so."""
    try:
        app()
    except Exception as error:
        # Others mostly fail for the same reason as the main process, or because one is gone; the launcher then ends
        # them here, and says which it was.
        main = is_main_process()
        if not main or (num_processes() > 1 and not isinstance(error, AdaNATError)):
            try:
                time.sleep(_PATIENCE if main else 2 * _PATIENCE)
            except SystemExit as ended:
                raise processes.ProcessesLeft(ended.code) from error
        raise
    finally:
        sys.stdout.flush()  # what cannot be written any longer is told before Python's end, which could not tell it


def _tell(line: str) -> None:
    line = " ".join(line.split())
    cut = f"{line[:_LONGEST_LINE]} …" if len(line) > _LONGEST_LINE else line
    print(printable(cut), file=sys.stderr)
