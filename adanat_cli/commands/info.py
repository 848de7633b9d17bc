"""``adanat info``: what a model folder holds, and what a benchmark's numbers are made with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adanat_cli.commands import console, describe, options


def command(
    model: Annotated[
        str,
        typer.Argument(
            help="Model folder, name or Hub id; by default the embedded model and all known names.", show_default=False
        ),
    ] = "",
    dataset: Annotated[
        str, typer.Option("--dataset", "-d", help="Benchmark instead: imagenet256, imagenet512, mscoco or cc3m.")
    ] = "",
    data_dir: options.DataDir = None,
    captions: Annotated[
        Path | None,
        typer.Option(help="With --dataset: write the captions that a number is measured on, one a line."),
    ] = None,
    num_captions: Annotated[
        int | None, typer.Option(help="How many of them; the benchmark's own number by default.", min=1)
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show what a model holds: sizes, classes, policies, results, and where its weights came from."""
    if captions is not None and not dataset:
        raise typer.BadParameter("--captions needs --dataset.")
    if captions is not None:
        from adanat_cli.jobs.share.benchmarks import list_captions

        values = list_captions(dataset, captions, num_captions, data_dir=str(data_dir or ""))
        line = f"Captions: {values['captions']}, {values['num_captions']}, sha256 {values['sha256']}"
        console.result(values, as_json, [line])
        return
    if dataset:
        from adanat_cli.jobs.share.benchmarks import describe_benchmark

        values = describe_benchmark(dataset)
        console.result(values, as_json, describe.benchmark_lines(values))
        return
    from adanat_cli.jobs.share.info import describe as describe_model

    values = describe_model(model)
    console.result(values, as_json, describe.model_lines(values))
