"""The numbers of a training reach its trackers as they reach ``metrics.jsonl``; what cannot be used is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from accelerate import tracking

from adanat_cli.core.config.training_requests import PretrainNATRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.train.nat import pretrain_nat
from adanat_cli.jobs.train.settings import nat_settings
from adanat_cli.jobs.train.trackers import Trackers, chosen_trackers
from tests.nat_toy import make_request


class Notebook(tracking.GeneralTracker):
    """A tracker that keeps what it is given."""

    name = "wandb"
    requires_logging_directory = False
    opened: ClassVar[list[Notebook]] = []

    def __init__(self, project: str, **settings: Any) -> None:
        super().__init__()
        self.project, self.settings, self.logged, self.ended = project, settings, [], False
        self.config: dict[str, Any] = {}
        Notebook.opened.append(self)

    @property
    def tracker(self) -> Notebook:
        return self

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.config = values

    def log(self, values: dict[str, float], step: int | None = None, **_: Any) -> None:
        self.logged.append({"step": step, **values})

    def finish(self) -> None:
        self.ended = True


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_tracker_gets_settings_and_every_number_and_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Notebook)
    monkeypatch.setattr(tracking, "_available_trackers", ["wandb"])
    pretrain_nat(replace(make_request(tmp_path, "first"), track=("wandb",)), SilentReporter())
    (book,) = Notebook.opened
    assert (book.project, book.settings["name"], book.ended) == ("adanat", "first", True)
    assert book.config["training.batch_size"] == 8
    assert book.config["nat.grid"] == "[4, 4]"
    assert book.logged == metrics(tmp_path / "first")


def test_tensorboard_shows_what_was_logged_and_forgets_what_a_resumed_run_repeats(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first, last, scale in ((0, 3, 1.0), (2, 4, 10.0)):
        trackers = Trackers((), tmp_path, {"a": 1}, first, SilentReporter())
        for step in range(first, last):
            trackers.log(step, {"loss": scale * step, "broken": float("nan")})
        trackers.close()
    assert [path.name for path in tmp_path.iterdir()] == ["tensorboard"]
    shown = accumulators.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert shown.Tags()["scalars"] == ["loss"]
    assert [(event.step, event.value) for event in shown.Scalars("loss")] == [(0, 0), (1, 1), (2, 20), (3, 30)]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wandbb", "--track wandbb is not known; did you mean wandb? Expected aim, clearml, comet_ml"),
        ("nothing", "--track nothing is not known; expected aim, "),
        ("comet_ml", "--track comet_ml needs comet-ml, which is not installed: pip install comet-ml"),
    ],
)
def test_a_tracker_that_cannot_be_used_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.setattr(tracking, "_available_trackers", ["wandb"])
    asked = PretrainNATRequest("toy", tmp_path / "tokens", track=(name,), output=tmp_path / "run")
    with pytest.raises(AdaNATError) as caught:
        nat_settings(asked)
    assert str(caught.value).startswith(words)
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_fails_to_start_ends_the_run_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Offline(Notebook):
        def start(self) -> None:
            raise ConnectionError("no\nnetwork")

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Offline)
    monkeypatch.setattr(tracking, "_available_trackers", ["wandb"])
    assert chosen_trackers(["wandb"]) == ["wandb"]
    with pytest.raises(AdaNATError, match=r"--track wandb cannot be started \(no network\); leave it out."):
        Trackers(("wandb",), tmp_path, {}, 0, SilentReporter())
