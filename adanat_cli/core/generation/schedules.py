"""Fixed schedules: a table with the four values of each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.generation.actions import LARGEST, Action, action_from_values
from adanat_cli.core.generation.halton import halton_order, num_revealed
from adanat_cli.core.generation.state import DecodingState

Count = TypeVar("Count", float, Tensor)


class Schedule(Protocol):
    """Chooses the action of each step: a fixed schedule or a learned policy."""

    @property
    def num_steps(self) -> int:
        """T."""

    @property
    def needs_features(self) -> bool:
        """Whether the action depends on the NAT's features, so that the NAT runs first."""

    @property
    def order(self) -> Tensor | None:
        """(N,) positions in the order to reveal them; None goes by confidence."""

    def __call__(self, state: DecodingState, features: Tensor | None) -> Action:
        """Return the action of the next step; ``features`` are (B, N, D), None unless needed."""


class TableSchedule:
    """The same four values for all samples, read from a table."""

    needs_features = False
    order: Tensor | None = None

    def __init__(self, table: Sequence[Sequence[float]] | Tensor) -> None:
        """Take T rows of (remask_ratio, sampling_temperature, remask_temperature, guidance_scale).

        Raises:
            AdaNATError: if there is no step, a row does not have four values, or a value is out of range.
        """
        require(len(table) >= 1, "A schedule has no steps; expected at least one step.")
        for step, row in enumerate(table):
            require(len(row) == 4, f"Step {step} of a schedule has {len(row)} values; expected four values.")
        self.table = torch.as_tensor(table, dtype=torch.float64)  # (T, 4)
        require(bool(self.table.isfinite().all()), "A schedule holds a value that is not finite; expected numbers.")
        require(
            float(self.table.abs().max()) <= LARGEST,
            f"A schedule holds the value {float(self.table.abs().max()):g}; expected at most {LARGEST:g}.",
        )
        ratios, sampling, remasking, guidance = self.table.unbind(-1)
        for name, column, valid, expected in (
            ("re-masking ratio", ratios, (ratios >= 0) & (ratios < 1), "at least 0 and below 1"),
            ("sampling temperature", sampling, sampling > 0, "above 0"),
            ("re-masking temperature", remasking, remasking >= 0, "at least 0"),
            ("guidance scale", guidance, guidance >= 0, "at least 0"),
        ):
            if len(wrong := column[~valid]):
                raise AdaNATError(f"A schedule has a {name} of {float(wrong[0]):g}; expected a value {expected}.")

    @property
    def num_steps(self) -> int:
        """T, the rows of the table."""
        return len(self.table)

    def __call__(self, state: DecodingState, features: Tensor | None) -> Action:
        """Return the row of the next step."""
        if state.num_steps != self.num_steps:
            raise ValueError(f"a schedule of {self.num_steps} steps cannot serve a state of {state.num_steps}")
        row = self.table[state.step].float().to(state.mask.device)
        return action_from_values(row.expand(len(state.mask), 4))


class CosineSchedule(TableSchedule):
    """MaskGIT's cosine re-masking ratio, with a falling re-masking temperature and a rising guidance scale."""

    def __init__(
        self,
        num_steps: int,
        *,
        sampling_temperature: float = 1.0,
        remask_temperature: float = 1.0,
        guidance_scale: float = 1.0,
    ) -> None:
        """Fill the table; the arguments are factors on its columns.

        With rho = (i + 1 - 1e-3) / T for steps i = 0 ... T - 1: ratio cos(pi rho / 2), sampling temperature 1,
        re-masking temperature 1 - rho, guidance scale (i + 1e-3) / T.

        Source: MaskGIT (arXiv 2202.04200), section 3.3, for the ratio; the authors' code of AdaNAT (arXiv 2409.00342).
        """
        rows = []
        for step in range(num_steps):
            rho = (step + 1 - 1e-3) / num_steps
            guidance = guidance_scale * (step + 1e-3) / num_steps
            rows.append((math.cos(math.pi / 2 * rho), sampling_temperature, remask_temperature * (1 - rho), guidance))
        super().__init__(rows)


class AutoNATSchedule(TableSchedule):
    """A table with AutoNAT's counting rule: each step masks at least one token again and reveals at least one."""

    def __call__(self, state: DecodingState, features: Tensor | None) -> Action:
        """Return the row of the next step, with its ratio changed to a count that the rule allows.

        Source: AutoNAT (arXiv 2406.05478), the authors' sampling loop.
        """
        return autonat_count(state, super().__call__(state, features))


def autonat_count(state: DecodingState, action: Action) -> Action:
    """Change the ratios so that each sample masks at least one token again, if it draws several, and reveals one."""
    count = (action.remask_ratio * state.num_drawn).floor()
    count = torch.minimum(count, state.mask.sum(-1) - 1).clamp(min=1)
    count = torch.minimum(count, state.num_drawn - 1)  # fewer than one only where a single token is not given
    return action._replace(remask_ratio=_ratio_of(count, state.num_drawn))


class HaltonSchedule(TableSchedule):
    """Tokens revealed in Halton order, their number by an arccos rule, instead of by confidence.

    Halton-MaskGIT multiplies logits by its softmax temperature, so ours is its reciprocal; its guidance
    ``(1 + w) cond - w null`` equals our ``cond + w (cond - null)``, so w is the same number. Decided tokens
    do not change.

    Source: Halton scheduler for MaskGIT (arXiv 2503.17076), the Halton scheduler.
    """

    def __init__(
        self,
        num_steps: int,
        grid: tuple[int, int],
        sampling_temperature: float = 1.0,
        guidance_scale: float = 1.0,
    ) -> None:
        """Fill the table for a grid of (h, w) tokens; sampling temperature and guidance scale are constant."""
        num_tokens = grid[0] * grid[1]
        ratios = [_ratio_of(num_tokens - revealed, num_tokens) for revealed in num_revealed(num_steps, num_tokens)]
        super().__init__([(ratio, sampling_temperature, 0.0, guidance_scale) for ratio in ratios])
        self.order = halton_order(grid)


def _ratio_of(num_masked: Count, num_tokens: Count) -> Count:
    """Return the middle of the ratios whose floor(ratio * N) is this count, so that rounding cannot change it."""
    return (num_masked + 0.5) / num_tokens
