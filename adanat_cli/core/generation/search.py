"""Search for the best fixed schedule: over a small grid of cosine schedules, or over all values of a table."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from adanat_cli.core.generation.actions import action_from_raw, raw_from_values
from adanat_cli.core.generation.schedules import AutoNATSchedule, CosineSchedule, TableSchedule

GRID = {
    "sampling_temperature": (0.8, 1.0, 1.2),
    "remask_temperature": (1.0, 4.0, 16.0),
    "guidance_scale": (0.0, 1.0, 4.0, 12.0),
}
"""Factors on the columns of the cosine schedule that the grid combines."""

_RATIO_BOUNDS = (1e-3, 0.99)
_INITIAL_SPREAD = 0.4
_FLOOR = 0.1
_POPULATION = 12


def grid(num_steps: int) -> Iterator[tuple[dict[str, float], CosineSchedule]]:
    """Yield each combination of the factors in ``GRID``, with its schedule."""
    for factors in itertools.product(*GRID.values()):
        named = dict(zip(GRID, factors, strict=True))
        yield named, CosineSchedule(num_steps, **named)


class TableSearch:
    """Optimise the 4 T values of one table by an evolution strategy (sep-CMA-ES) on pre-activations.

    AutoNAT (arXiv 2406.05478) follows finite differences of the same distance; sep-CMA-ES needs no step size for each
    column and one evaluation per candidate. The last step's ratio and re-masking temperature have no effect and are
    not searched. ``state_dict`` holds all that changes, so a search resumes exactly.

    Shapes: F free values, P candidates of a generation.

    Source: Ros and Hansen, "A simple modification in CMA-ES achieving linear time and space complexity" (2008).
    """

    def __init__(self, start: TableSchedule, seed: int) -> None:
        """Start the search at a schedule."""
        self._table = start.table
        self._seed = seed
        # The counting rule is a property of the schedule, not a value to search.
        self.schedule = AutoNATSchedule if isinstance(start, AutoNATSchedule) else TableSchedule
        self._free = torch.ones(start.table.shape, dtype=torch.bool)
        self._free[-1, 0] = self._free[-1, 2] = False
        values = start.table.clone()
        # A softplus is flat near 0: a search that starts there does not move.
        values[:, 1:] = values[:, 1:].clamp(min=_FLOOR)
        raw = raw_from_values(values)
        self._start = raw.clone()
        free = int(self._free.sum())
        self.mean = raw[self._free]  # (F,) float64
        self.variance = torch.ones(free, dtype=torch.float64)
        self.sigma = torch.tensor(_INITIAL_SPREAD, dtype=torch.float64)
        self._path_sigma = torch.zeros(free, dtype=torch.float64)
        self._path = torch.zeros(free, dtype=torch.float64)
        self.generation = 0

    def candidates(self) -> Tensor:
        """Draw the candidates of this generation, (P, F) pre-activations."""
        generator = torch.Generator().manual_seed((self._seed * 100_003 + self.generation) % 2**63)
        half = torch.randn(_POPULATION // 2, len(self.mean), generator=generator, dtype=torch.float64)
        # Mirrored pairs reduce the noise of the mean's update.
        return self.mean + self.sigma * self.variance.sqrt() * torch.cat([half, -half])

    def table(self, point: Tensor) -> TableSchedule:
        """Return the schedule of a candidate, (F,) pre-activations."""
        raw = self._start.clone()
        raw[self._free] = point
        values = action_from_raw(raw).values()
        values[:, 0].clamp_(*_RATIO_BOUNDS)
        return self.schedule(torch.where(self._free, values, self._table))

    def tell(self, points: Tensor, distances: Tensor) -> None:
        """Update mean, variance and step size from the better half of the candidates.

        Args:
            points: (P, F), from ``candidates``.
            distances: (P,), lower is better.
        """
        dim, parents = len(self.mean), len(points) // 2
        weights = torch.log(torch.tensor(parents + 0.5)) - torch.arange(1, parents + 1, dtype=torch.float64).log()
        weights = weights / weights.sum()
        effective = 1 / float(weights.square().sum())
        c_sigma = (effective + 2) / (dim + effective + 3)
        c_path = 4 / (dim + 4)
        c_cov = min(1.0, (dim + 1.5) / 3 * (1 / effective) * 2 / (dim + 2**0.5) ** 2 * effective)
        expected = dim**0.5 * (1 - 1 / (4 * dim) + 1 / (21 * dim**2))
        best = points[distances.argsort()[:parents]]
        scaled = (best - self.mean) / self.sigma  # (parents, F)
        move = weights @ scaled
        self.mean = self.mean + self.sigma * move
        self._path_sigma = (1 - c_sigma) * self._path_sigma + (c_sigma * (2 - c_sigma) * effective) ** 0.5 * (
            move / self.variance.sqrt()
        )
        self._path = (1 - c_path) * self._path + (c_path * (2 - c_path) * effective) ** 0.5 * move
        spread = weights @ scaled.square()
        self.variance = (1 - c_cov) * self.variance + c_cov * (
            self._path.square() / effective + (1 - 1 / effective) * spread
        )
        damping = 1 + c_sigma + 2 * max(0.0, ((effective - 1) / (dim + 1)) ** 0.5 - 1)
        self.sigma = self.sigma * torch.exp(c_sigma / damping * (self._path_sigma.norm() / expected - 1))
        self.generation += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return all tensors that change."""
        return {
            "mean": self.mean,
            "variance": self.variance,
            "sigma": self.sigma,
            "path_sigma": self._path_sigma,
            "path": self._path,
        }

    def load_state_dict(self, state: dict[str, Tensor], generation: int = 0) -> None:
        """Resume from a saved state, at a generation."""
        self.mean, self.variance, self.sigma = state["mean"], state["variance"], state["sigma"]
        self._path_sigma, self._path, self.generation = state["path_sigma"], state["path"], generation
