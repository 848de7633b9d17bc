"""The jackknife: the error of a mean is the textbook's, and the bias of a distance that of more images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from torch import Tensor

from adanat_cli.core.metrics.frechet import Gaussian
from adanat_cli.core.metrics.recognition import Recognition
from adanat_cli.core.metrics.references import Reference
from adanat_cli.jobs.evaluate.evaluate import evaluate
from adanat_cli.jobs.evaluate.measures import Measured, measure
from adanat_cli.jobs.evaluate.spread import Uncertainty, spreads
from adanat_cli.jobs.runtime.reporter import SilentReporter
from tests.evaluation_toy import evaluate_request, make_evaluation_toy, rows

WIDTH = 8


class Columns:
    """Features in memory, in parts of 7."""

    def __init__(self, **columns: Tensor) -> None:
        self._columns = columns

    def pieces(self, column: str) -> Any:
        return iter(self._columns[column].split(7) if column in self._columns else ())

    def column(self, name: str, most: int | None = None) -> Tensor | None:
        return self._columns[name][:most] if name in self._columns else None


def measured(**columns: Tensor) -> Measured:
    reference = Reference(Gaussian(torch.zeros(WIDTH, dtype=torch.float64), torch.eye(WIDTH, dtype=torch.float64)))
    num = len(next(iter(columns.values())))
    return Measured(Columns(**columns), num, reference, None, "small", "", "no", "no", torch.device("cpu"))


def spread_of(subject: Measured, *names: str) -> tuple[dict[str, float | None], dict[str, dict[str, float]]]:
    values, _ = measure(subject)
    return values, spreads(subject, values, names, SilentReporter(), "toys")


def test_the_error_of_a_share_is_that_of_the_mean_of_ten_groups() -> None:
    right = torch.rand(100, generator=torch.Generator().manual_seed(0)) < 0.3
    logits = torch.stack([right.float(), 0.5 * torch.ones(100)], 1)
    features = torch.zeros(100, WIDTH)
    values, known = spread_of(measured(features=features, logits=logits, labels=torch.zeros(100).long()), "accuracy")
    groups = [float(group.double().mean()) for group in right.split(10)]
    assert values["accuracy"] == pytest.approx(mean(groups))
    assert known["accuracy"]["error"] == pytest.approx(stdev(groups) / 10**0.5)
    assert known["accuracy"]["bias"] == pytest.approx(0, abs=1e-12)


def test_images_are_recognised_among_the_classes_of_all_of_them() -> None:
    """20 images of as many classes, the first half recognised: no group takes its classes from the others."""
    logits, labels = torch.zeros(20, 20), torch.arange(20)
    logits[range(10), range(10)] = 1.0
    subject = replace(
        measured(features=torch.zeros(20, WIDTH), logits=logits, labels=labels),
        protocol="efficientnet",
        missing_recognition="",
    )
    subject = replace(
        subject,
        reference=replace(
            subject.reference, classes=dict.fromkeys(range(20), 1), recognition=Recognition(0.8, 0.8, 0.8)
        ),
    )
    values, known = spread_of(subject, "among", "among_of_real")
    groups = [1.0] * 5 + [0.0] * 5
    assert (values["among"], values["among_of_real"]) == (0.5, 0.625)
    assert known["among"]["error"] == pytest.approx(stdev(groups) / 10**0.5)
    assert known["among"]["bias"] == pytest.approx(0, abs=1e-12)
    assert known["among_of_real"]["error"] == pytest.approx(known["among"]["error"] / 0.8)


def test_the_bias_of_a_distance_is_what_more_images_take_away() -> None:
    """Of samples of the reference itself, whose distance is 0, in the mean over 20 sets."""
    generator = torch.Generator().manual_seed(1)
    found, errors, true = [], [], []
    for _ in range(20):
        values, known = spread_of(measured(features=torch.randn(200, WIDTH, generator=generator)), "fid")
        found.append(known["fid"]["bias"])
        errors.append(known["fid"]["error"])
        true.append(values["fid"] or 0.0)
    assert mean(found) == pytest.approx(mean(true), rel=0.2)
    # It is no smaller than the sets show: on average the jackknife's is too large.
    assert stdev(true) < mean(errors) < 2 * stdev(true)


def test_few_images_and_undefined_metrics_have_no_spread() -> None:
    assert spread_of(measured(features=torch.randn(19, WIDTH)), "fid")[1] == {}
    assert set(spread_of(measured(features=torch.randn(20, WIDTH)), "fid", "kid")[1]) == {"fid"}
    assert Uncertainty.of(3.0, [2.0, 4.0]) == Uncertainty(1.0, 0.0)


def test_an_evaluation_adds_the_spread_that_it_is_asked_for(tmp_path: Path) -> None:
    toy = make_evaluation_toy(tmp_path)
    (bare,) = rows(toy, "out")
    assert "spread" not in bare
    request = evaluate_request(toy, "out", spread=("fid", "kid", "recall", "sfid"))
    (row,) = evaluate(request, SilentReporter())["results"]
    assert row["metrics"] == bare["metrics"]
    assert set(row["spread"]) == {"fid", "kid", "recall"}
    assert all(one["error"] > 0 for name, one in row["spread"].items() if name != "recall")
    again = evaluate(request, SilentReporter())["results"]
    assert again == [row]
    assert rows(toy, "out") == [row]
