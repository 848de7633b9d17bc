"""``adanat info``: what a model folder holds."""

from __future__ import annotations

from typing import Annotated

import typer

from adanat_cli.commands import console, options


def command(
    model: Annotated[
        str,
        typer.Argument(
            help="Model folder, name or Hub id; by default the embedded model and all known names.", show_default=False
        ),
    ] = "",
    as_json: options.Json = False,
) -> None:
    """Show what a model holds: sizes, classes, policies, results, and where its weights came from."""
    from adanat_cli.core.runs.info import describe, lines

    values = describe(model)
    console.result(values, as_json, lines(values))
