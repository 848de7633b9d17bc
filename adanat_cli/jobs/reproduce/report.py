"""The report of a reproduction: one HTML file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adanat_cli.jobs.evaluate import page
from adanat_cli.jobs.evaluate.gallery import Gallery
from adanat_cli.jobs.evaluate.in_words import how_measured
from adanat_cli.jobs.evaluate.tables import COLUMNS, Row, cells
from adanat_cli.jobs.reproduce.compare import HEAD, tables, unjudged

_VERDICTS = {"equal": "equal", "within": "within", "outside": "outside", "not judged": "unjudged"}
"""Verdict -> class of its cell."""


def write_report(path: Path, values: Mapping[str, Any], shown: Sequence[Gallery]) -> None:
    """Write what ``reproduce`` found.

    Args:
        path: HTML file.
        values: what ``reproduction.json`` holds.
        shown: images of each set, some of them twice.
    """
    comparisons, rows = values["comparisons"], values["results"]
    numbers = {verdict: sum(one["verdict"] == verdict for one in comparisons) for verdict in _VERDICTS}
    counted = ", ".join(f"{number} {verdict}" for verdict, number in numbers.items() if number)
    lead = [
        f"{len(comparisons)} figures measured again: {counted}."
        if comparisons
        else "No published figure of this benchmark is known to this version; the measured ones stand alone."
    ]
    left = [f"Not measured again: {words} ({why})" for words, why in values["left_out"].items()]
    sections = []
    if comparisons:
        judged = [one for one in comparisons if one["tolerance"] is not None]
        dots = page.band([_name(one) for one in judged], [_share(one) for one in judged]) if judged else ""
        below = page.notes([*unjudged(comparisons), values["derivation"], *left])
        compared = (
            page.heading(title) + page.table(HEAD, body, _VERDICTS) for title, body in tables(comparisons).items()
        )
        sections += [
            page.section("Differences as shares of their tolerance", dots, below),
            page.section("Expected and measured", *compared),
        ]
    protocols: dict[str, list[Row]] = {}
    for row in rows:
        protocols.setdefault(row["settings"]["protocol"], []).append(row)
    sections += [
        page.section(f"All figures, protocol {protocol}", page.table(*cells(some)), page.notes([*how_measured(some)]))
        for protocol, some in protocols.items()
    ]
    sections.append(page.section("First images", *map(page.images, {one.name: one for one in shown}.values())))
    sections.append(page.section("How it was measured", page.details("Everything, as JSON", dict(values))))
    page.write_page(path, f"Reproduction of {values['name']}", lead, sections)


def _name(one: Mapping[str, Any]) -> str:
    return f"{one['schedule']}, {one['num_steps']} steps, {one['protocol']}: {COLUMNS[one['metric']][0]}"


def _share(one: Mapping[str, Any]) -> float:
    difference: float = one["measured"] - one["expected"] - one["correction"]
    if one["verdict"] == "equal":
        return 0.0
    return difference / one["tolerance"] if one["tolerance"] else math.copysign(math.inf, difference)
