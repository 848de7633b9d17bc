"""One PPO update: from rewards to returns and advantages, and the clipped objective over some epochs of a rollout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from adanat_cli.core.config import PPOConfig
from adanat_cli.core.ppo.agent import AgentOutput
from adanat_cli.core.ppo.gaussian import entropy, log_prob
from adanat_cli.core.ppo.rollout import Rollout

_EPSILON = 1e-7
FeaturesOf = Callable[[Tensor], Tensor]
"""Maps (R,) rows of a rollout, step * B + trajectory, to their (R, N, D) features."""
AgentCall = Callable[[Tensor, Tensor], AgentOutput]
"""The agent, or its distributed wrapper."""


class Processes(Protocol):
    """The processes that share an update, such as an ``Accelerator``."""

    @property
    def num_processes(self) -> int:
        """Number of processes; each has its own rows, of as many trajectories."""

    @property
    def process_index(self) -> int:
        """Number of this process, whose trajectories follow those of the ones before."""

    def backward(self, loss: Tensor) -> object:
        """Compute gradients."""

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenate the rows of all processes."""


class OneProcess:
    """No other processes."""

    num_processes, process_index = 1, 0

    def backward(self, loss: Tensor) -> None:
        """Compute gradients."""
        loss.backward()

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the rows as they are."""
        return tensor


class Losses(NamedTuple):
    """The terms of PPO's loss and two diagnostics of an optimizer step, all scalars.

    Attributes:
        total: the loss to minimise.
        policy: minus the clipped objective.
        value: mean squared error of the critic, before its weight.
        kl: estimated Kullback-Leibler divergence of the new policy from the one that acted.
        clip_fraction: fraction of rows whose probability ratio left the clip range.
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


def baseline_groups(baseline: Literal["class", "pair", "none"], labels: Tensor) -> Tensor | None:
    """Return the groups (B,) whose mean reward is the baseline; None for no baseline.

    Args:
        baseline: a sample's class, its pair (samples 2i and 2i + 1), or none.
        labels: (B,), classes or numbers of prompts.
    """
    if baseline == "pair":
        return torch.arange(len(labels), device=labels.device) // 2
    return labels if baseline == "class" else None


def normalize(returns: Tensor, all_returns: Tensor | None = None) -> Tensor:
    """Shift and scale returns to mean 0 and unbiased standard deviation 1 over the rows of all processes.

    Args:
        returns: (R,), rows of this process.
        all_returns: rows of all processes; None where this is the only one.

    Source: AdaNAT (arXiv 2409.00342), the released code.
    """
    reference = returns if all_returns is None else all_returns
    return (returns - reference.mean()) / (reference.std() + _EPSILON)


def terminal_returns(rewards: Tensor, num_steps: int, groups: Tensor | None = None) -> Tensor:
    """Turn rewards of whole trajectories into the normalised returns that all their steps share.

    The reward comes at the last step and is not discounted. It counts T times, once for each row, as in the reference:
    over the trajectories alone the unbiased standard deviation would be larger by the root of (B T - 1) / (T (B - 1)),
    7 % for 6 trajectories of 4 steps and 0.01 % for 4,096 of 8.

    Args:
        rewards: (B,), of all processes.
        num_steps: T.
        groups: (B,), groups whose mean reward is subtracted; None subtracts nothing.

    Returns:
        (B,) returns, of mean 0 and unbiased standard deviation 1 over the B T rows.

    Source: AdaNAT (arXiv 2409.00342), the released code.
    """
    if groups is not None:
        rewards = rewards - group_means(rewards, groups)
    return normalize(rewards, rewards.repeat(num_steps))


def losses(
    output: AgentOutput,
    raw: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    returns: Tensor,
    std: float,
    config: PPOConfig,
) -> Losses:
    """PPO's clipped objective with a value and an entropy term, means over (R,) rows.

    Args:
        output: output of the agent at the rows.
        raw: (R, 4), raw actions taken.
        old_log_probs: (R,), their log-densities when they were taken.
        advantages: (R,).
        returns: (R,), targets of the critic.
        std: standard deviation of the raw actions when they were taken.
        config: clip range and weights.

    Source: PPO (arXiv 1707.06347), equations 7 and 9; AdaNAT (arXiv 2409.00342).
    """
    log_ratio = log_prob(raw, output.means, std) - old_log_probs
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
    policy = -torch.minimum(ratio * advantages, clipped * advantages).mean()
    value = F.mse_loss(output.values, returns)
    # The entropy does not depend on the mean: it only shifts the loss, as in the reference.
    bonus = config.entropy_weight * entropy(std, raw.shape[-1])
    total = policy + config.value_weight * value - bonus
    with torch.no_grad():
        kl = (ratio - 1 - log_ratio).mean()  # low variance and never negative (Schulman 2020)
        clip_fraction = ((ratio - 1).abs() > config.clip).float().mean()
    return Losses(total, policy.detach(), value.detach(), kl, clip_fraction)


def update(
    agent: AgentCall,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    returns: Tensor,
    features_of: FeaturesOf,
    std: float,
    config: PPOConfig,
    generator: torch.Generator,
    processes: Processes | None = None,
    pieces: int = 1,
) -> dict[str, float]:
    """Improve policy and critic over all epochs of one rollout.

    Minibatches are drawn from the rows of all processes, so that their number changes nothing.

    Args:
        agent: the agent, perhaps wrapped for several processes.
        optimizer: optimizer of its weights.
        rollout: T steps of B trajectories.
        returns: (B,), normalised over all processes; every step of a trajectory has its return.
        features_of: looks features up, or recomputes them.
        std: standard deviation of the raw actions in the rollout.
        config: settings of PPO.
        generator: on the CPU; shuffles rows, alike in all processes.
        processes: processes that share ``config.minibatch``; None for this one alone.
        pieces: parts to cut a process's share of a minibatch into, whose gradients add up.

    Returns:
        Means over all optimizer steps: loss, policy_loss, value_loss, kl, clip_fraction, gradient_norm; and
        explained_variance of the old values, entropy.
    """
    processes = processes or OneProcess()
    num_steps, batch = rollout.log_probs.shape
    raw, old_log_probs, values = rollout.raw.flatten(0, 1), rollout.log_probs.flatten(), rollout.values.flatten()
    timesteps = torch.arange(num_steps, device=raw.device).repeat_interleave(batch)
    targets = returns.repeat(num_steps)  # rows are step-major
    advantages = targets - values
    if config.normalize_advantages:
        advantages = normalize(advantages, processes.gather(advantages))
    parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
    stats: list[Tensor] = []
    rows = _Rows(raw, old_log_probs, advantages, targets, timesteps, features_of)
    for _ in range(config.epochs):
        for mine, total in _minibatches(num_steps, batch, config.minibatch, generator, processes):
            optimizer.zero_grad(set_to_none=True)
            parts = mine.to(raw.device).tensor_split(pieces)
            terms = [_backward(agent, rows, part, total, std, config, processes) for part in parts]
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.gradient_norm or float("inf"))
            optimizer.step()
            stats.append(torch.cat([torch.stack(terms).sum(0), norm[None]]))
    names = ("loss", "policy_loss", "value_loss", "kl", "clip_fraction", "gradient_norm")
    means = dict(zip(names, torch.stack(stats).mean(0).tolist(), strict=True))
    expected, reached = processes.gather(values), processes.gather(targets)
    unexplained = (reached - expected).var() / (reached.var() + _EPSILON)
    return {**means, "explained_variance": 1 - float(unexplained), "entropy": entropy(std, raw.shape[-1])}


class _Rows(NamedTuple):
    """What PPO learns from, by row of this process's rollout; see ``losses``."""

    raw: Tensor
    old_log_probs: Tensor
    advantages: Tensor
    targets: Tensor
    timesteps: Tensor
    features_of: FeaturesOf


def _backward(
    agent: AgentCall, rows: _Rows, picked: Tensor, total: int, std: float, config: PPOConfig, processes: Processes
) -> Tensor:
    """Add the gradients of some rows of a minibatch.

    Args:
        agent: the agent, perhaps wrapped for several processes.
        rows: this process's.
        picked: (R,), which of them.
        total: rows of the whole minibatch, over all processes.
        std: standard deviation of the raw actions in the rollout.
        config: settings of PPO.
        processes: processes that share the minibatch.

    Returns:
        (5,), the terms of ``Losses``, which sum to the minibatch's over the pieces, as means over processes.
    """
    weight = processes.num_processes * len(picked) / total  # gradients are averaged over processes
    if not len(picked):  # this process takes part with any row, which does not count
        picked = picked.new_zeros(1)
    output = AgentOutput(*agent(rows.features_of(picked), rows.timesteps[picked]))
    taken = (rows.raw[picked], rows.old_log_probs[picked], rows.advantages[picked], rows.targets[picked])
    loss = losses(output, *taken, std, config)
    processes.backward(loss.total * weight)
    return torch.stack([loss.total.detach(), *loss[1:]]) * weight


def _minibatches(
    num_steps: int, batch: int, size: int, generator: torch.Generator, processes: Processes
) -> Iterator[tuple[Tensor, int]]:
    """Shuffle the rows of all processes, and yield this one's of each minibatch with the number of all.

    Args:
        num_steps: T.
        batch: B, trajectories of one process.
        size: rows of a minibatch over all processes; 0 for all.
        generator: on the CPU, in the same state in all processes.
        processes: whose rows they are.
    """
    everywhere = batch * processes.num_processes
    order = torch.randperm(num_steps * everywhere, generator=generator)
    for picked in order.split(size or len(order)):
        steps, trajectories = picked // everywhere, picked % everywhere
        rows = steps * batch + trajectories % batch
        yield rows[trajectories // batch == processes.process_index], len(picked)
