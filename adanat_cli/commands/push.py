"""``adanat push``: put a model or a token set on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import typer

from adanat_cli.commands import job, options
from adanat_cli.core.config.share_requests import PushRequest


@options.takes(PushRequest, options.Printing)
def command(request: PushRequest, printing: options.Printing) -> None:
    """Push a model or a token set, with a card: results, use, samples, the policies' curves, how it was trained."""
    from adanat_cli.jobs.share.push import push

    if request.revision:
        if "@" in request.repo:
            raise typer.BadParameter("Give the branch once: as --revision, or after the @.")
        request = replace(request, repo=f"{request.repo}@{request.revision}", revision="")
    job.run(push, request, printing, _lines)


def _lines(values: dict[str, Any]) -> Iterator[str]:
    yield f"Pushed to {values['url']} ({values['revision']}, commit {values['commit'][:12]})"
    for name, num_bytes in values["files"].items():
        yield f"  {name}, {num_bytes / 1e3:,.0f} kB"
