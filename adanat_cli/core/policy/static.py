"""A policy that sees only the step: learned values that are the same for every sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adanat_cli.core.config import PolicyConfig
from adanat_cli.core.policy.network import PolicyNetwork


class StaticPolicy(nn.Module):
    """A learned table of raw action values, one row a step; it starts at zero, and stays there for the kind "table".

    Source: AdaNAT (arXiv 2409.00342), the learned but not adaptive policy that it is compared with.
    """

    def __init__(self, config: PolicyConfig) -> None:
        """Build with zeros."""
        super().__init__()
        self.config = config
        self.table = nn.Parameter(torch.zeros(config.num_steps, config.out_features))

    def forward(self, features: Tensor | None, timesteps: Tensor) -> Tensor:
        """Return (B, out_features) raw values of (B,) step indices; the features are not looked at."""
        return self.table[timesteps]


Policy = PolicyNetwork | StaticPolicy
"""Maps (features, timesteps) to raw action values."""


def build_policy(config: PolicyConfig) -> Policy:
    """Return an untrained policy of the configuration's kind, which is its base schedule."""
    return PolicyNetwork(config) if config.kind == "adaptive" else StaticPolicy(config)
