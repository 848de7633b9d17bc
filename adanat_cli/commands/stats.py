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
        *_recognition_lines(values["recognition"]),
        *_next_line(values),
        *(f"Skipped: {name} ({reason})" for name, reason in list(values["skipped"].items())[:10]),
    ]


def _recognition_lines(shares: dict[str, float] | None) -> list[str]:
    """How many of the real images are recognised, where that was counted."""
    if shares is None:
        return []
    return [
        f"Recognised as their class: top-1 {shares['top1']:.3f} and top-5 {shares['top5']:.3f} of ImageNet's 1,000, "
        f"{shares['among']:.3f} among the classes of the images"
    ]


def _next_line(values: dict[str, Any]) -> list[str]:
    """The command that takes installed statistics; it takes those in the model's own features by default."""
    if not values["installed"]:
        return []
    option = "" if values["protocol"] == "small" else f" --protocol {values['protocol']}"
    return [f"Measure the model with: adanat evaluate --model {values['installed']}{option}"]
