"""Trajectories of a policy that explores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adanat_cli.core.generation.actions import Action
from adanat_cli.core.generation.noise import Noise
from adanat_cli.core.generation.state import DecodingState
from adanat_cli.core.generation.step import Predictor, generate
from adanat_cli.core.policy.schedule import PolicySchedule
from adanat_cli.core.ppo.agent import Agent
from adanat_cli.core.ppo.gaussian import log_prob


@dataclass(frozen=True)
class Rollout:
    """B trajectories of T steps; a row is one step of one trajectory.

    Attributes:
        token_ids: (T, B, N) int32, input of the NAT at each step.
        features: (T, B, N, D), the NAT's, in the requested number format; None where they are recomputed.
        raw: (T, B, 4), raw actions drawn.
        log_probs: (T, B), log-densities of the raw actions when they were drawn.
        values: (T, B), the critic's estimates at that time.
        actions: (T, B, 4), the four values that the steps used.
        sampled_ids: (B, N) int64, the images.
    """

    token_ids: Tensor
    features: Tensor | None
    raw: Tensor
    log_probs: Tensor
    values: Tensor
    actions: Tensor
    sampled_ids: Tensor

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        tensors = [tensor for tensor in self.__dict__.values() if tensor is not None]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class _Explorer:
    """A schedule that draws actions around a policy's mean and keeps the rows of a rollout."""

    needs_features = True
    order: Tensor | None = None

    def __init__(
        self, policy: PolicySchedule, agent: Agent, exploration: Tensor, std: float, keep: torch.dtype | None
    ) -> None:
        self.num_steps = policy.num_steps
        self._policy, self._agent, self._exploration, self._std, self._keep = policy, agent, exploration, std, keep
        self.rows: list[tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor, Tensor]] = []

    def __call__(self, state: DecodingState, features: Tensor | None) -> Action:
        assert features is not None
        # In the number format in which PPO sees them later, so that the first ratio of every row is 1.
        kept = features if self._keep is None else features.to(self._keep)
        timesteps = torch.full((len(kept),), state.step, device=kept.device)
        means, values = self._agent(kept, timesteps)
        raw = means + self._std * self._exploration[state.step]
        action = self._policy.act(state, raw)
        stored = None if self._keep is None else kept
        density = log_prob(raw, means, self._std)
        self.rows.append((state.token_ids.int(), stored, raw, density, values, action.values()))
        return action


@torch.no_grad()
def collect(
    agent: Agent,
    predict: Predictor,
    state: DecodingState,
    noise: Noise,
    exploration: Tensor,
    std: float,
    keep: torch.dtype | None = torch.bfloat16,
) -> Rollout:
    """Generate a batch of images with actions drawn around the policy's mean.

    Args:
        agent: policy and critic.
        predict: the NAT.
        state: ``DecodingState.start(...)``.
        noise: randomness of generation.
        exploration: (T, B, 4) draws of a standard normal.
        std: standard deviation of the raw actions.
        keep: number format to keep features in; None keeps token ids only, from which features are recomputed.

    Source: AdaNAT (arXiv 2409.00342), trajectories of the current policy.
    """
    explorer = _Explorer(PolicySchedule(agent.policy), agent, exploration, std, keep)
    last = generate(explorer, predict, state, noise)
    ids, features, raw, density, values, actions = zip(*explorer.rows, strict=True)
    stacked = None if keep is None else torch.stack([row for row in features if row is not None])
    return Rollout(
        token_ids=torch.stack(ids),
        features=stacked,
        raw=torch.stack(raw),
        log_probs=torch.stack(density),
        values=torch.stack(values),
        actions=torch.stack(actions),
        sampled_ids=last.sampled_ids,
    )


def join(rollouts: Sequence[Rollout]) -> Rollout:
    """Put batches of trajectories of the same policy side by side."""
    if len(rollouts) == 1:
        return rollouts[0]
    names = ["token_ids", "raw", "log_probs", "values", "actions"]
    names += ["features"] if rollouts[0].features is not None else []
    columns: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in rollouts], dim=1) for name in names}
    return Rollout(**{"features": None, **columns, "sampled_ids": torch.cat([part.sampled_ids for part in rollouts])})
