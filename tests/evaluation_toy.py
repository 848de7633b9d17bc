"""A toy model with features and a reference made with them, for evaluations of a fraction of a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from adanat_cli.core.config.requests import EvaluateRequest, StatsRequest
from adanat_cli.core.metrics.extraction import Extraction
from adanat_cli.core.metrics.protocols import as_floats
from adanat_cli.jobs.evaluate.evaluate import evaluate
from adanat_cli.jobs.evaluate.stats import make_stats
from adanat_cli.jobs.runtime.reporter import SilentReporter
from tests.policy_toy import make_policy_toy

GIVEN: dict[str, Any] = {"steps": (), "num_samples": None}
"""Changes of a request that measures images which exist, all of them."""


class Said(SilentReporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.logged: list[str] = []
        self.warned: list[str] = []

    def log(self, text: str) -> None:
        """Keep a line."""
        self.logged.append(text)

    def warn(self, text: str) -> None:
        """Keep a warning."""
        self.warned.append(text)


class Stops(SilentReporter):
    """Acts as a task that calls a function after some images; other tasks do not count."""

    def __init__(self, after: int, act: Any) -> None:
        self.after, self.act, self.seen = after, act, 0

    def task(self, description: str, total: int | None, unit: str = "it", done: int = 0) -> Any:
        if unit != "images":
            return super().task(description, total, unit, done)
        stops = self

        class Counted(type(SilentReporter().task("", None))):  # type: ignore[misc]
            def advance(self, amount: int = 1, **shown: Any) -> None:
                stops.seen += amount
                if stops.seen >= stops.after:
                    stops.act()

        return Counted()


def fail() -> None:
    raise RuntimeError("killed")


def parts(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.rglob("part-*"))


class Patches:
    """Stands in for a network with spatial features: means of patches."""

    protocol, name, weights_hash, feature_width = "adm", "patches", "0" * 64, 12

    def __call__(self, images: torch.Tensor) -> Extraction:
        floats = as_floats(images)
        features = F.adaptive_avg_pool2d(floats, 2).flatten(1)
        return Extraction(features, 10 * features, F.adaptive_avg_pool2d(floats[:, :1], 3).flatten(1))


def make_evaluation_toy(folder: Path) -> Path:
    """``model/``, 24 ``images/`` by class and their ``stats.npz``, under the protocol small."""
    make_policy_toy(folder)
    make_stats(stats_request(folder), SilentReporter())
    return folder


def stats_request(folder: Path, output: Path | str = "stats.npz", **changes: Any) -> StatsRequest:
    """Statistics of the toy's images, in parts of 7."""
    fields: dict[str, Any] = {"model": str(folder / "model"), "device": "cpu", "workers": 0, "part_size": 7}
    data = {"max_bad": 0.5, **changes.pop("data", {})}
    dataset = changes.pop("dataset", str(folder / "images"))
    return StatsRequest(dataset, folder / output, data, **{**fields, **changes})


def evaluate_request(folder: Path, output: Path | str, **changes: Any) -> EvaluateRequest:
    """22 images of the toy's model in 2 steps, in parts of 5."""
    fields: dict[str, Any] = {
        "reference": folder / "stats.npz",
        "output": folder / output,
        "model": str(folder / "model"),
        "num_samples": 22,
        "steps": (2,),
        "batch_size": 4,
        "part_size": 5,
        "workers": 0,
        "device": "cpu",
    }
    return EvaluateRequest(**{**fields, **changes})


def rows(folder: Path, output: Path | str, **changes: Any) -> list[dict[str, Any]]:
    """What an evaluation returns."""
    return evaluate(evaluate_request(folder, output, **changes), SilentReporter())["results"]
