"""``adanat evaluate``: measure generated images against a reference."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from adanat_cli.commands import job, options
from adanat_cli.core.config.option import option
from adanat_cli.core.config.requests import EvaluateRequest
from adanat_cli.core.errors import printable, require


@dataclass(frozen=True)
class TablePrinting(options.Printing):
    """How the result is printed."""

    table: Literal["rich", "latex", "csv"] = option(
        "rich",
        help="rich: a table for the terminal, the same as Markdown, and how it was measured. latex or csv: that table "
        "alone, for a paper or a spreadsheet.",
        panel="Run",
    )


@options.takes(EvaluateRequest, TablePrinting)
def command(request: EvaluateRequest, printing: TablePrinting) -> None:
    """Measure FID, sFID, Inception Score, precision, recall, density, coverage and KID, and the CLIP score of prompts.

    Protocol efficientnet also measures the share of images that are recognised as their class of ImageNet.

    The images are a model's, its reconstructions of real ones (--reconstruct), or those of --images or --samples. Run
    the same command again to resume.
    """
    from adanat_cli.jobs.evaluate.evaluate import evaluate

    alone = printing.table != "rich"
    require(not (alone and printing.as_json), f"--json and --table {printing.table} are both given; choose one.")
    job.run(evaluate, request, printing, {"rich": _lines, "latex": _latex, "csv": _csv}[printing.table])


def _lines(values: dict[str, Any]) -> list[str]:
    """The result for people: a table, the same as Markdown, and where the files are."""
    from adanat_cli.jobs.evaluate.report import other_classes
    from adanat_cli.jobs.evaluate.tables import cells, markdown

    rows = values["results"]
    head, body = cells(rows)
    table = Table(*head)
    for line in body:
        table.add_row(*(Text(printable(cell)) for cell in line))
    text = io.StringIO()
    # As wide as it needs to be: a log is not a terminal, and a folded number cannot be read.
    Console(file=text, width=max(100, 20 * len(head))).print(table)
    settings = rows[0]["settings"]
    lines = [
        *text.getvalue().rstrip().split("\n"),
        _protocol(rows[0]),
        *_neighbors_line(rows[0]),
        *([f"Not of the same classes: {other_classes(rows[0]['classes'])}."] if "classes" in rows[0] else []),
        *_seeds_line(values["summary"]),
        *_held_line(rows[0]),
        *_recognition_line(rows),
        *_clip_line(settings),
        "",
        *markdown(rows),
        "",
        *(f"Skipped: {name} ({reason})" for name, reason in list(rows[0].get("skipped", {}).items())[:10]),
        *(f"Not measured: {reason}: {', '.join(names)}" for reason, names in _absent(rows).items()),
        f"Results: {values['evaluation']}",
    ]
    return [*lines, f"Plot: {values['plot']}"] if values["plot"] else lines


def _latex(values: dict[str, Any]) -> Iterator[str]:
    """The table for a paper; a comment says how it was measured."""
    from adanat_cli.jobs.evaluate.tables import latex

    rows = values["results"]
    notes = (_protocol(rows[0]), *_neighbors_line(rows[0]), *_seeds_line(values["summary"]))
    return latex(rows, ". ".join(note.removesuffix(".") for note in notes))


def _csv(values: dict[str, Any]) -> Iterator[str]:
    """The table for a spreadsheet."""
    from adanat_cli.jobs.evaluate.tables import comma_separated

    return comma_separated(values["results"])


def _protocol(row: dict[str, Any]) -> str:
    """Network and reference of a row."""
    settings, about = row["settings"], row["reference"]
    return (
        f"Protocol {settings['protocol']}: {settings['extractor']}, weights {settings['weights_hash'][:12]}; reference "
        f"{about['file']}, {settings['reference'][:12]}, {_classes(about)}"
    )


def _neighbors_line(row: dict[str, Any]) -> list[str]:
    """The k of precision and its like; older versions did not record it."""
    neighbors = row.get("neighbors", {})
    return [f"Nearest neighbours: {', '.join(f'{k} for {name}' for name, k in neighbors.items())}"] if neighbors else []


def _classes(about: dict[str, Any]) -> str:
    """The number of classes of a reference; older versions did not record it."""
    number = about.get("num_classes")
    return "classes not recorded" if number is None else f"{number:,} classes"


def _seeds_line(summary: list[dict[str, Any]]) -> list[str]:
    """Which seeds the means are over, where there are several."""
    seeds = summary[0]["seeds"]
    return [f"Mean ± standard deviation over seeds {seeds[0]} to {seeds[-1]}."] if len(seeds) > 1 else []


def _held_line(row: dict[str, Any]) -> list[str]:
    """Which metrics are not of all images, where there are many."""
    whole = "distances, accuracy, recognition and CLIP score"
    return [f"All but {whole}: of {row['held']:,} images."] if "held" in row else []


def _recognition_line(rows: list[dict[str, Any]]) -> list[str]:
    """What recognition is, where it is measured."""
    if all(row["metrics"].get("top1") is None for row in rows):
        return []
    return [
        "Recognised as their class: top-1 and top-5 of ImageNet's 1,000; among: of the classes that the images are of"
    ]


def _clip_line(settings: dict[str, Any]) -> list[str]:
    """What the CLIP score is, where there is one."""
    if "clip" not in settings:
        return []
    return [
        f"CLIP score: 100 x mean cosine similarity of image and prompt by {settings['clip']}, weights "
        f"{settings['clip_hash'][:12]}; {settings['num_prompts']:,} prompts, {settings['prompts_sha256'][:12]}"
    ]


def _absent(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Names of measures by the reason for which some row lacks them; a deviation goes with its mean."""
    reasons: dict[str, list[str]] = {}
    for name, reason in dict.fromkeys(pair for row in rows for pair in row["absent"].items()):
        if not name.endswith("_std"):
            reasons.setdefault(reason, []).append(name)
    return reasons
