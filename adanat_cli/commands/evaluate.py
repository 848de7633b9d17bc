"""``adanat evaluate``: measure generated images against a reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from adanat_cli.commands import job, options
from adanat_cli.commands.tables import drawn
from adanat_cli.core.config.option import option
from adanat_cli.core.config.requests import EvaluateRequest
from adanat_cli.core.errors import require


@dataclass(frozen=True)
class TablePrinting(options.Printing):
    """How the result is printed."""

    table: Literal["rich", "markdown", "latex", "csv"] = option(
        "rich",
        help="rich: a table for the terminal, and how it was measured. markdown, latex or csv: that table alone, for a "
        "page, a paper or a spreadsheet.",
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
    job.run(evaluate, request, printing, _FORMS[printing.table])


def _lines(values: dict[str, Any]) -> list[str]:
    """The result for people: a table, how it was measured, and where the files are."""
    from adanat_cli.jobs.evaluate.in_words import how_measured, not_measured
    from adanat_cli.jobs.evaluate.tables import cells

    rows = values["results"]
    lines = [
        *drawn(*cells(rows)),
        *how_measured(rows),
        *not_measured(rows),
        f"Results: {values['evaluation']}",
        f"Report: {values['report']}",
    ]
    return [*lines, f"Plot: {values['plot']}"] if values["plot"] else lines


def _markdown(values: dict[str, Any]) -> Iterator[str]:
    """The table for a page."""
    from adanat_cli.jobs.evaluate.tables import markdown

    return markdown(values["results"])


def _latex(values: dict[str, Any]) -> Iterator[str]:
    """The table for a paper; a comment says how it was measured."""
    from adanat_cli.jobs.evaluate.in_words import neighbors_line, protocol_line, seeds_line
    from adanat_cli.jobs.evaluate.tables import latex

    rows = values["results"]
    notes = (protocol_line(rows[0]), *neighbors_line(rows[0]), *seeds_line(rows))
    return latex(rows, ". ".join(note.removesuffix(".") for note in notes))


def _csv(values: dict[str, Any]) -> Iterator[str]:
    """The table for a spreadsheet."""
    from adanat_cli.jobs.evaluate.tables import comma_separated

    return comma_separated(values["results"])


_FORMS: dict[str, Callable[[dict[str, Any]], Iterable[str]]] = {
    "rich": _lines,
    "markdown": _markdown,
    "latex": _latex,
    "csv": _csv,
}
"""Form of ``--table`` -> its lines."""
