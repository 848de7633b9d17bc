"""``adanat sample``: images from a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adanat_cli.commands import job, options
from adanat_cli.core.config.requests import SampleRequest


@options.takes(SampleRequest, options.Printing)
def command(request: SampleRequest, printing: options.Printing) -> None:
    """Generate images from classes or prompts."""
    from adanat_cli.jobs.sample.sample import sample

    job.run(sample, request, printing, _lines)


def _lines(values: dict[str, Any]) -> Iterator[str]:
    pictures = "1 image" if values["num_images"] == 1 else f"{values['num_images']} images"
    yield f"{pictures} in {values['output']} ({values['images_per_second']:.3g} images/s)"
    yield f"Grid: {values['grid']}"
    yield from (f"Trace: {path}" for path in values["traces"] if path.endswith((".png", ".gif")))
