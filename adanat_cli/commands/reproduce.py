"""``adanat reproduce``: published or recorded figures beside measured ones."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from adanat_cli.commands import job, options
from adanat_cli.commands.tables import drawn
from adanat_cli.commands.wording import line_width
from adanat_cli.core.config.option import option
from adanat_cli.core.config.reproduce import ReproduceRequest
from adanat_cli.core.data.described import plural
from adanat_cli.core.errors import AdaNATError


@dataclass(frozen=True)
class Planning(options.Printing):
    """How the result is printed, and whether only a plan is wanted."""

    dry_run: bool = option(
        False, help="Print what is missing and what the run costs, and do nothing else.", panel="Run"
    )


@options.takes(ReproduceRequest, Planning)
def command(request: ReproduceRequest, printing: Planning) -> None:
    """Measure published figures again, or those that a model records of itself, and compare.

    Files of the authors that are on the Hub are fetched, others are named. The tolerance follows from the spread of the
    images that were measured. Exits with 1 where a figure lies outside it. Run the same command again to resume.
    """
    from adanat_cli.jobs.reproduce.reproduce import plan, reproduce

    values = job.run(plan if printing.dry_run else reproduce, request, printing, _lines)
    if values.get("by_hand") and not printing.dry_run:
        raise AdaNATError(
            f"To be got by hand: {', '.join(values['by_hand'])}; nothing was fetched or measured. Get what is missing "
            "as said above, then run the same command again."
        )
    if bad := values.get("outside"):
        raise AdaNATError(f"{len(bad)} {plural('figure', len(bad))} outside the tolerance: {'; '.join(bad)}.")


def _lines(values: dict[str, Any]) -> Iterator[str]:
    if "comparisons" not in values:
        yield from _plan(values)
        return
    from adanat_cli.jobs.reproduce.compare import HEAD, footnote, tables, unjudged, verdict

    if values["comparisons"]:
        for title, body in tables(values["comparisons"]).items():
            yield f"{title}:"
            yield from drawn(HEAD, body)
        yield from unjudged(values["comparisons"])
        yield from textwrap.wrap(footnote(values["comparisons"]), line_width())
    else:
        from adanat_cli.jobs.evaluate.tables import cells

        yield from drawn(*cells(values["results"]))
        yield "No published figure of this benchmark is known to this version; the measured ones stand alone."
    yield from (f"Not measured again: {words} ({why})" for words, why in values["left_out"].items())
    yield f"Report: {values['report']}"
    if values["comparisons"]:
        yield verdict(values["comparisons"])


def _plan(values: dict[str, Any]) -> Iterator[str]:
    """What is missing, and the cost."""
    for need in values["needs"]:
        state = f"here: {need['here']}" if need["here"] else "MISSING" if need["by_hand"] else "to be fetched"
        yield f"{need['part']}: {need['file']}, {state}"
        if need["here"]:
            continue
        size = f"{'' if need['is_exact'] else 'about '}{need['num_bytes'] / 1e6:,.0f} MB" if need["num_bytes"] else ""
        sha256 = f"sha256 {need['sha256']}{'…' if len(need['sha256']) < 64 else ''}" if need["sha256"] else ""
        yield from (f"  {line}" for line in (need["place"], ", ".join(filter(None, (size, sha256)))) if line)
        yield f"  {need['advice']}"
    cost = values["cost"]
    figures = (
        f"{values['figures']} {plural('figure', values['figures'])}" if values["figures"] else "no published figure"
    )
    yield f"Compared: {figures}"
    yield from (f"Not measured again: {words} ({why})" for words, why in values["left_out"].items())
    if cost.get("fetched_bytes"):
        yield f"Missing: about {cost['fetched_bytes'] / 1e6:,.0f} MB"
    yield (
        f"Cost: {cost['num_images']:,} images, about {cost['tera_flops']:,.4g} TFLOPs for the NAT (`adanat bench` says "
        f"what this machine does in a second), and up to {cost['feature_bytes'] / 1e6:,.0f} MB of features on disk "
        "until they are measured"
    )
