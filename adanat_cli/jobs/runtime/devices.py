"""Devices, processes and number formats of a run."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar, get_args

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list

from adanat_cli.core.config import NATTrainingConfig, Precision, TokenizerTrainingConfig
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.reading import read_object
from adanat_cli.jobs.runtime.group import num_processes, settle_group

Job = Callable[[torch.dtype], object]
"""Does a typical piece of the work of a run in the given number format."""
Training = TypeVar("Training", TokenizerTrainingConfig, NATTrainingConfig)
Shared = TypeVar("Shared")
_TRIALS = 4
"""Times that each number format is measured, at most."""
_LEAST_GAIN, _CLEAR_GAIN = 1 / 0.85, 3
"""Times that bf16 must be faster to be taken; and that one format must be for one trial to decide."""

_PIXELS_AT_ONCE = {"cpu": 2**19}
_PIXELS_AT_ONCE_ON_GPU = 2**22
"""The widest layers of a tokenizer hold hundreds of floats per pixel, so 2**19 pixels take about 2 GB on a CPU."""


def images_at_once(image_size: int, device: torch.device) -> int:
    """Number of square images that a tokenizer may process together in bounded memory."""
    return max(1, _PIXELS_AT_ONCE.get(device.type, _PIXELS_AT_ONCE_ON_GPU) // image_size**2)


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
        if device.type not in ("cuda", "mps", "cpu"):
            raise AdaNATError(f"Device {name!r} is not known; expected cuda, cuda:N, mps or cpu.")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise AdaNATError(f"Device {name!r} cannot be used here; try cpu, or leave --device out.") from error
    return device


def device_memory(device: torch.device) -> int:
    """Bytes of a GPU, or of this machine; 0 where the system does not report it."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0


def make_accelerator(device_name: str, batch_size: int, option: str = "--batch-size") -> Accelerator:
    """Start the device and the processes of a training; the run sets number formats itself.

    Args:
        device_name: name of the device; "" for the best one here.
        batch_size: images per update, over all processes.
        option: the option that sets it, for the message.

    Raises:
        AdaNATError: if the device is absent, the batch cannot be split over the processes, or accelerate is told to
            shard networks itself.
    """
    settle_group()
    require(
        os.environ.get("ACCELERATE_USE_FSDP", "").lower() != "true",
        "accelerate launch was given --use_fsdp, or its configuration says so; leave it out there, and give `adanat "
        "pretrain-nat` --fsdp.",
    )
    device = pick_device(device_name)
    if device.type == "cuda" and device.index is not None and num_processes() == 1:
        torch.cuda.set_device(device)
    # Buffers follow from the same weights everywhere; copying them would break two passes before one backward.
    wrapper = DistributedDataParallelKwargs(broadcast_buffers=False)
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no", kwargs_handlers=[wrapper])
    _leave_group_at_exit()
    require_multiple(batch_size, accelerator.num_processes, option, f"{accelerator.num_processes} processes")
    return accelerator


def require_multiple(number: int, unit: int, option: str, over: str) -> None:
    """Refuse a number of images that cannot be split evenly, and name the next one that can.

    Args:
        number: number of images.
        unit: what it must be a multiple of.
        option: the option that sets it, for the message.
        over: what it is split over, in words.

    Raises:
        AdaNATError: if it is not a multiple.
    """
    require(
        number % unit == 0,
        f"{option} is {number}, which cannot be split over {over}; give a multiple of {unit}, such as "
        f"{option} {-(-number // unit) * unit}.",
    )


@dataclass(frozen=True)
class Processes:
    """The processes that share the work of a job that is not a training, as one of them sees them.

    Attributes:
        device: where this process computes.
        state: Accelerate's view of the processes.
    """

    device: torch.device
    state: PartialState

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return int(self.state.process_index)

    @property
    def num(self) -> int:
        """Number of processes."""
        return int(self.state.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes results and speaks."""
        return self.rank == 0

    def sum(self, number: int) -> int:
        """Sum a number over the processes."""
        if self.num == 1:
            return number
        total = torch.tensor(number, device=self.state.device)
        torch.distributed.all_reduce(total)
        return int(total)


def start_processes(device: str) -> Processes:
    """Find the other processes, if any, and this one's device, for a job that is not a training.

    Raises:
        AdaNATError: if the device is absent.
    """
    settle_group()
    chosen = pick_device(device)  # before the group is formed, so that a mistake is reported at once
    # One process may still work, or compute the metrics, while the others wait for it.
    state = PartialState(cpu=chosen.type == "cpu", timeout=timedelta(hours=24))
    _leave_group_at_exit()
    return Processes(state.device if state.num_processes > 1 else chosen, state)


def _leave_group_at_exit() -> None:
    """Take this process out of its group before Python ends, whose threads would sometimes abort a finished run."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        atexit.register(_leave_group)


def _leave_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def synchronize(device: torch.device) -> None:
    """Wait for what a device has been given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds_of(job: Callable[[], object], device: torch.device) -> float:
    """Run a job and return how long it took."""
    synchronize(device)
    start = time.perf_counter()
    job()
    synchronize(device)
    return time.perf_counter() - start


def pick_precision(precision: Precision, device: torch.device, job: Job) -> torch.dtype:
    """Resolve "auto": whichever number format runs ``job(dtype)`` faster, on a CPU or on a GPU that has bf16.

    A large network gains by bf16 on such a GPU; a small one, whose products are short, loses by the casts.

    Args:
        precision: "auto", "fp32" or "bf16".
        device: where the run computes.
        job: does a typical piece of the work in the given number format.

    Raises:
        AdaNATError: if the precision is none of these.
    """
    known = get_args(Precision)
    require(precision in known, f"precision is {precision!r}; expected {', '.join(map(repr, known))}.")
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    has_bf16 = device.type == "cpu" or (
        device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    # float32 is the safer format, so bf16 has to be clearly faster.
    return torch.bfloat16 if has_bf16 and _gain_of_bf16(job, device) > _LEAST_GAIN else torch.float32


def _gain_of_bf16(job: Job, device: torch.device) -> float:
    """How many times faster a job is in bf16: the best of a few trials, or of one where that leaves no doubt."""
    single, half, gain = list[float](), list[float](), 1.0
    for _ in range(_TRIALS):  # in alternation, so that a busy moment of the machine affects both
        single.append(seconds_of(lambda: job(torch.float32), device))
        half.append(seconds_of(lambda: job(torch.bfloat16), device))
        if len(single) > 1:  # the first call builds kernels
            gain = min(single[1:]) / min(half[1:])
            if not 1 / _CLEAR_GAIN < gain < _CLEAR_GAIN:
                break
    return gain


def sampling_precision(precision: Precision, device: torch.device, job: Job) -> torch.dtype:
    """Resolve "auto" for generation; on a CPU it is always float32, so that timings do not change the images.

    Args:
        precision: "auto", "fp32" or "bf16".
        device: where the images are generated.
        job: a forward of the NAT, the same for any batch size, since images do not depend on that.
    """
    if precision == "auto" and device.type == "cpu":
        return torch.float32
    return pick_precision(precision, device, job)


def of_main_process(value: Shared) -> Shared:
    """What the main process has found, on every process of a group; all must ask."""
    values = [value]
    if PartialState().num_processes > 1:
        broadcast_object_list(values)
    return values[0]


def settle_precision(
    training: Training, output: Path, accelerator: Accelerator, make_job: Callable[[], Job]
) -> Training:
    """Resolve "auto" once for a whole run: as recorded when it was started, else as measured on the main process.

    Args:
        training: the requested settings.
        output: run folder, which holds the choice if the run was started before.
        accelerator: the processes, which must use the same format.
        make_job: builds the job to time; called only if a measurement is needed.
    """
    if training.precision != "auto":
        return training
    saved, chosen = output / "config.json", ""
    if accelerator.is_main_process:
        if saved.exists():
            # A folder with another config.json is refused later, by name.
            recorded = read_object(saved).get("training")
            chosen = str(recorded.get("precision", "fp32") if isinstance(recorded, dict) else "fp32")
        else:
            fast = pick_precision("auto", accelerator.device, make_job())
            chosen = "bf16" if fast == torch.bfloat16 else "fp32"
    return training.replace(precision=of_main_process(chosen))
