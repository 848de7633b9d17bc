"""``adanat info``: what a model folder holds."""

from __future__ import annotations

from typing import Annotated

import typer

from adanat_cli.commands import console, options


def command(
    model: Annotated[
        str, typer.Argument(help="Model folder or name; the embedded model by default.", show_default=False)
    ] = "",
    as_json: options.Json = False,
) -> None:
    """Show what a model holds: sizes, classes, policies, results, and where its weights came from."""
    from adanat_cli.core.runs.info import describe, lines

    values = describe(model)
    console.result(values, as_json, lines(values))
