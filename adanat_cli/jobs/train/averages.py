"""Exponential moving average of a module's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ema:
    """Keeps ``average <- d * average + (1 - d) * weight`` for every parameter; buffers are copied.

    d rises to the decay: at update n (from 0) it is at most (1 + n) / (10 + n). So the average spans about the last
    tenth of a short training, and the random initial weights are soon forgotten.

    Source: the warm-up of TensorFlow's and timm's ExponentialMovingAverage; AdaNAT's code (arXiv 2409.00342) has none.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start from a copy of the module's weights."""
        self.decay = decay
        self._average = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move the average towards the module's present weights after update ``step``, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = dict(module.named_parameters())
        torch._foreach_lerp_([self._average[name] for name in parameters], list(parameters.values()), 1 - decay)
        for name, buffer in module.named_buffers():
            if name in self._average:
                self._average[name].copy_(buffer)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights, under the module's own names; not copied."""
        return self._average

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from saved averages."""
        for name, tensor in self._average.items():
            tensor.copy_(state[name])
