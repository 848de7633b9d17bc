"""Tables of an evaluation's rows: means and standard deviations over the seeds, as text and as numbers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

Row = dict[str, Any]
"""One measurement: ``settings`` that decide it, ``metrics``, reasons of ``absent`` ones, ``reference`` and ``cost``."""
COLUMNS = {
    "fid": ("FID", ".3f"),
    "sfid": ("sFID", ".3f"),
    "inception_score": ("IS", ".2f"),
    "precision": ("precision", ".3f"),
    "recall": ("recall", ".3f"),
    "density": ("density", ".3f"),
    "coverage": ("coverage", ".3f"),
    "kid": ("KID", ".5f"),
    "accuracy": ("accuracy", ".3f"),
    "top1": ("top-1", ".3f"),
    "top5": ("top-5", ".3f"),
    "among": ("among", ".3f"),
    "among_of_real": ("among/real", ".3f"),
    "clip_score": ("CLIP score", ".2f"),
    "psnr": ("PSNR", ".2f"),
}
"""Metric -> its head in a table, and the form of its numbers."""
_WIDE = 1e6
"""Numbers from here on are written with an exponent."""


@dataclass(frozen=True)
class Spread:
    """A metric over the seeds.

    Attributes:
        mean: mean; None where the metric of any seed is absent.
        std: standard deviation of a sample (n - 1); None for one seed.
    """

    mean: float | None
    std: float | None = None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread:
        """Mean and deviation of the values of all seeds."""
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return cls(None)
        return cls(mean(known), stdev(known) if len(known) > 1 else None)


@dataclass(frozen=True)
class Line:
    """A line of a table: what was measured with the same settings but for the seed.

    Attributes:
        name: schedule with its number of steps, or the images.
        num_images: images of each seed; None where that is not recorded.
        seeds: random seeds; empty for images that exist.
        metrics: by name; those of no number are left out.
        tera_flops_per_image: operations of an image in units of 1e12, mean over the seeds; None where not counted.
    """

    name: str
    num_images: int | None
    seeds: tuple[int, ...]
    metrics: Mapping[str, Spread]
    tera_flops_per_image: float | None = None


def by_seed(rows: Sequence[Row]) -> list[list[Row]]:
    """Put rows together that differ by the seed alone, in the order of the first of each."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        settings = {key: value for key, value in row["settings"].items() if key != "seed"}
        groups.setdefault(json.dumps([row["name"], settings], sort_keys=True), []).append(row)
    return list(groups.values())


def name_of(row: Row) -> str:
    """What was measured: the schedule of a model with its number of steps, or the images."""
    settings = row["settings"]
    return str(row["name"] if "schedule" not in settings else f"{row['name']}, {settings['num_steps']} steps")


def ranges(numbers: Iterable[int]) -> str:
    """Whole numbers in a line, neighbours as a range: ``0-9, 207``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """A line for each group of seeds, and one of the reference's own images if it records how many are recognised."""
    lines = []
    for group in by_seed(rows):
        spreads = {name: Spread.of([row["metrics"].get(name) for row in group]) for name in COLUMNS}
        lines.append(
            Line(
                name_of(group[0]),
                group[0]["settings"]["num_images"],
                tuple(row["settings"]["seed"] for row in group if "schedule" in row["settings"]),
                {name: spread for name, spread in spreads.items() if spread.mean is not None},
                Spread.of([row["cost"].get("tera_flops_per_image") for row in group]).mean,
            )
        )
    about = rows[0]["reference"]  # one run has one reference
    real = about.get("recognition")
    if real is not None and any("top1" in line.metrics for line in lines):
        metrics = {name: Spread(real[name]) for name in COLUMNS if real.get(name) is not None}
        lines.append(Line("real images", about.get("num_images"), (), metrics))
    return lines


def compute_unit(tera_flops: Iterable[float | None]) -> tuple[str, float]:
    """The unit in which operations are shown, and its share of 1e12: GFLOPs where all are below one TFLOP."""
    known = [value for value in tera_flops if value is not None]
    return ("GFLOPs", 1e3) if known and max(known) < 1 else ("TFLOPs", 1.0)


def cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return column heads and cells; a metric that no line has gets no column."""
    lines = lines_of(rows)
    names = [name for name in COLUMNS if any(name in line.metrics for line in lines)]
    generated, several = any(line.seeds for line in lines), any(len(line.seeds) > 1 for line in lines)
    unit, scale = compute_unit(line.tera_flops_per_image for line in lines)
    head = ["measured", *(COLUMNS[name][0] for name in names), "images"]
    head += [*(["seeds"] if several else []), *([f"{unit}/image"] if generated else [])]
    body = []
    for line in lines:
        numbers = [_spread(line.metrics.get(name), COLUMNS[name][1]) for name in names]
        body.append([line.name, *numbers, "—" if line.num_images is None else f"{line.num_images:,}"])
        body[-1] += [str(len(line.seeds) or "—")] if several else []
        compute = line.tera_flops_per_image
        body[-1] += [_number(None if compute is None else scale * compute, ".4g")] if generated else []
    return head, body


def markdown(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a table of the rows, to be pasted into a model card."""
    head, body = cells(rows)
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(line)} |" for line in body)


_LATEX = str.maketrans(
    {
        **{letter: f"\\{letter}" for letter in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "—": "--",
        "±": r"$\pm$",
    }
)


def latex(rows: Sequence[Row], about: str) -> Iterator[str]:
    """Yield the lines of a table for LaTeX's package booktabs.

    Args:
        rows: rows of one run.
        about: how they were measured, for a comment above the table.
    """
    head, body = cells(rows)
    yield f"% {' '.join(about.split())}"
    yield rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}"
    yield r"\toprule"
    for number, line in enumerate([head, *body]):
        yield rf"{' & '.join(cell.translate(_LATEX) for cell in line)} \\"
        if number == 0:
            yield r"\midrule"
    yield r"\bottomrule"
    yield r"\end{tabular}"


def comma_separated(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a CSV file with a head, in full precision and under the names of the JSON.

    ``NAME_over_seeds`` is a standard deviation; an absent number is an empty cell.
    """
    lines = lines_of(rows)
    names = [name for name in COLUMNS if any(name in line.metrics for line in lines)]
    several = any(len(line.seeds) > 1 for line in lines)
    heads = [head for name in names for head in (name, *([f"{name}_over_seeds"] if several else []))]
    table = [["measured", "num_images", "seeds", *heads, "tera_flops_per_image"]]
    for line in lines:
        spreads = [line.metrics.get(name, Spread(None)) for name in names]
        numbers = [number for one in spreads for number in (one.mean, *([one.std] if several else []))]
        cells = [line.name, line.num_images, " ".join(map(str, line.seeds)), *numbers, line.tera_flops_per_image]
        table.append(["" if cell is None else str(cell) for cell in cells])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    yield from text.getvalue().splitlines()


def _spread(spread: Spread | None, form: str) -> str:
    """Mean, and the deviation where there are several seeds."""
    if spread is None:
        return "—"
    deviation = "" if spread.std is None else f" ± {_number(spread.std, form)}"
    return f"{_number(spread.mean, form)}{deviation}"


def _number(value: float | None, form: str) -> str:
    if value is None:
        return "—"
    return f"{value:{form}}" if abs(value) < _WIDE else f"{value:.4g}"
