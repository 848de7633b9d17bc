"""A policy that depends on the step alone: learned values, the same for all samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adanat_cli.core.config import PolicyConfig
from adanat_cli.core.policy.network import PolicyNetwork


class StaticPolicy(nn.Module):
    """A learned (T, 4) table of raw action values; it starts at zero, and stays there for the kind "table".

    Source: AdaNAT (arXiv 2409.00342), the learned but not adaptive baseline.
    """

    def __init__(self, config: PolicyConfig) -> None:
        """Build the table of zeros."""
        super().__init__()
        self.config = config
        self.table = nn.Parameter(torch.zeros(config.num_steps, config.out_features))

    def forward(self, features: Tensor | None, timesteps: Tensor) -> Tensor:
        """Return the (B, out_features) raw values at (B,) step indices; the features are not used."""
        return self.table[timesteps]


Policy = PolicyNetwork | StaticPolicy
"""Maps (B, N, D) features and (B,) step indices to (B, 4) raw action values."""


def build_policy(config: PolicyConfig) -> Policy:
    """Return an untrained policy of the configured kind; a residual one equals its base schedule."""
    return PolicyNetwork(config) if config.kind == "adaptive" else StaticPolicy(config)
