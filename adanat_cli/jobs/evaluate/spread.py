"""How far a metric of N images may lie from that of N others, and from that of more: the jackknife.

Images are cut into ten groups of neighbours, and every metric is computed without each of them. Classes take turns from
image to image, so that each group holds all of them in about equal shares.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from statistics import mean

import torch
from torch import Tensor

from adanat_cli.core.config.reproduce import LEAST_IMAGES, NUM_GROUPS
from adanat_cli.jobs.evaluate.measures import MEASURES, Columns, Measured, measure
from adanat_cli.jobs.runtime.reporter import Reporter

_NUM_SUBSETS = 3
"""Subsets of a KID: they are the same without each group, so that few suffice for the difference."""


@dataclass(frozen=True)
class Uncertainty:
    """What is known of a metric of N images.

    Attributes:
        error: standard error, the square root of (G - 1) / G times the sum of squares around the mean without a group.
        bias: how much larger it is on average than a metric of any number of images, which shrinks as 1 / N.

    Source: Quenouille 1956 and Tukey 1958; Efron and Stein 1981, whose error is on average not too small.
    """

    error: float
    bias: float

    @classmethod
    def of(cls, value: float, without: Collection[float]) -> Uncertainty:
        """Of a metric of all images, and of those without each group."""
        center, num = mean(without), len(without)
        squares = sum((one - center) ** 2 for one in without)
        return cls(((num - 1) / num * squares) ** 0.5, (num - 1) * (center - value))


@dataclass(frozen=True)
class _Without:
    """Columns of a store without the rows ``start`` to ``stop`` - 1."""

    whole: Columns
    start: int
    stop: int

    def pieces(self, column: str) -> Iterator[Tensor]:
        """Yield a column part by part."""
        first = 0
        for piece in self.whole.pieces(column):
            rows = torch.arange(first, first + len(piece))
            yield piece[(rows < self.start) | (rows >= self.stop)]
            first += len(piece)

    def column(self, name: str, most: int | None = None) -> Tensor | None:
        """The first ``most`` rows of a column, or all; None where there is none."""
        pieces = list(self.pieces(name))
        return torch.cat(pieces)[:most] if pieces else None


def spreads(
    measured: Measured, values: dict[str, float | None], names: Collection[str], reporter: Reporter, title: str
) -> dict[str, dict[str, float]]:
    """Return standard error and bias of metrics by name, as JSON values; those that some group leaves undefined lack.

    Args:
        measured: what was measured.
        values: the metrics of all images.
        names: metrics whose spread is asked for.
        reporter: shows progress.
        title: what is measured, in words.
    """
    num = measured.num_images
    if num < LEAST_IMAGES:
        return {}
    functions = {keys: function for keys, function in MEASURES.items() if set(keys) & set(names)}
    found: list[dict[str, float | None]] = []
    # A group may hold all images of a class, without which the others would be recognised among fewer.
    whole = replace(measured, num_subsets=_NUM_SUBSETS, known_classes=measured.classes)
    with reporter.task(f"Tolerances of {title}", NUM_GROUPS, "groups") as task:
        for group in range(NUM_GROUPS):
            start, stop = group * num // NUM_GROUPS, (group + 1) * num // NUM_GROUPS
            columns = _Without(measured.store, start, stop)
            without = replace(whole, store=columns, num_images=num - stop + start)
            found.append(measure(without, functions)[0])
            task.advance(1)
    known = {}
    for name in names:
        value, others = values.get(name), [one for row in found if (one := row.get(name)) is not None]
        if value is not None and len(others) == NUM_GROUPS:
            known[name] = asdict(Uncertainty.of(value, others))
    return known
