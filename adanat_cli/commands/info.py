"""``adanat info``: what a model folder holds, and what a benchmark's numbers are made with."""

from __future__ import annotations

import typer

from adanat_cli.commands import console, describe, options
from adanat_cli.core.config.share_requests import InfoRequest


@options.takes(InfoRequest, options.Printing)
def command(request: InfoRequest, printing: options.Printing) -> None:
    """Show what a model holds: sizes, classes, policies, results, and where its weights came from."""
    if request.captions is not None and not request.dataset:
        raise typer.BadParameter("--captions needs --dataset.")
    if request.captions is not None:
        from adanat_cli.jobs.share.benchmarks import list_captions

        data_dir = str(request.data_dir or "")
        values = list_captions(request.dataset, request.captions, request.num_captions, data_dir=data_dir)
        line = f"Captions: {values['captions']}, {values['num_captions']}, sha256 {values['sha256']}"
        console.result(values, printing.as_json, [line])
    elif request.dataset:
        from adanat_cli.jobs.share.benchmarks import describe_benchmark

        values = describe_benchmark(request.dataset)
        console.result(values, printing.as_json, describe.benchmark_lines(values))
    else:
        from adanat_cli.jobs.share.info import describe as describe_model

        values = describe_model(request.model)
        console.result(values, printing.as_json, describe.model_lines(values, request.full))
