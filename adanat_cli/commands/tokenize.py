"""``adanat tokenize``: turn a data set into token ids once, for training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import typer

from adanat_cli.commands import job, options
from adanat_cli.core.config.requests import TokenizeRequest


@options.takes(TokenizeRequest, options.RunOptions)
def command(request: TokenizeRequest, run: options.RunOptions) -> None:
    """Write the token ids of all images as Parquet; run the same command again to resume."""
    if request.preview_only and request.preview is None:
        raise typer.BadParameter("--preview-only needs --preview FILE.png.")
    if request.output is None and not request.preview_only and not run.dry_run:
        raise typer.BadParameter("No --output was given; name a folder for the tokens, or add --preview-only.")
    from adanat_cli.jobs.tokenize.tokenize import plan, run_tokenize

    if request.preview_only:
        request, run = replace(request, output=None), replace(run, push_to_hub="")
    job.run(run_tokenize, request, run, _lines, plan, pushes="tokens")


def _lines(values: dict[str, Any]) -> list[str]:
    lines = []
    if "preview" in values:
        lines.append(f"Preview: {values['preview']}, PSNR {values['psnr']:.2f} dB")
    if "output" in values:
        shards = "1 shard" if values["num_shards"] == 1 else f"{values['num_shards']} shards"
        lines.append(f"Tokens: {values['output']}, {values['num_images']} images in {shards}")
        skipped = list(values["skipped"].items())
        lines += [f"Skipped: {name} ({reason})" for name, reason in skipped[:10]]
        if len(skipped) > 10:
            lines.append(f"… and {len(skipped) - 10} more; all are in {values['output']}/token_set.json")
    return lines
