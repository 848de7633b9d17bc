"""The four values of one generation step, and the activations that turn network outputs into them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ACTION_NAMES = ("remask_ratio", "sampling_temperature", "remask_temperature", "guidance_scale")
"""The order of the four values everywhere: tensors, tables, flags, logs and plots."""

LARGEST = 1e4
"""Largest of the values: larger guidance scales overflow float32 logits."""

_EPSILON = 1e-6
"""Margin that the inverse activations keep from 0 and 1, whose pre-activations are infinite."""


class Action(NamedTuple):
    """What one step does to each sample of a batch.

    Attributes:
        remask_ratio: (B,), fraction of N (or of the tokens that are not given) to mask again, in [0, 1).
        sampling_temperature: (B,), divides the logits that ids are drawn from.
        remask_temperature: (B,), multiplies the Gumbel noise on the confidence.
        guidance_scale: (B,), w in ``cond + w * (cond - null)``; 0 is unguided.
        pre_activations: (B, 4), the four values before sigmoid and softplus; None for fixed schedules.
    """

    remask_ratio: Tensor
    sampling_temperature: Tensor
    remask_temperature: Tensor
    guidance_scale: Tensor
    pre_activations: Tensor | None = None

    def values(self) -> Tensor:
        """The four values as (B, 4), in the order of ``ACTION_NAMES``."""
        return torch.stack(self[:4], dim=-1)


def action_from_values(values: Tensor) -> Action:
    """Split (B, 4) values in the order of ``ACTION_NAMES``."""
    return Action(*values.unbind(-1))


def action_from_raw(raw: Tensor) -> Action:
    """Turn pre-activations (B, 4), in the order of ``ACTION_NAMES``, into an action.

    The ratio passes through a sigmoid, the other three values through a softplus, up to ``LARGEST``.

    Source: AdaNAT (arXiv 2409.00342), the policy network's output, as in the authors' code.
    """
    values = torch.cat([raw[:, :1].sigmoid(), F.softplus(raw[:, 1:]).clamp(max=LARGEST)], dim=-1)
    return action_from_values(values)._replace(pre_activations=raw)


def raw_from_values(values: Tensor) -> Tensor:
    """Invert ``action_from_raw``: return the pre-activations (..., 4) of action values (..., 4)."""
    ratio, rest = values[..., :1], values[..., 1:].clamp(min=_EPSILON)
    # log(exp(y) - 1), written so that neither a small nor a large y loses digits
    inverse_softplus = rest + torch.log(-torch.expm1(-rest))
    return torch.cat([torch.logit(ratio, eps=_EPSILON), inverse_softplus], dim=-1)
