"""Arithmetic of PPO against the reference, and epochs of real networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from adanat_cli.core.config import RECIPES, DiscriminatorConfig, PolicyConfig, PolicyTrainingConfig, PPOConfig
from adanat_cli.core.ppo.agent import Agent, AgentOutput, make_optimizer
from adanat_cli.core.ppo.gaussian import entropy, log_prob
from adanat_cli.core.ppo.rollout import Rollout
from adanat_cli.core.ppo.update import group_means, losses, normalize, update
from adanat_cli.jobs.train.policy_update import PolicyTrainer
from tests.support import analytic_input, fill_analytic, fixture, fixture_json

PAPER = PPOConfig(**RECIPES["paper"]["ppo"])
ARITH = {key.removeprefix("arith."): torch.from_numpy(value) for key, value in fixture("ppo").items() if "arith" in key}
EPOCHS = {key.removeprefix("epochs."): value for key, value in fixture("ppo").items() if "epochs" in key}
TOLERANCE = {"atol": 2e-6, "rtol": 1e-5}


def test_returns_are_standardised_over_all_rows_and_serve_every_step() -> None:
    rewards = ARITH["final_reward"].view(2, 1, 3).expand(2, 4, 3).reshape(-1)  # rounds, steps, trajectories
    torch.testing.assert_close(rewards, ARITH["returns"], **TOLERANCE)
    torch.testing.assert_close(normalize(rewards), ARITH["norm_returns"], **TOLERANCE)
    torch.testing.assert_close(ARITH["norm_returns"] - ARITH["old_values"], ARITH["advantages"], **TOLERANCE)


def test_the_paper_normalises_returns_over_rows_which_differs_from_trajectories_by_the_unbiased_count() -> None:
    shape = PolicyConfig(feature_width=8, grid=(2, 2), num_steps=4, hidden_width=16)
    trainer = PolicyTrainer(
        None, None, shape, PolicyTrainingConfig(), PAPER, DiscriminatorConfig(), None, None, Accelerator(cpu=True)
    )
    rewards, expected = ARITH["final_reward"], ARITH["norm_returns"].view(2, 4, 3)[:, 0].flatten()
    torch.testing.assert_close(trainer._returns(rewards, torch.zeros(6)), expected, **TOLERANCE)
    # S over 6 trajectories is 4 S over 24 rows: deviations S / 5 and 4 S / 23.
    torch.testing.assert_close(normalize(rewards) * (5 * 4 / 23) ** -0.5, expected, **TOLERANCE)


def test_losses_are_the_references() -> None:
    new = log_prob(ARITH["actions"], ARITH["new_mean"], 0.6)
    torch.testing.assert_close(new, ARITH["new_logprob"], **TOLERANCE)
    torch.testing.assert_close((new - ARITH["old_logprob"]).exp(), ARITH["ratio"], **TOLERANCE)
    assert entropy(0.6, 4) == pytest.approx(float(ARITH["entropy"][0]), abs=2e-6)
    output = AgentOutput(ARITH["new_mean"], ARITH["new_values"])
    loss = losses(
        output,
        ARITH["actions"],
        ARITH["old_logprob"],
        ARITH["advantages"],
        ARITH["norm_returns"],
        0.6,
        PAPER,
    )
    torch.testing.assert_close(loss.total, ARITH["loss"], **TOLERANCE)
    torch.testing.assert_close(loss.policy, ARITH["loss_policy"], **TOLERANCE)
    torch.testing.assert_close(0.5 * loss.value, ARITH["loss_value"], **TOLERANCE)


def analytic_agent() -> Agent:
    """The fixtures' actor and critic: feature width 32, hidden width 512, 16 x 16 tokens."""
    agent = Agent(PolicyConfig(feature_width=32, grid=(16, 16), num_steps=4))
    for network in (agent.policy, agent.critic):
        fill_analytic(network)
    return agent


def test_five_full_batch_epochs_move_the_networks_as_the_reference_does() -> None:
    agent = analytic_agent()
    features = analytic_input("ppo_feat", (8, 256, 32), 1, 0)
    timesteps = torch.from_numpy(EPOCHS["timestep"]).long()
    with torch.no_grad():
        before = agent(features, timesteps)
    np.testing.assert_allclose(before.means, EPOCHS["mean_before"], atol=3e-4)
    np.testing.assert_allclose(before.values, EPOCHS["value_before"], atol=3e-4)
    # Rows are step-major here: two trajectories of four steps, of which row i of the fixture is step i mod 4.
    order = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])
    stored = {key: torch.from_numpy(EPOCHS[key])[order] for key in ("actions", "old_logprob", "norm_returns")}
    optimizer = make_optimizer(agent, PAPER.replace(learning_rate=float(EPOCHS["lr"])))
    raw, old, returns = stored["actions"], stored["old_logprob"], stored["norm_returns"]
    values = before.values[order]
    measured = []
    for _ in range(5):
        loss = losses(
            AgentOutput(*agent(features[order], timesteps[order])), raw, old, returns - values, returns, 0.6, PAPER
        )
        measured.append(float(loss.total.detach()))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    assert measured == pytest.approx(EPOCHS["losses"].tolist(), abs=3e-4)
    with torch.no_grad():
        after = agent(features, timesteps)
    np.testing.assert_allclose(after.means, EPOCHS["mean_after"], atol=3e-4)
    np.testing.assert_allclose(after.values, EPOCHS["value_after"], atol=3e-4)


def test_the_exploration_schedule_is_the_references() -> None:
    for table in fixture_json("ppo_std_decay"):
        (initial,) = set(table["initial"])
        config = PPOConfig(
            std=initial,
            std_decay=table["decay_rate"],
            std_milestones=tuple(table["decay_steps"]),
            std_floor=table["min_std"],
        )
        assert [config.std_at(step) for step in table["steps"]] == pytest.approx(table["std"])


def test_group_means_by_hand() -> None:
    means = group_means(torch.tensor([1.0, 2.0, 5.0, 4.0]), torch.tensor([7, 3, 7, 3]))
    torch.testing.assert_close(means, torch.tensor([3.0, 3.0, 3.0, 3.0]))


def small_rollout(agent: Agent, std: float, seed: int = 0) -> tuple[Rollout, torch.Tensor]:
    """Two steps of sixteen trajectories with consistent densities and values."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 16, 4, 8, generator=generator)
    timesteps = torch.arange(2).repeat_interleave(16)
    with torch.no_grad():
        judged = agent(features.flatten(0, 1), timesteps)
    raw = judged.means + std * torch.randn(32, 4, generator=generator)
    rollout = Rollout(
        token_ids=torch.zeros(2, 16, 4, dtype=torch.int32),
        features=features,
        raw=raw.view(2, 16, 4),
        log_probs=log_prob(raw, judged.means, std).view(2, 16),
        values=judged.values.view(2, 16),
        actions=torch.zeros(2, 16, 4),
        sampled_ids=torch.zeros(16, 4, dtype=torch.int64),
    )
    return rollout, features.flatten(0, 1)


def run_update(config: PPOConfig, returns: torch.Tensor, **shape: object) -> tuple[Agent, dict[str, float]]:
    torch.manual_seed(0)
    agent = Agent(PolicyConfig(feature_width=8, grid=(2, 2), num_steps=2, hidden_width=16, **shape))
    rollout, features = small_rollout(agent, 0.6)
    generator = torch.Generator().manual_seed(1)
    stats = update(agent, make_optimizer(agent, config), rollout, returns, features.__getitem__, 0.6, config, generator)
    return agent, stats


def test_a_first_full_batch_step_has_ratio_one() -> None:
    _, stats = run_update(PPOConfig(epochs=1, minibatch=0), torch.randn(16))
    assert stats["kl"] == pytest.approx(0, abs=1e-6)
    assert stats["clip_fraction"] == 0
    assert stats["policy_loss"] == pytest.approx(0, abs=1e-5)  # normalised advantages have mean 0


def test_actions_that_paid_become_likelier() -> None:
    config = PPOConfig(epochs=10, minibatch=0, learning_rate=3e-3)
    returns = normalize(torch.linspace(-1, 1, 16))
    for kind in ("adaptive", "static"):
        agent, _ = run_update(config, returns, kind=kind)
        rollout, features = small_rollout(
            Agent(PolicyConfig(feature_width=8, grid=(2, 2), num_steps=2, hidden_width=16)), 0.6
        )
        timesteps = torch.arange(2).repeat_interleave(16)
        with torch.no_grad():
            now = log_prob(rollout.raw.flatten(0, 1), agent(features, timesteps).means, 0.6)
        gain = (now - rollout.log_probs.flatten()) * returns.repeat(2)
        assert gain.mean() > 0, kind


def test_minibatches_cover_every_row_once_an_epoch() -> None:
    seen: list[torch.Tensor] = []
    torch.manual_seed(0)
    agent = Agent(PolicyConfig(feature_width=8, grid=(2, 2), num_steps=2, hidden_width=16))
    rollout, features = small_rollout(agent, 0.6)

    def look(rows: torch.Tensor) -> torch.Tensor:
        seen.append(rows)
        return features[rows]

    config = PPOConfig(epochs=3, minibatch=10)
    update(agent, make_optimizer(agent, config), rollout, torch.randn(16), look, 0.6, config, torch.Generator())
    for epoch in torch.cat(seen).split(32):
        assert epoch.sort().values.tolist() == list(range(32))
    assert max(map(len, seen)) == 10


def test_a_static_policy_gives_every_sample_the_same_action_and_learns() -> None:
    agent, _ = run_update(PPOConfig(epochs=5), normalize(torch.randn(16)), kind="static")
    raw = agent.policy(torch.randn(3, 4, 8), torch.tensor([1, 1, 1]))
    assert torch.equal(raw[0], raw[1])
    assert raw.abs().sum() > 0
