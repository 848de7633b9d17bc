"""Searched tables: what is exported is what was measured, and a search resumes."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adanat_cli.commands.train_policy import _lines
from adanat_cli.core.generation import search as schedule_search
from adanat_cli.core.generation.schedules import AutoNATSchedule, Schedule
from adanat_cli.core.generation.search import GRID
from adanat_cli.core.generation.state import DecodingState
from adanat_cli.core.generation.tables import write_table
from adanat_cli.jobs.resolve.models import resolve_model
from adanat_cli.jobs.resolve.schedules import build_schedule, choose_schedule, settle_schedule
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.train.policy import train_policy
from adanat_cli.jobs.train.policy_distance import Evaluator
from tests.jobs.train.test_nat import At
from tests.policy_toy import make_policy_toy, policy_request


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_toy(tmp_path_factory.mktemp("policy"))


def values_of(schedule: Schedule) -> torch.Tensor:
    """The four values of all steps (T, 4), of a schedule that looks at no features."""
    start = DecodingState.start(2, 16, 16, schedule.num_steps)
    states = (replace(start, step=step) for step in range(schedule.num_steps))
    return torch.stack([schedule(state, None).values()[0] for state in states])


@pytest.mark.parametrize(("kind", "base"), [("search", "cosine"), ("search", "autonat"), ("tuned", "cosine")])
def test_a_search_exports_exactly_the_table_that_it_measured(
    toy: Path, tmp_path: Path, kind: str, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[tuple[float, Schedule]] = []
    distance = Evaluator.distance

    def watched(self: Evaluator, schedule: Schedule, *others: Any) -> float:
        measured.append((distance(self, schedule, *others), schedule))
        return measured[-1][0]

    monkeypatch.setattr(Evaluator, "distance", watched)
    if base == "autonat":
        write_table(tmp_path / "base.yaml", AutoNATSchedule([(0.9, 1, 1, 0), (0.01, 1, 0.05, 0), (0, 1, 0, 0.02)]))
        base = f"autonat:{tmp_path / 'base.yaml'}"
    shape = {"hidden_width": 16, "base_floor": 0.1}
    request = policy_request(toy, str(tmp_path / "run"), updates=1, trajectories=6, kind=kind, base=base, policy=shape)
    result = train_policy(request, SilentReporter())
    model = resolve_model(result["model"])
    (_, found), (_, fixed) = measured[-2:]
    assert (result["distance"], result["fixed_distance"]) == (measured[-2][0], measured[-1][0])
    assert f"--schedule {result['schedule']}`" in _lines({**result, "measured_on": "real images"})[-1]
    words = {"learned": found, result["schedule"]: found, base: fixed}
    for word, schedule in words.items():
        choice, _ = settle_schedule(choose_schedule(word, 3), model)
        drawn = build_schedule(choice, model, (4, 4), torch.device("cpu"))
        torch.testing.assert_close(values_of(drawn), values_of(schedule), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["search", "tuned"])
def test_a_search_goes_on_where_it_stopped(
    toy: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule_search, "GRID", {name: row[:2] for name, row in GRID.items()})
    fields = {"kind": kind, "updates": 2, "trajectories": 6}
    whole = train_policy(policy_request(toy, str(tmp_path / "whole"), **fields), SilentReporter())
    with pytest.raises(KeyboardInterrupt):
        train_policy(
            policy_request(toy, str(tmp_path / "half"), **fields),
            At(1, lambda: os.kill(os.getpid(), signal.SIGINT)),
        )
    measured: list[int] = []
    distance = Evaluator.distance
    monkeypatch.setattr(Evaluator, "distance", lambda *arguments: measured.append(1) or distance(*arguments))
    half = train_policy(policy_request(toy, str(tmp_path / "half"), **fields), SilentReporter())
    assert half["distance"] == whole["distance"]
    assert half.get("factors") == whole.get("factors")
    assert len(measured) == (12 if kind == "search" else 7) + 2  # what was left, and the two held-out distances
