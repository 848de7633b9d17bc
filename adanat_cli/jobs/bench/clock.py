"""Seconds, peak memory, and the speed of a plain matrix product on this machine."""

from __future__ import annotations

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from adanat_cli.jobs.runtime.devices import seconds_of, synchronize

_SIDE, _SIDE_ON_GPU = 1024, 8192
"""Rows and columns of the matrices: large enough for the full speed of the device."""
_PRODUCTS = 4


class Stopwatch:
    """Adds up the seconds of named stages; a stage inside another counts for itself only.

    Attributes:
        seconds: stage -> seconds.
    """

    def __init__(self, device: torch.device) -> None:
        """Start with no stage."""
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = device

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        synchronize(self._device)
        start, before = time.perf_counter(), sum(self.seconds.values())
        yield
        synchronize(self._device)
        inside = sum(self.seconds.values()) - before
        self.seconds[name] += time.perf_counter() - start - inside


class ProductRate:
    """Operations a second of the fastest product of square matrices in a number format.

    Attributes:
        best: of all measurements; a machine that is shared or throttled has another speed from minute to minute.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        """Measure for the first time."""
        self._side = _SIDE_ON_GPU if device.type == "cuda" else _SIDE
        self._dtype, self._device, self.best = dtype, device, 0.0
        self.measure()

    def measure(self) -> None:
        """Time a few products."""
        shape = (2, self._side, self._side)
        left, right = torch.randn(shape, device=self._device).to(self._dtype)
        seconds = min(seconds_of(lambda: left @ right, self._device) for _ in range(_PRODUCTS))
        self.best = max(self.best, 2 * self._side**3 / seconds)


class PeakMemory:
    """The most memory that work takes: allocated on a GPU, else resident in this process.

    Where the system cannot reset its record (Linux can), the peak is that of the process so far.
    """

    def __init__(self, device: torch.device) -> None:
        """Forget earlier peaks."""
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        with suppress(OSError):  # another system, or not allowed
            Path("/proc/self/clear_refs").write_text("5")

    def bytes(self) -> int:
        """The peak since the start."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        try:
            status = Path("/proc/self/status").read_text()
            return 1024 * int(status.partition("VmHWM:")[2].split()[0])
        except (OSError, IndexError):
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return peak if sys.platform == "darwin" else 1024 * peak
