"""Values that are not numbers end a training in one line that names the update, and the last good state is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adanat_cli.core.checkpoints.files import load_tensors
from adanat_cli.core.checkpoints.trees import load_tree
from adanat_cli.core.config import NATTrainingConfig, TokenizerTrainingConfig, VQAEConfig, data_config
from adanat_cli.core.config.settings import TokenizerSettings
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.rewards.adversarial import AdversarialReward
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.train.nat import pretrain_nat
from adanat_cli.jobs.train.policy import train_policy
from adanat_cli.jobs.train.policy_update import PolicyTrainer
from adanat_cli.jobs.train.tokenizer import TokenizerTrainer, train_tokenizer
from tests.image_files import write_class_folder
from tests.nat_toy import make_request
from tests.policy_toy import flat, make_policy_toy, policy_request


def assert_stops(job: Callable[[], Any], words: str, run: Path, step: int, weights: str) -> None:
    """The job stops; its last state is that of an update before, and what it exported then is finite."""
    with pytest.raises(AdaNATError, match=words) as caught:
        job()
    assert "\n" not in str(caught.value)
    state = load_tree(max((run / "checkpoints").glob("*.safetensors")))
    assert state["step"] == step
    assert all(tensor.isfinite().all() for tensor in flat(state).values())
    if weights:
        assert all(tensor.isfinite().all() for tensor in load_tensors(run / weights / "model.safetensors").values())


def test_a_nat_whose_weights_overflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NATTrainingConfig, "learning_rate_at", lambda _, step: float("inf") if step == 3 else 1e-3)
    request = make_request(tmp_path, log_every=6)
    assert_stops(
        lambda: pretrain_nat(request, SilentReporter()),
        "diverged before update 6: a loss",
        request.output,
        3,
        "model/nat",
    )


def test_a_tokenizer_whose_loss_is_not_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update = TokenizerTrainer.update

    def spoiled(self: TokenizerTrainer, images: Tensor) -> Tensor:
        return update(self, images * torch.nan if self.step == 2 else images)

    monkeypatch.setattr(TokenizerTrainer, "update", spoiled)
    data = data_config(str(write_class_folder(tmp_path / "images", 8, size=16)), image_size=16)
    shape = VQAEConfig(image_size=16, codebook_size=16, code_width=8, channels=(16,))
    training = TokenizerTrainingConfig(steps=4, batch_size=4, save_every=1, log_every=4, precision="fp32")
    request = TokenizerSettings(data, shape, training, tmp_path / "run", workers=0, device="cpu")
    assert_stops(
        lambda: train_tokenizer(request, SilentReporter()), "diverged before update 3: a loss", request.output, 2, ""
    )


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_toy(tmp_path_factory.mktemp("numbers"))


def test_a_policy_whose_loss_is_not_a_number(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update = PolicyTrainer.update
    phases: list[str] = []

    def spoiled(self: PolicyTrainer, begin: Any) -> dict[str, float]:
        stats = update(self, phases.append)
        return {**stats, "loss": float("nan")} if self.step == 3 else stats

    monkeypatch.setattr(PolicyTrainer, "update", spoiled)
    request = policy_request(toy, "loss")
    assert_stops(
        lambda: train_policy(request, SilentReporter()),
        "diverged at update 3: loss is not a number",
        request.output,
        2,
        "model/policies/steps-3",
    )
    learning = ["rollout", "reward", "PPO", "reward learns 1/2", "reward learns 2/2"]
    assert phases == ["rollout", "warming up the discriminator 1/1", *learning[1:], *learning, *learning]


def test_a_policy_whose_reward_is_not_a_number(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score, calls = AdversarialReward.score, [0]

    def spoiled(self: AdversarialReward, images: Tensor, *condition: Any) -> Tensor:
        calls[0] += 1
        rewards = score(self, images, *condition)
        return rewards.index_fill(0, torch.tensor([0]), torch.nan) if calls[0] == 5 else rewards

    monkeypatch.setattr(AdversarialReward, "score", spoiled)  # two batches an update: the fifth is of update 3
    request = policy_request(toy, "reward")
    assert_stops(
        lambda: train_policy(request, SilentReporter()),
        "diverged at update 3: .*reward.* is not a number",
        request.output,
        2,
        "model/policies/steps-3",
    )
