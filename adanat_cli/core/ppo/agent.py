"""Policy and critic as one module, so that one call serves both and a distributed wrapper sees both."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from adanat_cli.core.config import PolicyConfig, PPOConfig
from adanat_cli.core.policy import PolicyNetwork, build_policy


class AgentOutput(NamedTuple):
    """Actions and values of R states.

    Attributes:
        means: (R, 4), mean raw actions of the policy.
        values: (R,), the critic's estimates of the normalised returns.
    """

    means: Tensor
    values: Tensor


class Agent(nn.Module):
    """A policy, and a critic of the same shape with one output, which also reads the state if the policy does not."""

    def __init__(self, config: PolicyConfig) -> None:
        """Build both untrained, with weights from PyTorch's global generator."""
        super().__init__()
        self.policy = build_policy(config)
        self.critic = PolicyNetwork(config.replace(kind="adaptive", out_features=1))

    def forward(self, features: Tensor, timesteps: Tensor) -> AgentOutput:
        """Map (R, N, D) features and (R,) step indices to actions and values."""
        features = features.float()
        return AgentOutput(self.policy(features, timesteps), self.critic(features, timesteps)[:, 0])


def make_optimizer(agent: Agent, config: PPOConfig) -> torch.optim.Adam:
    """Adam over both networks; a static policy's table has a learning rate of its own."""
    static = agent.policy.config.kind == "static"
    policy_rate = config.static_learning_rate if static else config.learning_rate
    return torch.optim.Adam(
        [
            {"params": list(agent.policy.parameters()), "lr": policy_rate},
            {"params": list(agent.critic.parameters()), "lr": config.learning_rate},
        ]
    )
