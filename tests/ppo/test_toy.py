"""PPO solves a decision process whose best actions are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adanat_cli.core.config import PolicyConfig, PPOConfig
from adanat_cli.core.generation.noise import SeededNoise
from adanat_cli.core.generation.state import DecodingState
from adanat_cli.core.generation.step import Prediction
from adanat_cli.core.ppo.agent import Agent, make_optimizer
from adanat_cli.core.ppo.rollout import Rollout, collect, join
from adanat_cli.core.ppo.update import normalize, update

NUM_TOKENS, CODES, WIDTH = 4, 3, 8
BEST = torch.tensor([[0.5, -0.5, 1.0, 0.0], [-1.0, 0.5, 0.0, 1.0]])
"""Raw actions that the toy rewards most, for two kinds of samples."""


def toy_predict(kinds: Tensor):
    """A network without weights: its features tell the kind of the sample."""
    features = torch.zeros(len(kinds), NUM_TOKENS, WIDTH)
    features[..., :4] = 2 * kinds[:, None, None] - 1.0
    features[..., 4] = 1

    def predict(state: DecodingState, guided: Tensor) -> Prediction:
        logits = torch.zeros(int(state.mask.sum()), CODES)
        return Prediction(logits, logits if guided.any() else None, features)

    return predict


def toy_rollout(
    agent: Agent, kinds: Tensor, std: float, seed: int, keep: torch.dtype | None = torch.bfloat16
) -> Rollout:
    num_steps = agent.policy.config.num_steps
    state = DecodingState.start(len(kinds), NUM_TOKENS, CODES, num_steps)
    noise = SeededNoise(seed, torch.arange(len(kinds)), NUM_TOKENS)
    exploration = torch.randn(num_steps, len(kinds), 4, generator=torch.Generator().manual_seed(seed))
    return collect(agent, toy_predict(kinds), state, noise, exploration, std, keep)


def distance(raw: Tensor, best: Tensor) -> Tensor:
    return (raw - best).square().sum(-1).sum(0)


@pytest.mark.parametrize("kind", ["adaptive", "static"])
def test_ppo_finds_the_best_actions(kind: str) -> None:
    torch.manual_seed(0)
    shape = PolicyConfig(feature_width=WIDTH, grid=(2, 2), num_steps=2, hidden_width=16, kind=kind)
    agent = Agent(shape)
    config = PPOConfig(learning_rate=2e-3, static_learning_rate=0.05, minibatch=256, epochs=4)
    optimizer, generator = make_optimizer(agent, config), torch.Generator().manual_seed(0)
    kinds = torch.arange(128) % 2
    if kind == "static":
        kinds = torch.zeros_like(kinds)
    for step in range(40):
        rollout = toy_rollout(agent, kinds, 0.4, step)
        assert rollout.features is not None
        rewards = -distance(rollout.raw, BEST[kinds])
        look = rollout.features.flatten(0, 1).__getitem__
        update(agent, optimizer, rollout, normalize(rewards), look, 0.4, config, generator)
    with torch.no_grad():
        final = distance(toy_rollout(agent, kinds, 1e-6, 0).raw, BEST[kinds]).mean()
    assert final < 0.1 * distance(torch.zeros(2, 2, 4), BEST).mean()


def test_a_rollout_keeps_what_was_asked_for_and_says_its_size() -> None:
    agent = Agent(PolicyConfig(feature_width=WIDTH, grid=(2, 2), num_steps=2, hidden_width=16))
    kinds = torch.arange(6) % 2
    compact = toy_rollout(agent, kinds, 0.4, 0)
    assert compact.features is not None
    assert compact.features.dtype == torch.bfloat16
    rows = 2 * 6
    assert compact.num_bytes == rows * (NUM_TOKENS * (WIDTH * 2 + 4) + 10 * 4) + 6 * NUM_TOKENS * 8
    bare = toy_rollout(agent, kinds, 0.4, 0, None)
    assert bare.features is None
    torch.testing.assert_close(bare.raw, compact.raw, atol=1e-2, rtol=0)
    both = join([compact, compact])
    assert both.raw.shape == (2, 12, 4)
    assert both.num_bytes == 2 * compact.num_bytes
