"""The choice of a number format: the faster one, as measured."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest
import torch

from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.runtime.devices import of_main_process, pick_precision, sampling_precision

CPU, SINGLE, HALF = torch.device("cpu"), torch.float32, torch.bfloat16


@dataclass
class Work:
    """Takes so many milliseconds in each number format, and longer the first time; remembers what it was asked for."""

    single: int
    half: int
    done: list[torch.dtype] = field(default_factory=list)

    def __call__(self, dtype: torch.dtype) -> None:
        first = dtype not in self.done
        self.done.append(dtype)
        time.sleep((self.half if dtype == HALF else self.single) / 1000 + 0.1 * first)


@pytest.mark.parametrize(
    ("single", "half", "chosen", "trials"),
    [(5, 60, SINGLE, 2), (60, 5, HALF, 2), (20, 40, SINGLE, 4), (40, 40, SINGLE, 4), (60, 30, HALF, 4)],
)
def test_auto_takes_the_format_that_is_clearly_faster(single: int, half: int, chosen: torch.dtype, trials: int) -> None:
    work = Work(single, half)
    assert pick_precision("auto", CPU, work) == chosen
    assert work.done == [SINGLE, HALF] * trials


def test_a_format_that_is_given_is_not_measured() -> None:
    work = Work(1, 1)
    assert [pick_precision(name, CPU, work) for name in ("fp32", "bf16")] == [SINGLE, HALF]
    with pytest.raises(AdaNATError, match="precision is 'fp16'; expected 'auto', 'fp32', 'bf16'"):
        pick_precision("fp16", CPU, work)  # type: ignore[arg-type]
    assert not work.done


def test_images_on_a_cpu_do_not_depend_on_timings() -> None:
    work = Work(60, 1)
    assert sampling_precision("auto", CPU, work) == SINGLE
    assert sampling_precision("bf16", CPU, work) == HALF
    assert not work.done


def test_one_process_agrees_with_itself() -> None:
    assert of_main_process(HALF) == HALF
