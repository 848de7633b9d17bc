"""Fixed schedules at their best: a small grid, and AutoNAT's search for one table."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from adanat_cli.core.generation.actions import raw_from_values
from adanat_cli.core.generation.schedules import AutoNATSchedule, CosineSchedule, TableSchedule

GRID = {
    "sampling_temperature": (0.8, 1.0, 1.2),
    "remask_temperature": (1.0, 4.0, 16.0),
    "guidance_scale": (0.0, 1.0, 3.0),
}
"""Factors on the cosine schedule's columns."""

_RATIO_BOUNDS = (1e-3, 0.99)
_INITIAL_SPREAD = 0.4
_FLOOR = 0.1
_POPULATION = 12


def grid(num_steps: int) -> Iterator[tuple[dict[str, float], CosineSchedule]]:
    """Yield every combination of ``GRID`` with its schedule."""
    for factors in itertools.product(*GRID.values()):
        named = dict(zip(GRID, factors, strict=True))
        yield named, CosineSchedule(num_steps, **named)


class TableSearch:
    """Searches the 4 T numbers of one table by a separable evolution strategy on pre-activations.

    The search of AutoNAT (arXiv 2406.05478) follows finite differences of the same distance; sep-CMA-ES (Ros and
    Hansen 2008) asks for no step sizes per column and takes one evaluation per candidate. The last step's ratio and
    re-masking temperature have no effect and stay.

    Everything that changes is in ``state_dict``, so a search goes on exactly.
    """

    def __init__(self, start: TableSchedule, seed: int) -> None:
        """Begin at a schedule."""
        self._table = start.table
        self._seed = seed
        # The rule of counting belongs to the schedule that is searched.
        self.schedule = AutoNATSchedule if isinstance(start, AutoNATSchedule) else TableSchedule
        self._free = torch.ones(start.table.shape, dtype=torch.bool)
        self._free[-1, 0] = self._free[-1, 2] = False
        values = start.table.clone()
        # A softplus is flat near 0: a search that starts there does not get away.
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
        """Return the generation's (P, F) candidates."""
        generator = torch.Generator().manual_seed(self._seed * 100_003 + self.generation)
        half = torch.randn(_POPULATION // 2, len(self.mean), generator=generator, dtype=torch.float64)
        # Mirrored pairs halve the noise of the mean's move.
        return self.mean + self.sigma * self.variance.sqrt() * torch.cat([half, -half])

    def table(self, point: Tensor) -> TableSchedule:
        """The schedule of a candidate (F,)."""
        raw = self._start.clone()
        raw[self._free] = point
        values = torch.cat([raw[:, :1].sigmoid().clamp(*_RATIO_BOUNDS), torch.nn.functional.softplus(raw[:, 1:])], -1)
        return self.schedule(torch.where(self._free, values, self._table))

    def tell(self, points: Tensor, distances: Tensor) -> None:
        """Move towards the better half of the candidates.

        Args:
            points: (P, F), of ``candidates``.
            distances: (P,), low is good.

        Source: Ros and Hansen, "A simple modification in CMA-ES achieving linear time and space complexity" (2008).
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
        """Everything that changes."""
        return {
            "mean": self.mean,
            "variance": self.variance,
            "sigma": self.sigma,
            "path_sigma": self._path_sigma,
            "path": self._path,
        }

    def load_state_dict(self, state: dict[str, Tensor], generation: int) -> None:
        """Go on from a saved state."""
        self.mean, self.variance, self.sigma = state["mean"], state["variance"], state["sigma"]
        self._path_sigma, self._path, self.generation = state["path_sigma"], state["path"], generation
