"""Means of what updates measure, and how fast they go, without waiting for the device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor


class Meter:
    """Sums what updates measure, on the device, and the time they take."""

    def __init__(self, names: tuple[str, ...], batch_size: int, accelerator: Accelerator) -> None:
        """Begin; ``names`` are what an update measures, ``batch_size`` is over all processes."""
        self._names, self._batch_size, self._accelerator = names, batch_size, accelerator
        self._reset()

    def _reset(self) -> None:
        self._sums = torch.zeros(len(self._names), device=self._accelerator.device)
        self._num, self._num_before, self._start = 0, 0, time.perf_counter()

    def add(self, stats: Tensor) -> None:
        """Count one update's statistics, one number a name."""
        self._sums += stats
        self._num += 1

    def is_finite(self) -> bool:
        """Whether all since the last reading were numbers."""
        return bool(self._sums.isfinite().all())

    def read(self) -> dict[str, float]:
        """Return means over processes and updates, and begin anew."""
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
        """Go on from what was added before."""
        self._sums.copy_(state["sums"])
        self._num = self._num_before = state["num"]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave what happens inside out of the time."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start
