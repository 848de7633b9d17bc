"""Which device and number format a run uses."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from adanat_cli.core.config import Precision
from adanat_cli.core.errors import AdaNATError


def pick_device(name: str = "") -> torch.device:
    """Return the named device, or the best one here.

    Raises:
        AdaNATError: if the name is unknown or the device is absent.
    """
    if not name:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise AdaNATError(f"Device {name!r} cannot be used here; try cpu, or leave --device out.") from error
    return device


def pick_precision(precision: Precision, device: torch.device, job: Callable[[torch.dtype], object]) -> torch.dtype:
    """Resolve "auto": bf16 on a GPU that has it; on a CPU whichever runs ``job(dtype)`` faster.

    Args:
        precision: "auto", "fp32" or "bf16".
        device: where the run computes.
        job: does a typical piece of the work in the given number format.
    """
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type != "cpu":
        return torch.float32
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        job(dtype)  # the first call builds kernels
        start = time.perf_counter()
        job(dtype)
        seconds[dtype] = time.perf_counter() - start
    # float32 is the safer format: bf16 has to pay.
    return torch.bfloat16 if seconds[torch.bfloat16] < 0.85 * seconds[torch.float32] else torch.float32
