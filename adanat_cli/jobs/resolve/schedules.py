"""From ``cosine``, ``halton``, ``learned``, ``autonat:FILE`` or ``table:FILE`` to a schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from adanat_cli.core.checkpoints.folder import ModelFolder, policy_component
from adanat_cli.core.config.early import schedule_file
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.generation.schedules import CosineSchedule, HaltonSchedule, Schedule, TableSchedule
from adanat_cli.core.generation.tables import read_autonat, read_table
from adanat_cli.jobs.resolve.models import load_policy

DEFAULT_NUM_STEPS = 8


@dataclass(frozen=True)
class ScheduleChoice:
    """The requested schedule, checked as far as possible without a model.

    Attributes:
        kind: "auto" (learned if the model can, else cosine), "learned", "cosine", "halton" or "table".
        num_steps: T.
        sampling_temperature, remask_temperature, guidance_scale: factors on the values of a fixed schedule; for
            "halton", which has no re-masking temperature, the values themselves. None if not given.
        table: schedule from a file, before the factors are applied.
    """

    kind: str
    num_steps: int
    sampling_temperature: float | None = None
    remask_temperature: float | None = None
    guidance_scale: float | None = None
    table: TableSchedule | None = None

    @property
    def is_scaled(self) -> bool:
        """Whether any factor was given."""
        return (self.sampling_temperature, self.remask_temperature, self.guidance_scale) != (None, None, None)


def choose_schedule(
    text: str,
    num_steps: int | None,
    sampling_temperature: float | None = None,
    remask_temperature: float | None = None,
    guidance_scale: float | None = None,
) -> ScheduleChoice:
    """Read ``--schedule`` and its factors.

    Args:
        text: "learned", "cosine", "halton", "autonat:FILE" or "table:FILE"; "" for "auto".
        num_steps: T; None for that of the file, or 8.
        sampling_temperature: see ``ScheduleChoice``.
        remask_temperature: see ``ScheduleChoice``.
        guidance_scale: see ``ScheduleChoice``.

    Raises:
        AdaNATError: if the schedule is unknown, the file is damaged, or a number is out of range.
    """
    require(num_steps is None or num_steps >= 1, f"--steps is {num_steps}; expected at least 1.")
    factors = (sampling_temperature, remask_temperature, guidance_scale)
    _check_factors(*factors)
    if file := schedule_file(text):
        table = read_autonat(file) if text.startswith("autonat:") else read_table(file)
        require(
            num_steps in (None, table.num_steps),
            f"--steps is {num_steps}, but {file} is a schedule of {table.num_steps} steps; leave --steps out.",
        )
        return ScheduleChoice("table", table.num_steps, *factors, table)
    require(
        text != "halton" or remask_temperature is None,
        "--remask-temperature has no meaning with halton, which never re-masks; its own is --sampling-temperature.",
    )
    return ScheduleChoice(text or "auto", num_steps or DEFAULT_NUM_STEPS, *factors)


def _check_factors(sampling: float | None, remasking: float | None, guidance: float | None) -> None:
    for name, value, least in (("sampling", sampling, "above 0"), ("remask", remasking, "0 or more")):
        fits = value is None or 0 < value < math.inf or (value == 0 and name == "remask")
        require(fits, f"--{name}-temperature is {value}; expected a number, {least}.")
    fits = guidance is None or 0 <= guidance < math.inf  # below 0, images would be led away from their class or prompt
    require(fits, f"--guidance-scale is {guidance}; expected a number, 0 (unguided) or more.")


def settle_schedule(choice: ScheduleChoice, folder: ModelFolder) -> tuple[ScheduleChoice, str]:
    """Resolve "auto" for a model, before any weights are loaded.

    Returns:
        The choice with its final kind, and a line that describes it.

    Raises:
        AdaNATError: if the model lacks the learned policy, or factors are given for it.
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
    if kind == "learned" and choice.is_scaled:
        raise AdaNATError(
            "--sampling-temperature, --remask-temperature and --guidance-scale act on fixed schedules, and "
            "this model's learned policy chooses its own "
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
    return replace(choice, kind=kind), line


def build_schedule(
    choice: ScheduleChoice, folder: ModelFolder, grid: tuple[int, int], device: torch.device
) -> Schedule:
    """Build the schedule of a resolved choice; a learned policy is loaded from the folder."""
    factors = (choice.sampling_temperature, choice.remask_temperature, choice.guidance_scale)
    sampling, remasking, guidance = (1.0 if factor is None else factor for factor in factors)
    if choice.kind == "learned":
        from adanat_cli.core.policy.schedule import policy_schedule

        policy = load_policy(folder, choice.num_steps, device)
        if policy is None:
            raise AdaNATError(
                f"The learned policy for {choice.num_steps} steps is missing from model {folder.name}; pull, import or "
                "train it again, or choose --schedule cosine."
            )
        return policy_schedule(policy)
    if choice.kind == "halton":
        return HaltonSchedule(choice.num_steps, grid, sampling_temperature=sampling, guidance_scale=guidance)
    if choice.table is not None:
        return type(choice.table)(choice.table.table * torch.tensor([1.0, sampling, remasking, guidance]))
    return CosineSchedule(
        choice.num_steps, sampling_temperature=sampling, remask_temperature=remasking, guidance_scale=guidance
    )
