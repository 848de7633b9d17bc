"""``adanat studio``: a local page to draw, compare, steer and edit images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adanat_cli.commands import job, options
from adanat_cli.core.config.studio import StudioRequest


@options.takes(StudioRequest, options.Printing)
def command(request: StudioRequest, printing: options.Printing) -> None:
    """Serve a page on this machine: watch images appear, compare schedules, change them by hand, edit images."""
    from adanat_cli.jobs.studio.serve import serve

    job.run(serve, request, printing, _lines)


def _lines(values: dict[str, Any]) -> Iterator[str]:
    pictures = "1 image" if values["num_images"] == 1 else f"{values['num_images']} images"
    yield f"The studio is closed; it drew {pictures}."
