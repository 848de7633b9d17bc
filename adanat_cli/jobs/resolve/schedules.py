"""From the words ``cosine``, ``halton``, ``learned``, ``autonat:FILE`` or ``table:FILE`` to a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from adanat_cli.core.checkpoints.folder import ModelFolder, policy_component
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.generation.schedules import CosineSchedule, HaltonSchedule, Schedule, TableSchedule
from adanat_cli.core.generation.tables import read_autonat, read_table
from adanat_cli.jobs.resolve.models import load_policy

DEFAULT_NUM_STEPS = 8
_KINDS = "learned, cosine, halton, autonat:FILE or table:FILE"


@dataclass(frozen=True)
class ScheduleChoice:
    """What was asked for, checked as far as that goes without a model.

    Attributes:
        kind: "auto" (learned if the model can, else cosine), "learned", "cosine", "halton" or "table".
        num_steps: T.
        temperature: factor on the re-masking temperature; the sampling temperature of "halton". None if not given.
        guidance: factor on the guidance scale; the scale of "halton". None if not given.
        table: the schedule from a file, not yet scaled.
    """

    kind: str
    num_steps: int
    temperature: float | None = None
    guidance: float | None = None
    table: TableSchedule | None = None


def choose_schedule(
    text: str, num_steps: int | None, temperature: float | None = None, guidance: float | None = None
) -> ScheduleChoice:
    """Read ``--schedule`` and what belongs to it.

    Args:
        text: one of the words above; "" for "auto".
        num_steps: T; None for the file's, or 8.
        temperature: see ``ScheduleChoice``.
        guidance: see ``ScheduleChoice``.

    Raises:
        AdaNATError: if the words are unknown, the file is wrong, or the numbers do not fit.
    """
    require(num_steps is None or num_steps >= 1, f"--steps is {num_steps}; expected at least 1.")
    require(
        temperature is None or 0 <= temperature < float("inf"), f"--temperature is {temperature}; expected 0 or more."
    )
    require(guidance is None or abs(guidance) < float("inf"), f"--guidance is {guidance}; expected a finite number.")
    kind, _, file = text.partition(":")
    if kind in ("autonat", "table"):
        require(bool(file), f"--schedule {text} names no file; expected {kind}:FILE.")
        table = read_autonat(Path(file)) if kind == "autonat" else read_table(Path(file))
        require(
            num_steps in (None, table.num_steps),
            f"--steps is {num_steps}, but {file} is a schedule of {table.num_steps} steps; leave --steps out.",
        )
        return ScheduleChoice("table", table.num_steps, temperature, guidance, table)
    if text not in ("", "learned", "cosine", "halton"):
        raise AdaNATError(f"--schedule {text!r} is not known; expected {_KINDS}.")
    require(
        text != "halton" or temperature != 0,
        "--temperature is 0; Halton decoding samples at it, so it must be above 0.",
    )
    return ScheduleChoice(text or "auto", num_steps or DEFAULT_NUM_STEPS, temperature, guidance)


def settle_schedule(choice: ScheduleChoice, folder: ModelFolder) -> tuple[ScheduleChoice, str]:
    """Decide what "auto" means for a model, before any weights are loaded.

    Returns:
        The choice with a definite kind, and a line that says what is used.

    Raises:
        AdaNATError: if a learned policy is asked for, or would be used, and cannot be.
    """
    num_steps = choice.num_steps
    available, steps = folder.has(policy_component(num_steps)), ", ".join(map(str, folder.policy_steps()))
    kind = ("learned" if available else "cosine") if choice.kind == "auto" else choice.kind
    if kind == "learned" and not available:
        raise AdaNATError(
            f"Model {folder.name} has no learned policy for {num_steps} steps "
            f"({f'it has them for {steps}' if steps else 'it has none at all'}); "
            "choose another --steps or --schedule cosine."
        )
    if kind == "learned" and (choice.temperature is not None or choice.guidance is not None):
        raise AdaNATError(
            "--temperature and --guidance act on fixed schedules, and this model's learned policy chooses its own "
            f"for {num_steps} steps; leave them out, or add --schedule cosine."
        )
    why = ""
    if choice.kind == "auto" and not available:
        why = (
            f" (the model has learned policies for {steps} steps only)"
            if steps
            else " (the model has no learned policy)"
        )
    names = {"learned": "learned policy", "table": "schedule from a file"}
    line = f"Schedule: {names.get(kind, kind)}, {num_steps} steps{why}."
    return ScheduleChoice(kind, num_steps, choice.temperature, choice.guidance, choice.table), line


def build_schedule(
    choice: ScheduleChoice, folder: ModelFolder, grid: tuple[int, int], device: torch.device
) -> Schedule:
    """Build what a settled choice stands for; a learned policy is loaded from the folder."""
    temperature = 1.0 if choice.temperature is None else choice.temperature
    guidance = 1.0 if choice.guidance is None else choice.guidance
    if choice.kind == "learned":
        from adanat_cli.core.policy.schedule import policy_schedule

        policy = load_policy(folder, choice.num_steps, device)
        if policy is None:
            raise AdaNATError(f"Model {folder.name} has lost its learned policy for {choice.num_steps} steps.")
        return policy_schedule(policy)
    if choice.kind == "halton":
        return HaltonSchedule(choice.num_steps, grid, sampling_temperature=temperature, guidance_scale=guidance)
    if choice.table is not None:
        return type(choice.table)(choice.table.table * torch.tensor([1.0, 1.0, temperature, guidance]))
    return CosineSchedule(choice.num_steps, remask_temperature=temperature, guidance_scale=guidance)
