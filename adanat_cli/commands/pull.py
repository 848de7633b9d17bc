"""``adanat pull``: bring a model here."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from adanat_cli.commands import job, options
from adanat_cli.core.config.share_requests import PullRequest


@options.takes(PullRequest, options.Printing)
def command(request: PullRequest, printing: options.Printing) -> None:
    """Fetch a model, or some of its parts.

    A known name is fetched from where its authors published it, checked and converted to safetensors.
    """
    from adanat_cli.jobs.share.pull import pull

    job.run(pull, request, printing, partial(_lines, request.name))


def _lines(name: str, values: dict[str, Any]) -> Iterator[str]:
    yield f"Model: {values['model']}"
    for component, num_bytes in values["components"].items():
        yield f"  {component}, {num_bytes / 1e6:.1f} MB"
    for part in values["missing"]:
        yield (
            f"Not on the Hub: {part['component']}; get {part['file']} from {part['page']} and run "
            f"`adanat pull {name} --tokenizer-file {part['file']}`."
        )
