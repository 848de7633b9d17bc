"""Fixed schedules: a table of the four values for every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.generation.actions import Action, action_from_values
from adanat_cli.core.generation.halton import halton_order, num_revealed
from adanat_cli.core.generation.state import DecodingState

_LARGEST = 1e4
"""Beyond it, guided logits leave float32."""
Count = TypeVar("Count", float, Tensor)


class Schedule(Protocol):
    """Chooses the action of every step: a fixed schedule or a learned policy."""

    @property
    def num_steps(self) -> int:
        """T."""

    @property
    def needs_features(self) -> bool:
        """Whether the network must be run before the action is known."""

    @property
    def order(self) -> Tensor | None:
        """(N,) positions in the order to reveal them; None goes by confidence."""

    def __call__(self, state: DecodingState, features: Tensor | None) -> Action:
        """Return the action of the next step; ``features`` (B, N, D) where they are needed."""


class TableSchedule:
    """The same four values for every sample, read from a table."""

    needs_features = False
    order: Tensor | None = None

    def __init__(self, table: Sequence[Sequence[float]] | Tensor) -> None:
        """Take T rows of (remask_ratio, sampling_temperature, remask_temperature, guidance_scale).

        Raises:
            AdaNATError: if there is no step, a row has not four values or a value is out of range.
        """
        require(len(table) >= 1, "A schedule needs at least one step; it has none.")
        if any(len(row) != 4 for row in table):
            raise AdaNATError("Every step of a schedule needs four values; a row has another number of them.")
        self.table = torch.as_tensor(table, dtype=torch.float64)  # (T, 4)
        require(bool(self.table.isfinite().all()), "A schedule holds a value that is not a finite number.")
        require(
            float(self.table.abs().max()) <= _LARGEST,
            f"A schedule holds the value {float(self.table.abs().max()):g}; expected at most {_LARGEST:g}.",
        )
        ratios, sampling, remasking, _ = self.table.unbind(-1)
        require(bool(((ratios >= 0) & (ratios < 1)).all()), "A schedule's re-masking ratios must lie in [0, 1).")
        require(bool((sampling > 0).all()), "A schedule's sampling temperatures must be above 0.")
        require(bool((remasking >= 0).all()), "A schedule's re-masking temperatures must not be negative.")

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
    """MaskGIT's cosine ratio with a falling re-masking temperature and rising guidance."""

    def __init__(
        self,
        num_steps: int,
        *,
        sampling_temperature: float = 1.0,
        remask_temperature: float = 1.0,
        guidance_scale: float = 1.0,
    ) -> None:
        """Fill the table; the arguments scale its columns.

        With rho = (i + 1 - 1e-3) / T for steps i = 0 ... T - 1: ratio cos(pi rho / 2), sampling temperature 1,
        re-masking temperature 1 - rho, guidance (i + 1e-3) / T.

        Source: AdaNAT (arXiv 2409.00342), the released code's heuristic.
        """
        rows = []
        for step in range(num_steps):
            rho = (step + 1 - 1e-3) / num_steps
            guidance = guidance_scale * (step + 1e-3) / num_steps
            rows.append((math.cos(math.pi / 2 * rho), sampling_temperature, remask_temperature * (1 - rho), guidance))
        super().__init__(rows)


class AutoNATSchedule(TableSchedule):
    """A table with AutoNAT's rule of counting: at least one token is masked again and at least one revealed."""

    def __call__(self, state: DecodingState, features: Tensor | None) -> Action:
        """Return the row of the next step, with the ratio moved to the count that the rule allows.

        Source: AutoNAT (arXiv 2406.05478), the released sampling loop.
        """
        return autonat_count(state, super().__call__(state, features))


def autonat_count(state: DecodingState, action: Action) -> Action:
    """Move the ratios to counts that mask at least one token again and reveal at least one."""
    num_tokens = state.mask.shape[1]
    count = (action.remask_ratio * num_tokens).floor()
    count = torch.minimum(count, state.mask.sum(-1) - 1).clamp(min=1)
    return action._replace(remask_ratio=_ratio_of(count, num_tokens))


class HaltonSchedule(TableSchedule):
    """Positions in Halton order at an arccos pace, instead of by confidence.

    Halton-MaskGIT multiplies logits by its softmax temperature, so ours is its reciprocal; its guidance
    ``(1 + w) cond - w null`` equals our ``cond + w (cond - null)``, so w is the same number. Decided tokens
    stay as they are.

    Source: Halton scheduler for MaskGIT (arXiv 2503.17076).
    """

    def __init__(
        self,
        num_steps: int,
        grid: tuple[int, int],
        sampling_temperature: float = 1.0,
        guidance_scale: float = 1.0,
    ) -> None:
        """Fill the table for a grid of (h, w) tokens; temperature and guidance are the same at every step."""
        num_tokens = grid[0] * grid[1]
        ratios = [_ratio_of(num_tokens - revealed, num_tokens) for revealed in num_revealed(num_steps, num_tokens)]
        super().__init__([(ratio, sampling_temperature, 0.0, guidance_scale) for ratio in ratios])
        self.order = halton_order(grid)


def _ratio_of(num_masked: Count, num_tokens: int) -> Count:
    """Return a ratio whose floor(ratio * N) is this count, safe from rounding on either side."""
    return (num_masked + 0.5) / num_tokens
