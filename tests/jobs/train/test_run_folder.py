"""A run folder resumes the same run and refuses another."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from adanat_cli.core.checkpoints.trees import save_tree
from adanat_cli.core.config import NATConfig, NATTrainingConfig
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.train.averages import Ema
from adanat_cli.jobs.train.run_folder import RunFolder
from adanat_cli.jobs.train.settings import saved_settings
from tests.mutations import as_json, mutations

CONFIG = {"data": {"source": "x", "classes": [1, 2]}, "steps": 10}


def test_the_last_state_comes_back_and_old_ones_go(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", CONFIG)
    for step in (1, 2, 3):
        folder.save(step, {"weights": {"w": torch.full((2,), float(step))}})
    state = RunFolder(tmp_path / "run", CONFIG).latest()
    assert state is not None
    assert state["step"] == 3
    assert float(state["weights"]["w"][0]) == 3
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 2


def test_a_new_run_has_no_state(tmp_path: Path) -> None:
    assert RunFolder(tmp_path / "run", CONFIG).latest() is None


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", CONFIG).save(1, {})
    with pytest.raises(AdaNATError, match=r"data\.source was 'x', now 'y'"):
        RunFolder(tmp_path / "run", {**CONFIG, "data": {"source": "y", "classes": [1, 2]}})


def test_a_run_that_saved_nothing_may_start_over(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", CONFIG).log(1, loss=1.0)
    folder = RunFolder(tmp_path / "run", {**CONFIG, "steps": 11})
    assert folder.latest() is None
    assert json.loads((tmp_path / "run" / "config.json").read_text())["steps"] == 11
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == ""


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(AdaNATError, match="holds other files"):
        RunFolder(tmp_path, CONFIG)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_kill_left_half_written_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".config.json.7.part").write_text("half")
    RunFolder(tmp_path, CONFIG).save(1, {})
    (tmp_path / "checkpoints" / ".step-00000002.safetensors.7.part").write_text("half")
    RunFolder(tmp_path, CONFIG)
    assert not list(tmp_path.rglob("*.part"))


def test_resuming_forgets_metrics_after_the_last_state(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", CONFIG)
    folder.log(1, loss=1.0)
    folder.save(1, {})
    folder.log(2, loss=2.0)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # cut short by a kill
    RunFolder(tmp_path / "run", CONFIG).latest()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1]


@pytest.mark.parametrize(("step", "share"), [(0, 0.9), (8, 0.5), (80, 0.1), (10_000, 0.1)])
def test_the_average_moves_by_a_decay_that_warms_up(step: int, share: float) -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(layer.weight, 1.0)
    ema = Ema(layer, decay=0.9)
    torch.nn.init.constant_(layer.weight, 2.0)
    ema.update(layer, step)
    assert float(ema.state_dict()["weight"]) == pytest.approx(1 + share)


@pytest.mark.parametrize("decay", [0.0, 0.05, 0.9])
def test_the_average_keeps_the_bits_of_what_does_not_learn(decay: float) -> None:
    layer = torch.nn.Linear(64, 1)
    layer.weight.requires_grad_(False).fill_(-0.0)
    ema = Ema(layer, decay)
    ema.update(layer, step=100)
    assert bool(torch.signbit(ema.state_dict()["weight"]).all())


def test_a_short_training_forgets_its_first_weights() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(layer.weight, 1e6)
    ema = Ema(layer, decay=0.9999)
    torch.nn.init.constant_(layer.weight, 1.0)
    for step in range(40):
        ema.update(layer, step)
    assert float(ema.state_dict()["weight"]) == pytest.approx(1.0, abs=1e-2)


def test_names_and_lines_that_no_run_writes_are_passed_over(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", {"a": 1}).log(1, loss=float("inf"))
    metrics = tmp_path / "run" / "metrics.jsonl"
    assert metrics.read_text() == '{"step": 1, "loss": null}\n'
    state = tmp_path / "run" / "checkpoints" / "step-00000001.safetensors"
    save_tree(state, {"step": 1})  # as older editions, without a count of the lines
    for name in ("step-abc", "step-", "step-" + "9" * 200, "step-1.5"):
        state.with_stem(name).touch()
    odd = b'[1]\n{"step": "x"}\n{"step": []}\n\xff\n{"step": 2}\n' + b"[" * 10_000 + b"\n"
    metrics.write_bytes(odd + b'{"step": 1, "loss": NaN}\n')
    assert RunFolder(tmp_path / "run", {"a": 1}).latest() == {"step": 1}
    assert metrics.read_text() == '{"step": 1, "loss": NaN}\n'


def test_one_wrong_value_in_the_settings_is_one_line(tmp_path: Path) -> None:
    settings = {"nat": {"width": 8}, "training": {"steps": 6, "precision": "fp32"}, "data": {"num_images": 64}}
    RunFolder(tmp_path, settings).save(1, {})
    for _, changed in mutations(settings):
        (tmp_path / "config.json").write_text(as_json(changed))
        with suppress(AdaNATError):
            saved_settings(tmp_path, training=NATTrainingConfig, nat=NATConfig)
            RunFolder(tmp_path, settings)


def test_a_state_of_another_run_is_one_line(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, {"a": 1})
    mine = {"search": {"mean": torch.zeros(3)}, "best": torch.zeros(2, 4)}
    for state in ({}, {**mine, "best": torch.zeros(1, 4)}, {**mine, "search": []}, {**mine, "measured": "8"}):
        with (
            pytest.raises(AdaNATError, match="after update 3 does not belong to this run"),
            folder.taking({"step": 3, **state}, mine),
        ):
            dict(state["measured"])


def test_images_that_have_changed_are_told_as_such(tmp_path: Path) -> None:
    config = {"data": {"source": "a", "files_digest": "5a92", "source_images": 360}, "seed": 0}
    folder = RunFolder(tmp_path / "run", config)
    folder.save(1, {})
    changed = {**config, "data": {"source": "a", "files_digest": "11ff", "source_images": 359}}
    with pytest.raises(AdaNATError, match=r"The images have changed since .*run was begun"):
        RunFolder(tmp_path / "run", changed)
    with pytest.raises(AdaNATError, match="seed was 0, now 1"):
        RunFolder(tmp_path / "run", {**changed, "seed": 1})
