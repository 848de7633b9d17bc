"""Ways to choose the four values of each step, by the words that the page offers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.generation.schedules import CosineSchedule, TableSchedule
from adanat_cli.core.generation.tables import write_table
from adanat_cli.core.policy.schedule import base_schedule
from adanat_cli.jobs.resolve.models import policy_config
from adanat_cli.jobs.resolve.schedules import build_schedule, choose_schedule, settle_schedule
from adanat_cli.jobs.sample.sampler import Sampler

AUTOMATIC, LEARNED, COSINE, TUNED, HALTON, BY_HAND = "automatic", "learned", "cosine", "tuned", "halton", "by hand"
WAYS = (AUTOMATIC, LEARNED, COSINE, TUNED, HALTON, BY_HAND)
"""Tuned is the fixed schedule that the model's policy starts from; by hand is the table of the page's curves."""

Rows = Sequence[Sequence[float]]
_TABLE_FILE = "schedule.yaml"
_DIGITS = 6


def schedule_options(way: str, folder: ModelFolder, num_steps: int, rows: Rows, output: Path) -> dict[str, Any]:
    """What a request says of a way: ``schedule``, and the factors on it.

    Args:
        way: one of ``WAYS``.
        folder: the model.
        num_steps: T.
        rows: (T, 4), the table by hand.
        output: folder where a table is written as a file, if it takes one.

    Raises:
        AdaNATError: if the way needs a table that is not there or not valid.
    """
    require(way in WAYS, f"Schedule {way!r} is not known; expected {', '.join(WAYS)}.")
    if way == BY_HAND:
        require(
            bool(rows), "There are no curves to follow yet; choose another schedule and draw, then change its curves."
        )
        return _table_options(TableSchedule(rows), output)
    if way == TUNED:
        return _tuned_options(folder, num_steps, output)
    return {"schedule": "" if way == AUTOMATIC else way}


def fixed_rows(way: str, sampler: Sampler, num_steps: int, output: Path) -> list[list[float]]:
    """The (T, 4) table of a way that chooses the same values for all images; empty for learned ones.

    Raises:
        AdaNATError: if the model does not have this way.
    """
    options = schedule_options(way, sampler.folder, num_steps, (), output)
    choice, _ = settle_schedule(
        choose_schedule(num_steps=num_steps, **{"text": options.pop("schedule"), **options}), sampler.folder
    )
    if choice.kind == LEARNED:
        return []
    schedule = build_schedule(choice, sampler.folder, sampler.config.grid, torch.device("cpu"))
    assert isinstance(schedule, TableSchedule)
    return rounded(schedule.table.numpy())


def stretched(rows: Rows, num_steps: int) -> list[list[float]]:
    """A table of another number of steps with the same curves."""
    table = np.asarray(rows, dtype=float)
    places, wanted = np.linspace(0, 1, len(table)), np.linspace(0, 1, num_steps)
    return rounded(np.stack([np.interp(wanted, places, column) for column in table.T], axis=1))


def rounded(table: np.ndarray[Any, Any]) -> list[list[float]]:
    """A table with numbers that a person can read."""
    return [[round(float(value), 4) for value in row] for row in table]


def _table_options(schedule: TableSchedule, output: Path) -> dict[str, Any]:
    output.mkdir(parents=True, exist_ok=True)
    write_table(output / _TABLE_FILE, schedule)
    return {"schedule": f"table:{output / _TABLE_FILE}"}


def _tuned_options(folder: ModelFolder, num_steps: int, output: Path) -> dict[str, Any]:
    """The schedule that the policy for these steps starts from, else the factors of that for the nearest steps."""
    nearest = sorted(folder.policy_steps(), key=lambda steps: (abs(steps - num_steps), steps))
    for steps in nearest:
        base = base_schedule(policy_config(folder, steps))
        factors = _factors(base)
        if factors is not None:
            return {"schedule": COSINE, **factors}
        if steps == num_steps:
            return _table_options(base, output)
    raise AdaNATError(
        f"Model {folder.name} has no tuned schedule for {num_steps} steps, which is the one that a learned policy "
        "starts from; choose another schedule."
    )


def _factors(base: TableSchedule) -> dict[str, float] | None:
    """By what a schedule differs from the cosine schedule; None if by more than factors, or not at all."""
    cosine = CosineSchedule(base.num_steps).table
    sampling, remasking = float(base.table[0, 1]), float(base.table[0, 2] / cosine[0, 2])
    guidance = float(base.table[-1, 3] / cosine[-1, 3])
    given = {"sampling_temperature": sampling, "remask_temperature": remasking, "guidance_scale": guidance}
    given = {name: round(value, _DIGITS) for name, value in given.items()}
    same = bool(torch.isclose(CosineSchedule(base.num_steps, **given).table, base.table, atol=1e-9).all())
    factors = {name: value for name, value in given.items() if value != 1}
    return factors if same and factors else None
