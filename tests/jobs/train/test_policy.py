"""``adanat train-policy`` on a toy model: it ends, resumes and exports."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import DiscriminatorConfig
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.data.records import PendingImage
from adanat_cli.core.data.sources import TableSource
from adanat_cli.core.ppo import update as ppo_update
from adanat_cli.jobs.resolve.models import load_policy, resolve_model
from adanat_cli.jobs.runtime.reporter import SilentReporter, Task
from adanat_cli.jobs.sample.sample import sample
from adanat_cli.jobs.train.policy import train_policy
from adanat_cli.jobs.train.policy_setup import check_request, open_images, prepare
from tests.evaluation_toy import Said
from tests.jobs.train.test_nat import At
from tests.policy_toy import make_policy_toy, policy_request, same, state
from tests.processes import run_two


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy and one unbroken run of four updates."""
    folder = make_policy_toy(tmp_path_factory.mktemp("policy"))
    said = Said()
    train_policy(policy_request(folder), said)
    assert said.logged[0].startswith(
        "images (train): 22 images in 3 classes, from 7 (two) to 8 (one) each; it has no val"
    )
    assert said.logged[1].startswith(
        "images (train): 2 images in 2 of 3 classes (two, zero), 1 each; every tenth image"
    )
    return folder


def test_a_run_logs_what_ppo_is_judged_by(toy: Path) -> None:
    lines = [json.loads(line) for line in (toy / "run" / "metrics.jsonl").read_text().splitlines()]
    update = next(line for line in lines if line["step"] == 1)
    expected = {"kl", "clip_fraction", "explained_variance", "entropy", "reward", "reward_std", "gradient_norm"}
    assert expected | {"discriminator_accuracy", "remask_ratio/0", "guidance_scale/2"} <= update.keys()
    assert [line["step"] for line in lines if "distance" in line] == [0, 2, 4]


def test_a_run_draws_samples_and_curves(toy: Path) -> None:
    for folder in ("samples", "plots"):
        assert [file.name for file in (toy / "run" / folder).iterdir()] == ["step-000004.png"]


def test_the_exported_model_samples_with_its_policy(toy: Path, tmp_path: Path) -> None:
    model = resolve_model(str(toy / "run" / "model"))
    assert model.policy_steps() == [3]
    best = state(toy / "run")["best"]
    policy = load_policy(model, 3)
    assert policy is not None
    assert all(torch.equal(tensor, best["policy"][name]) for name, tensor in policy.state_dict().items())
    request = SampleRequest(
        output=tmp_path, model=str(model.path), num_images=4, num_steps=3, image_format="npz", device="cpu"
    )
    assert sample(request, SilentReporter())["schedule"] == "learned"


class Bars(SilentReporter):
    """Keeps the progress bars, with the phases that were shown on them."""

    def __init__(self) -> None:
        self.bars: dict[str, tuple[int | None, list[int], list[str]]] = {}
        self._last: tuple[list[int], list[str]] = ([], [])

    def task(self, description: str, total: int | None, unit: str = "it", done: int = 0) -> Task:
        _, advanced, phases = self.bars.setdefault(description, (total, [], []))
        self._last = advanced, phases
        return self

    def __enter__(self) -> Task:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def advance(self, amount: int = 1, **fields: Any) -> None:
        self._last[0].append(amount)
        self._last[1].append(str(fields.get("phase", "")))


@pytest.mark.parametrize("reward", ["adversarial", "fid"])
def test_all_that_takes_long_before_the_first_update_is_shown(toy: Path, reward: str) -> None:
    bars = Bars()
    judge = DiscriminatorConfig(backbone="pyramid", updates=2, warmup_updates=3, batch_size=6, width=8)
    learns = {"discriminator": judge} if reward == "adversarial" else {}
    train_policy(policy_request(toy, f"shown-{reward}", updates=1, reward=reward, **learns), bars)
    assert [*bars.bars] == [
        "Measuring real images",
        "Measuring the fixed schedule",
        "Measuring the first policy",
        "Training",
    ]
    for total, advanced, _ in (bars.bars["Measuring the fixed schedule"], bars.bars["Training"]):
        assert sum(advanced) == total
    phases = bars.bars["Training"][2]
    told = [phase for phase in phases if phase.startswith(("warming", "reward learns"))]
    expected = [f"warming up the discriminator {n}/3" for n in (1, 2, 3)] + [f"reward learns {n}/2" for n in (1, 2)]
    assert told == (expected if reward == "adversarial" else [])


def test_ctrl_c_saves_and_the_run_goes_on_to_the_same_state(toy: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_policy(policy_request(toy, "stopped"), At(1, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert state(toy / "stopped")["step"] == 1
    train_policy(policy_request(toy, "stopped"), SilentReporter())
    assert same(toy / "stopped", toy / "run")


def test_two_processes_train_the_policy_of_one_with_its_statistics(toy: Path, warm: dict[str, str]) -> None:
    """With the FID reward, whose batches do not depend on the split; the discriminator's do."""
    script = """
import sys
from pathlib import Path
from tests.policy_toy import policy_request
from adanat_cli.jobs.train.policy import train_policy
from adanat_cli.jobs.runtime.reporter import SilentReporter
train_policy(policy_request(Path(sys.argv[1]), "two", reward="fid", rollout="fp32"), SilentReporter())
"""
    run_two(warm, script, toy)
    train_policy(policy_request(toy, "one", reward="fid", rollout="fp32"), SilentReporter())
    train_policy(policy_request(toy, "pieces", reward="fid", rollout="fp32", accumulate=3), SilentReporter())
    for name in ("two", "pieces"):
        for line, expected in zip(logged(toy / name), logged(toy / "one"), strict=True):
            assert line == pytest.approx(expected, rel=1e-3, abs=1e-5), name
        for weight, tensor in state(toy / "one")["agent"].items():
            torch.testing.assert_close(state(toy / name)["agent"][weight], tensor, rtol=0, atol=1e-4, msg=weight)


def logged(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_features_computed_again_train_as_stored_ones(toy: Path) -> None:
    train_policy(policy_request(toy, "fp32", rollout="fp32"), SilentReporter())
    train_policy(policy_request(toy, "recompute", rollout="recompute"), SilentReporter())
    stored, computed = state(toy / "fp32")["agent"], state(toy / "recompute")["agent"]
    for name, tensor in stored.items():
        torch.testing.assert_close(computed[name], tensor, rtol=0, atol=1e-4, msg=name)


@pytest.mark.parametrize(
    "changes",
    [
        {"reward": "fid"},
        {"reward": "fid", "fid_credit": "batch", "fid_group": 6},
        {"kind": "static"},
        {"policy": {"hidden_width": 16, "residual": False}},
        {"policy": {"hidden_width": 16, "smoothing": 0.5}},
        {"discriminator": DiscriminatorConfig("pyramid", batch_size=6, width=8, reuse_rollouts=False, real="original")},
    ],
    ids=["fid", "fid of groups", "static", "no residual", "smoothing", "as the paper's discriminator"],
)
def test_every_way_of_training_ends_in_a_policy(toy: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    result = train_policy(policy_request(toy, str(tmp_path / "run"), updates=1, **changes), SilentReporter())
    assert np.isfinite(result["distance"])
    policy = load_policy(resolve_model(result["model"]), 3)
    assert policy is not None
    assert policy.config.kind == changes.get("kind", "adaptive")


def test_install_puts_the_policy_into_the_model_itself(tmp_path: Path) -> None:
    folder = make_policy_toy(tmp_path)
    train_policy(policy_request(folder, updates=1, install=True, half=True), SilentReporter())
    installed = ModelFolder(folder / "model")
    assert installed.policy_steps() == [3]
    assert installed.has("features")
    _, weights = installed.read("policies/steps-3")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}


def test_training_images_are_read_only_for_what_needs_them_all(toy: Path, tmp_path: Path) -> None:
    request = policy_request(toy, str(tmp_path / "run"))
    folder, nat = check_request(request)
    source, held_out = open_images(request, folder, nat)
    read: list[str] = []

    class Watched(TableSource):
        def pending(self, start: int = 0, stop: int | None = None) -> Iterator[PendingImage]:
            read.append("all")
            return super().pending(start, stop)

    watched = Watched(**{field.name: getattr(source, field.name) for field in dataclasses.fields(source)})
    setup = prepare(request, Accelerator(cpu=True), SilentReporter(), (watched, held_out))
    assert setup.held_out_reference.mean.isfinite().all()
    assert not read
    assert setup.reference.mean.isfinite().all()
    assert read == ["all"]


def test_the_command_says_its_plan(toy: Path) -> None:
    arguments = ["train-policy", "--dataset", str(toy / "images"), "--model", str(toy / "model"), "--steps", "4"]
    done = CliRunner().invoke(app, [*arguments, "--recipe", "paper", "--dry-run", "--json"], catch_exceptions=False)
    values = json.loads(done.stdout)
    assert values["training"]["trajectories"] == 4096
    assert values["rows_per_update"] == 4 * 4096
    assert values["policy"]["residual"] is False
    assert values["rollout_megabytes"] == pytest.approx(4 * 4096 * (16 * (4 + 4 * 16) + 40) / 2**20, abs=0.1)
    assert ppo_update.normalize(torch.tensor([1.0, 3.0])).tolist() == pytest.approx([-0.7071, 0.7071], abs=1e-3)
