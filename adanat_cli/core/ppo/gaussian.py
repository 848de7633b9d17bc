"""The Gaussian around a policy's mean from which raw actions are drawn."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_prob(actions: Tensor, means: Tensor, std: float) -> Tensor:
    """Return (R,) log-densities of (R, A) raw actions under independent normals of one standard deviation."""
    deviations = (actions - means) / std
    return -0.5 * deviations.square().sum(-1) - actions.shape[-1] * (math.log(std) + 0.5 * math.log(2 * math.pi))


def entropy(std: float, num_values: int) -> float:
    """Differential entropy of ``num_values`` independent normals, in nats; it does not depend on the mean."""
    return num_values * (0.5 + 0.5 * math.log(2 * math.pi) + math.log(std))


def normal_draws(uniform: Tensor, signs: Tensor) -> Tensor:
    """Turn draws of a uniform distribution into those of a standard normal; two of opposite sign are antithetic.

    Args:
        uniform: (T, B, A), in (0, 1).
        signs: (B,), 1 or -1.

    Returns:
        (T, B, A) draws.
    """
    return torch.special.ndtri(uniform) * signs[:, None]
