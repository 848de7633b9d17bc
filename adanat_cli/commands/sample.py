"""``adanat sample``: images from a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from adanat_cli.commands import job, options
from adanat_cli.core.config.early import check_early
from adanat_cli.core.config.option import option
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.errors import require

if TYPE_CHECKING:
    from adanat_cli.jobs.runtime.reporter import Reporter


@dataclass(frozen=True)
class SamplePrinting(options.Printing):
    """How the result is printed."""

    preview: bool = option(False, help="Also draw the first images in the terminal.", panel="Run")


@options.takes(SampleRequest, SamplePrinting)
def command(request: SampleRequest, printing: SamplePrinting) -> None:
    """Generate images from classes or prompts."""
    check_early(request)
    from adanat_cli.jobs.sample.sample import sample

    is_npz = request.image_format == "npz"
    require(not (printing.preview and is_npz), "--preview draws PNG files, and --format is npz; leave one of them out.")
    job.run(_previewed if printing.preview else sample, request, printing, _lines)


def _previewed(request: SampleRequest, reporter: Reporter) -> dict[str, Any]:
    """Generate images and draw the first on stderr, so that the result on stdout stays as it is."""
    from adanat_cli.commands.preview import obstacle, show
    from adanat_cli.jobs.sample.sample import sample

    console = Console(stderr=True, highlight=False)
    reason = obstacle(console)
    values = sample(request, reporter)
    if reason:
        reporter.warn(f"--preview draws nothing: {reason}. The images are in {values['output']}.")
    else:
        show(values["files"], console)
    return values


def _lines(values: dict[str, Any]) -> Iterator[str]:
    pictures = "1 image" if values["num_images"] == 1 else f"{values['num_images']} images"
    yield f"{pictures} in {values['output']} ({values['seconds']:.3g} s, with the grid)"
    yield f"Grid: {values['grid']}"
    yield from (f"Trace: {path}" for path in values["traces"] if path.endswith((".png", ".gif")))
