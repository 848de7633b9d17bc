"""``adanat stats``: reference statistics of real images."""

from __future__ import annotations

from typing import Any

from adanat_cli.commands import job, options
from adanat_cli.core.config.requests import StatsRequest


@options.takes(StatsRequest, options.Printing)
def command(request: StatsRequest, printing: options.Printing) -> None:
    """Write the reference statistics for `adanat evaluate`; run the same command again to resume."""
    from adanat_cli.jobs.evaluate.stats import make_stats

    job.run(make_stats, request, printing, _lines)


def _lines(values: dict[str, Any]) -> list[str]:
    return [
        f"Statistics: {values['output']}, {values['num_images']:,} images of {values['source']}",
        f"Protocol {values['protocol']}: {values['extractor']}, weights {values['weights_hash'][:12]}; features of "
        f"{values['num_features']:,} images"
        + (f", {values['num_classes']:,} classes" if values["num_classes"] else ""),
        *([f"Measure the model with: adanat evaluate --model {values['installed']}"] if values["installed"] else []),
        *(f"Skipped: {name} ({reason})" for name, reason in list(values["skipped"].items())[:10]),
    ]
