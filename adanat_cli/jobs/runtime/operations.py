"""Floating-point operations of a piece of work, counted as it runs."""

from __future__ import annotations

from collections.abc import Callable

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def operations(job: Callable[[], object]) -> int:
    """Run a job and count its matrix products, convolutions and attention; a multiply-add counts as 2."""
    # Fused attention hides its products from the counter on some devices.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        job()
    return int(counter.get_total_flops())
