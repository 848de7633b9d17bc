"""Averages over the updates of a training: of weights, and of what an update measures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn


class Ema:
    """Keeps ``average <- d * average + (1 - d) * weight`` for every parameter that learns; all else is copied.

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
        parameters = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
        torch._foreach_lerp_([self._average[name] for name in parameters], list(parameters.values()), 1 - decay)
        # A frozen weight keeps its very bits, of which fingerprints are made: an average of -0.0 may be 0.0.
        for name, tensor in module.state_dict().items():
            if name not in parameters:
                self._average[name].copy_(tensor)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights, under the module's own names; not copied."""
        return self._average

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from saved averages."""
        for name, tensor in self._average.items():
            tensor.copy_(state[name])


class Meter:
    """Sums what updates measure, on the device, and the time they take."""

    def __init__(self, names: tuple[str, ...], batch_size: int, accelerator: Accelerator) -> None:
        """Start at 0; ``names`` are the statistics of an update, ``batch_size`` counts the images of all processes."""
        self._names, self._batch_size, self._accelerator = names, batch_size, accelerator
        self._reset()

    def _reset(self) -> None:
        self._sums = torch.zeros(len(self._names), device=self._accelerator.device)
        self._num, self._num_before, self._start = 0, 0, time.perf_counter()

    def add(self, stats: Tensor) -> None:
        """Add the statistics of an update, one number for each name."""
        self._sums += stats
        self._num += 1

    def is_finite(self) -> bool:
        """Whether all statistics since the last reading are finite."""
        return bool(self._sums.isfinite().all())

    def read(self) -> dict[str, float]:
        """Return means over processes and updates, and start again at 0."""
        sums = self._accelerator.reduce(self._sums, reduction="mean")
        values = dict(zip(self._names, (sums / self._num).tolist(), strict=True))
        seconds = time.perf_counter() - self._start
        values["images_per_second"] = (self._num - self._num_before) * self._batch_size / seconds
        self._reset()
        return values

    def state_dict(self) -> dict[str, Any]:
        """What was added since the last reading, by this process; a resumed run's means are of the whole interval."""
        return {"sums": self._sums, "num": self._num}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what was added before."""
        self._sums.copy_(state["sums"])
        self._num = self._num_before = state["num"]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude a block from the measured time."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start
