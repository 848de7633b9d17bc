"""A policy network in the place of a fixed schedule."""

from __future__ import annotations

import torch
from torch import Tensor

from adanat_cli.core.config import PolicyConfig
from adanat_cli.core.generation.actions import Action, action_from_raw, raw_from_values
from adanat_cli.core.generation.schedules import (
    AutoNATSchedule,
    CosineSchedule,
    Schedule,
    TableSchedule,
    autonat_count,
)
from adanat_cli.core.generation.state import DecodingState
from adanat_cli.core.policy.static import Policy


class PolicySchedule:
    """Actions of a policy: its outputs, plus the base schedule if residual, smoothed over steps if asked.

    It keeps nothing between calls: smoothing reads ``state.last_action``.
    """

    order: Tensor | None = None

    def __init__(self, network: Policy) -> None:
        """Take a policy with its configuration."""
        self.network = network
        self.num_steps = network.config.num_steps
        self.needs_features = network.config.kind == "adaptive"
        self._base = base_pre_activations(network.config) if network.config.residual else None  # (T, 4)

    def __call__(self, state: DecodingState, features: Tensor | None) -> Action:
        """Return the action at the network's mean."""
        return self.act(state, self.raw(state, features))

    def raw(self, state: DecodingState, features: Tensor | None) -> Tensor:
        """Return the policy's outputs (B, 4) for features (B, N, D) of the state's tokens."""
        if features is None and self.needs_features:
            raise ValueError("an adaptive policy needs the features of the network at the state's tokens")
        timesteps = torch.full((len(state.mask),), state.step, device=state.mask.device)
        raw: Tensor = self.network(None if features is None else features.float(), timesteps)
        return raw

    def act(self, state: DecodingState, raw: Tensor) -> Action:
        """Turn raw outputs (B, 4), explored or not, into the action of the next step.

        Source: AdaGen's released code for the smoothing, ``y_t = s y_(t-1) + (1 - s) x_t`` on pre-activations.
        """
        x = raw if self._base is None else raw + self._base[state.step].to(raw)
        if self.network.config.smoothing and state.last_action is not None:
            previous = state.last_action.pre_activations
            if previous is None:
                raise ValueError("smoothing needs a policy's own last action, and that was a fixed schedule's")
            x = torch.lerp(x, previous, self.network.config.smoothing)
        action = action_from_raw(x)
        return autonat_count(state, action) if self.network.config.schedule == "autonat" else action


def policy_schedule(policy: Policy) -> Schedule:
    """Return what a policy does: its network's actions, or exactly its table's."""
    return base_schedule(policy.config) if policy.config.kind == "table" else PolicySchedule(policy)


def base_schedule(config: PolicyConfig) -> TableSchedule:
    """Return the fixed schedule that a policy starts from, as it is without floor and smoothing."""
    if config.schedule != "cosine":
        return (AutoNATSchedule if config.schedule == "autonat" else TableSchedule)(config.schedule_table)
    return CosineSchedule(
        config.num_steps,
        sampling_temperature=config.sampling_temperature,
        remask_temperature=config.remask_temperature,
        guidance_scale=config.guidance_scale,
    )


def base_pre_activations(config: PolicyConfig) -> Tensor:
    """Return what a residual policy adds to its outputs, (T, 4) pre-activations.

    They are those which, after smoothing, give the base schedule where the network's outputs are zero.
    """
    values = base_schedule(config).table.clone()
    values[:, 1:] = values[:, 1:].clamp(min=config.base_floor)
    smoothed = raw_from_values(values)
    base = smoothed.clone()
    base[1:] = (smoothed[1:] - config.smoothing * smoothed[:-1]) / (1 - config.smoothing)
    return base.float()
