"""``adanat pull``: bring a model here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from adanat_cli.commands import console, options


def command(
    name: Annotated[
        str, typer.Argument(help="Hub id user/repo\\[@revision], or a known name, as `adanat info` lists them.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Model folder to make or to add to. Without it, a Hub model stays in the Hub client's cache, where "
            "--model finds it, and a known name goes to models/NAME.",
        ),
    ] = None,
    components: Annotated[
        list[str] | None,
        typer.Option("--component", help="Only this part, such as nat or policies/steps-8; repeat for several."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Only what sampling by the policy for so many steps needs.", min=1)
    ] = None,
    tokenizer_file: Annotated[
        Path | None,
        typer.Option("--tokenizer-file", help="The tokenizer of a known model, where that is not on the Hub."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace parts that the output has.")] = False,
    as_json: options.Json = False,
) -> None:
    """Fetch a model: all of it, or the parts that are named.

    A known name is fetched from where its authors published it, checked and converted to safetensors.
    """
    from adanat_cli.core.config.requests import PullRequest
    from adanat_cli.jobs.share.pull import pull

    request = PullRequest(name, output, tuple(components or ()), steps, tokenizer_file, replace)
    values = pull(request, console.reporter())
    console.result(values, as_json, _lines(values, name))


def _lines(values: dict[str, Any], name: str) -> Iterator[str]:
    """The result for people."""
    yield f"Model: {values['model']}"
    for component, num_bytes in values["components"].items():
        yield f"  {component}, {num_bytes / 1e6:.1f} MB"
    for part in values["missing"]:
        yield (
            f"Not on the Hub: {part['component']}; get {part['file']} from {part['page']} and run "
            f"`adanat pull {name} --tokenizer-file {part['file']}`."
        )
