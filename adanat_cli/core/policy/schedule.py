"""A learned policy as a schedule, interchangeable with a fixed one."""

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
    """The actions of a policy: its outputs, plus the base schedule if residual, smoothed over steps if configured.

    It has no state of its own: smoothing reads ``state.last_action``.
    """

    order: Tensor | None = None

    def __init__(self, network: Policy) -> None:
        """Wrap a policy network."""
        self.network = network
        self.num_steps = network.config.num_steps
        self.needs_features = network.config.kind == "adaptive"
        self._base = base_pre_activations(network.config) if network.config.residual else None  # (T, 4)

    def __call__(self, state: DecodingState, features: Tensor | None) -> Action:
        """Return the action of the policy's mean, without exploration."""
        return self.act(state, self.raw(state, features))

    def raw(self, state: DecodingState, features: Tensor | None) -> Tensor:
        """Return the policy's (B, 4) outputs, given the (B, N, D) features of the state's tokens."""
        if features is None and self.needs_features:
            raise ValueError("an adaptive policy needs the NAT's features of the state's tokens, and got none")
        timesteps = torch.full((len(state.mask),), state.step, device=state.mask.device)
        raw: Tensor = self.network(None if features is None else features.float(), timesteps)
        return raw

    def act(self, state: DecodingState, raw: Tensor) -> Action:
        """Turn raw outputs (B, 4), with or without exploration noise, into the action of the next step.

        Source: the authors' code of AdaGen for the smoothing, ``y_t = s y_(t-1) + (1 - s) x_t`` on pre-activations.
        """
        x = raw if self._base is None else raw + self._base[state.step].to(raw)
        if self.network.config.smoothing and state.last_action is not None:
            previous = state.last_action.pre_activations
            if previous is None:
                raise ValueError("smoothing needs a last action of a policy, and got one of a fixed schedule")
            x = torch.lerp(x, previous, self.network.config.smoothing)
        action = action_from_raw(x)
        return autonat_count(state, action) if self.network.config.schedule == "autonat" else action


def policy_schedule(policy: Policy) -> Schedule:
    """Return the schedule of a policy: of its network, or the fixed table of the kind "table"."""
    return base_schedule(policy.config) if policy.config.kind == "table" else PolicySchedule(policy)


def base_schedule(config: PolicyConfig) -> TableSchedule:
    """Return the fixed schedule that a policy starts from, before floor and smoothing are applied."""
    if config.schedule != "cosine":
        return (AutoNATSchedule if config.schedule == "autonat" else TableSchedule)(config.schedule_table)
    return CosineSchedule(
        config.num_steps,
        sampling_temperature=config.sampling_temperature,
        remask_temperature=config.remask_temperature,
        guidance_scale=config.guidance_scale,
    )


def base_pre_activations(config: PolicyConfig) -> Tensor:
    """Return the (T, 4) pre-activations that a residual policy adds to its outputs.

    Where the network's outputs are zero, they give the base schedule after smoothing.
    """
    values = base_schedule(config).table.clone()
    values[:, 1:] = values[:, 1:].clamp(min=config.base_floor)
    smoothed = raw_from_values(values)
    base = smoothed.clone()
    base[1:] = (smoothed[1:] - config.smoothing * smoothed[:-1]) / (1 - config.smoothing)
    return base.float()
