"""The Typer app, and the one place where errors become one-line messages."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from adanat_cli import __version__
from adanat_cli.commands import import_, info, pretrain_nat, sample, tokenize, train_tokenizer
from adanat_cli.core.errors import AdaNATError

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
app.command("train-tokenizer", rich_help_panel="Train")(train_tokenizer.command)
app.command("import", rich_help_panel="Models")(import_.command)
app.command("info", rich_help_panel="Models")(info.command)


def _version(asked: bool) -> None:
    if asked:
        print(f"adanat {__version__}")
        raise typer.Exit


@app.callback()
def callback(
    version: Annotated[  # noqa: ARG001 - the callback of the option does the work
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Token-based image generation with learned, per-sample generation policies."""


def main() -> None:
    """Run the command line; exit codes are 0 done, 1 mistake or failed run, 2 usage, 130 interrupted."""
    try:
        app()
    except AdaNATError as error:
        _fail(f"Error: {error}", 1)
    except KeyboardInterrupt:
        _fail("Interrupted; the same command goes on from the last saved state.", 130)
    except BrokenPipeError:
        # The reader of our output has left (as in `adanat info | head`): no one is there to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(line: str, code: int) -> None:
    print(" ".join(line.split()), file=sys.stderr)
    sys.exit(code)
