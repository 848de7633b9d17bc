"""``adanat edit``: parts of images drawn anew by a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adanat_cli.commands import job, options
from adanat_cli.core.config.early import check_early
from adanat_cli.core.config.edit import EditRequest


@options.takes(EditRequest, options.Printing)
def command(request: EditRequest, printing: options.Printing) -> None:
    """Draw parts of images anew: what a mask or a box covers, or what lies beyond their sides."""
    check_early(request)
    from adanat_cli.jobs.sample.edit import edit

    job.run(edit, request, printing, _lines)


def _lines(values: dict[str, Any]) -> Iterator[str]:
    pictures = "1 image" if values["num_images"] == 1 else f"{values['num_images']} images"
    yield f"{pictures} in {values['output']} ({values['seconds']:.3g} s, with the grid)"
    yield f"Grid: {values['grid']}"
    yield from (f"Trace: {path}" for path in values["traces"] if path.endswith(".png"))
