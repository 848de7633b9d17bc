"""``adanat import``: bring the authors' weight files into a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from adanat_cli.commands import console, options

_UNTOLD = "What the files do not tell"


def command(
    files: Annotated[list[Path], typer.Argument(help="Weight files, one network each.", metavar="FILE…")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Model folder to make, or to add to.", metavar="MODEL")
    ],
    kind: Annotated[
        Literal["auto", "vqgan", "nat", "policy"],
        typer.Option("--kind", help="What the files hold; auto tells by the names of the weights."),
    ] = "auto",
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            help="Steps that the policy is for; by default what the file itself says.",
            min=1,
            rich_help_panel=_UNTOLD,
        ),
    ] = None,
    residual: Annotated[
        bool | None,
        typer.Option(
            "--residual/--no-residual",
            help="Whether the policy is added to the cosine schedule; by default as the file's layout says.",
            show_default=False,
            rich_help_panel=_UNTOLD,
        ),
    ] = None,
    smoothing: Annotated[
        float | None,
        typer.Option(
            "--smoothing",
            help="Smoothing over the steps; by default 0.8 for AdaGen's files, else 0.",
            rich_help_panel=_UNTOLD,
        ),
    ] = None,
    num_heads: Annotated[
        int | None,
        typer.Option(
            "--num-heads", help="Attention heads; published widths know theirs.", min=1, rich_help_panel=_UNTOLD
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            "--image-size",
            help="Side of the images in pixels; by default what grid and tokenizer give.",
            min=1,
            rich_help_panel=_UNTOLD,
        ),
    ] = None,
    entry: Annotated[
        str,
        typer.Option(
            "--entry",
            help="Entry of the file to take, such as model; by default an average (ema) if there is one.",
            show_default=False,
            rich_help_panel=_UNTOLD,
        ),
    ] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Replace components that the model has.")] = False,
    as_json: options.Json = False,
) -> None:
    """Import the authors' weights (VQGAN, NAT, AdaNAT or AdaGen policy) into a model folder.

    Files are read without running what a pickle asks for, and stored as safetensors.
    """
    from adanat_cli.core.config.requests import ImportRequest
    from adanat_cli.jobs.share.import_weights import import_weights

    request = ImportRequest(
        tuple(files), output, kind, steps, residual, smoothing, num_heads, image_size, replace, entry
    )
    values = import_weights(request, console.reporter())
    names = ", ".join(part["component"] for part in values["components"])
    console.result(values, as_json, [f"Model: {values['model']}", f"Imported: {names}"])
