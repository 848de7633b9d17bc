"""The mathematics of one PPO update, and its epochs over a rollout."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from adanat_cli.core.config import PPOConfig
from adanat_cli.core.ppo.agent import Judgement
from adanat_cli.core.ppo.gaussian import entropy, log_prob
from adanat_cli.core.ppo.rollout import Rollout

_EPSILON = 1e-7
FeaturesOf = Callable[[Tensor], Tensor]
"""Maps (R,) rows of a rollout, step * B + trajectory, to their (R, N, D) features."""
Judge = Callable[[Tensor, Tensor], Judgement]
"""The agent, or its distributed wrapper."""


class Losses(NamedTuple):
    """The terms of PPO's loss, scalars, and what the steps of training are judged by.

    Attributes:
        total: what is minimised.
        policy: of the clipped objective.
        value: mean squared error of the critic, before its weight.
        kl: estimated Kullback-Leibler divergence of the new policy from the one that acted.
        clip_fraction: share of rows whose ratio left the clip range.
    """

    total: Tensor
    policy: Tensor
    value: Tensor
    kl: Tensor
    clip_fraction: Tensor


def group_means(rewards: Tensor, groups: Tensor) -> Tensor:
    """Return the mean reward (B,) of each sample's group, such as its class; a group of one is its own mean."""
    _, inverse = groups.unique(return_inverse=True)
    sums = torch.zeros(int(inverse.max()) + 1, device=rewards.device).index_add(0, inverse, rewards)
    return (sums / inverse.bincount())[inverse]


def normalize(returns: Tensor, all_returns: Tensor | None = None) -> Tensor:
    """Bring returns to mean 0 and deviation 1 (unbiased) over the rows of all processes.

    Args:
        returns: (R,), rows of this process.
        all_returns: rows of all processes; by default this one's.

    Source: AdaNAT (arXiv 2409.00342), the released code.
    """
    every = returns if all_returns is None else all_returns
    return (returns - every.mean()) / (every.std() + _EPSILON)


def terminal_returns(rewards: Tensor, num_steps: int, groups: Tensor | None = None) -> Tensor:
    """Turn rewards of whole trajectories into the normalised returns that every step of theirs has.

    A reward counts T times, once for each row, as in the reference: over the trajectories alone the unbiased deviation
    would be larger by the root of (B T - 1) / (T (B - 1)), 7 % for 6 trajectories of 4 steps and 0.01 % for 4,096 of 8.

    Args:
        rewards: (B,), of all processes.
        num_steps: T.
        groups: (B,), of samples whose mean reward is subtracted from theirs; None subtracts nothing.

    Returns:
        (B,) returns, of mean 0 and unbiased deviation 1 over the B T rows.

    Source: AdaNAT (arXiv 2409.00342), the released code.
    """
    if groups is not None:
        rewards = rewards - group_means(rewards, groups)
    return normalize(rewards, rewards.repeat(num_steps))


def losses(
    judgement: Judgement,
    raw: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    returns: Tensor,
    std: float,
    config: PPOConfig,
) -> Losses:
    """PPO's clipped objective with a value and an entropy term, means over (R,) rows.

    Args:
        judgement: the agent's, at the rows.
        raw: (R, 4), actions taken.
        old_log_probs: (R,), when they were taken.
        advantages: (R,).
        returns: (R,), targets of the critic.
        std: exploration's deviation when they were taken.
        config: clip range and weights.

    Source: PPO (arXiv 1707.06347), equations 7 and 9; AdaNAT (arXiv 2409.00342).
    """
    log_ratio = log_prob(raw, judgement.means, std) - old_log_probs
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
    policy = -torch.minimum(ratio * advantages, clipped * advantages).mean()
    value = F.mse_loss(judgement.values, returns)
    # The entropy does not depend on the mean: it only shifts the loss, as in the reference.
    bonus = config.entropy_weight * entropy(std, raw.shape[-1])
    total = policy + config.value_weight * value - bonus
    with torch.no_grad():
        kl = (ratio - 1 - log_ratio).mean()  # low variance and never negative (Schulman 2020)
        clip_fraction = ((ratio - 1).abs() > config.clip).float().mean()
    return Losses(total, policy.detach(), value.detach(), kl, clip_fraction)


def update(
    judge: Judge,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    returns: Tensor,
    features_of: FeaturesOf,
    std: float,
    config: PPOConfig,
    generator: torch.Generator,
    num_processes: int = 1,
    backward: Callable[[Tensor], object] = Tensor.backward,
    gather: Callable[[Tensor], Tensor] = torch.Tensor.clone,
) -> dict[str, float]:
    """Take all epochs over one rollout.

    The reward comes at the last step only and is not discounted, so every step of a trajectory has its return.

    Args:
        judge: the agent, perhaps wrapped for several processes.
        optimizer: over its weights.
        rollout: T steps of B trajectories.
        returns: (B,), normalised over all processes.
        features_of: looks features up, or computes them.
        std: exploration's deviation in the rollout.
        config: of PPO.
        generator: on the CPU; shuffles rows.
        num_processes: that share ``config.minibatch``.
        backward: the way to compute gradients.
        gather: collects rows over all processes.

    Returns:
        Means over all steps: loss, policy_loss, value_loss, kl, clip_fraction, gradient_norm; and explained_variance
        of the old values, entropy.
    """
    num_steps, batch = rollout.log_probs.shape
    device = rollout.raw.device
    raw, old = rollout.raw.flatten(0, 1), rollout.log_probs.flatten()
    targets = returns.repeat(num_steps)  # rows are step-major
    advantages = targets - rollout.values.flatten()
    if config.normalize_advantages:
        advantages = normalize(advantages, gather(advantages))
    timesteps = torch.arange(num_steps, device=device).repeat_interleave(batch)
    size = -(-config.minibatch // num_processes) if config.minibatch else len(raw)
    parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
    stats: list[Tensor] = []
    for _ in range(config.epochs):
        for rows in torch.randperm(len(raw), generator=generator).to(device).split(size):
            judgement = Judgement(*judge(features_of(rows), timesteps[rows]))
            loss = losses(judgement, raw[rows], old[rows], advantages[rows], targets[rows], std, config)
            optimizer.zero_grad(set_to_none=True)
            backward(loss.total)
            limit = config.gradient_norm or float("inf")
            norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
            optimizer.step()
            stats.append(torch.stack([loss.total.detach(), *loss[1:], norm]))
    names = ("loss", "policy_loss", "value_loss", "kl", "clip_fraction", "gradient_norm")
    means = dict(zip(names, torch.stack(stats).mean(0).tolist(), strict=True))
    residual = (targets - rollout.values.flatten()).var() / (targets.var() + _EPSILON)
    return {**means, "explained_variance": 1 - float(residual), "entropy": entropy(std, raw.shape[-1])}
