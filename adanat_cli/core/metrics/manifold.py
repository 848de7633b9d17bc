"""Overlap of the manifolds of two feature sets: precision, recall, density and coverage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from adanat_cli.core.errors import require
from adanat_cli.core.metrics.checks import require_two_sets

NUM_NEIGHBORS, NUM_DENSITY_NEIGHBORS = 3, 5
"""The usual k of precision and recall, and that of density and coverage."""
_DISTANCES_AT_ONCE = 2**24
"""Entries of a chunk of the distance matrix: 64 MB, and as much again during the search for neighbours."""


class ManifoldScores(NamedTuple):
    """Overlap of real and generated features.

    Attributes:
        precision: fraction of generated images inside a real image's ball, in [0, 1].
        recall: fraction of real images inside a generated image's ball, in [0, 1].
        density: mean number of real balls that contain a generated image, divided by k; may exceed 1.
        coverage: fraction of real balls that contain a generated image, in [0, 1].
    """

    precision: float
    recall: float
    density: float
    coverage: float


@torch.no_grad()
def manifold_scores(
    real: Tensor,
    fake: Tensor,
    num_neighbors: int = NUM_NEIGHBORS,
    num_density_neighbors: int = NUM_DENSITY_NEIGHBORS,
) -> ManifoldScores:
    """Compute all four in bounded memory: copies of the features and one chunk of distances.

    The ball around an image reaches to its k-th nearest neighbour in its own set. By definition, a point on its
    surface is inside for precision and recall, and outside for density and coverage. Distances are float32 matrix
    products. Features are first shifted by one of them, since |a|² + |b|² - 2ab loses all digits far from the origin.

    Args:
        real: (n, D), features of real images.
        fake: (m, D), features of generated images.
        num_neighbors: k of precision and recall.
        num_density_neighbors: k of density and coverage.

    Raises:
        AdaNATError: if D differs, a value is not finite, or a set has k images or fewer.

    Source: Kynkäänniemi et al. 2019 (arXiv 1904.06991), section 2; Naeem et al. 2020 (arXiv 2002.09797),
    section 3, and the authors' code for the strict comparison.
    """
    require_two_sets(real, fake)
    neighbors, num_images = (num_neighbors, num_density_neighbors), min(len(real), len(fake))
    require(min(neighbors) >= 1, f"Numbers of neighbours are {neighbors}; expected at least 1.")
    require(
        num_images > max(neighbors),
        f"A set of {num_images} images is too small for {max(neighbors)} neighbours; use more images.",
    )
    origin = real[:1]
    real, fake = _shifted(real, origin), _shifted(fake.to(real.device), origin)
    real_reach, ball_reach = _squared_radii(real, neighbors)
    (fake_reach,) = _squared_radii(fake, (num_neighbors,))

    precise = torch.zeros(len(fake), dtype=torch.bool, device=real.device)
    num_recalled = num_covered = num_inside = 0
    for rows, distances in _squared_distances(real, fake):  # (r, m)
        precise |= (distances <= real_reach[rows, None]).any(0)
        num_recalled += int((distances <= fake_reach).any(1).sum())
        inside = distances < ball_reach[rows, None]
        num_inside += int(inside.sum())
        num_covered += int(inside.any(1).sum())
    return ManifoldScores(
        precision=int(precise.sum()) / len(fake),
        recall=num_recalled / len(real),
        density=num_inside / (num_density_neighbors * len(fake)),
        coverage=num_covered / len(real),
    )


def _shifted(features: Tensor, origin: Tensor) -> Tensor:
    """Return (n, D) features minus a (1, D) origin as float32, subtracted in at least float32."""
    wide = torch.promote_types(features.dtype, torch.float32)
    return (features.to(wide) - origin.to(wide)).float()


def _squared_radii(features: Tensor, neighbors: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Return the squared distances of (n, D) features to their k-th nearest neighbours, (n,) for each k."""
    nearest = []
    for rows, distances in _squared_distances(features, features):
        distances[torch.arange(len(distances)), torch.arange(rows.start, rows.stop)] = torch.inf  # not itself
        nearest.append(distances.topk(max(neighbors), largest=False).values)
    table = torch.cat(nearest)  # (n, largest k), ascending
    return tuple(table[:, k - 1] for k in neighbors)


def _squared_distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield chunks of rows of the (n, m) squared distances of (n, D) and (m, D)."""
    b_squares = torch.cat([part.square().sum(1) for part in b.split(1024)])  # no second copy of b
    num_rows = max(1, _DISTANCES_AT_ONCE // len(b))
    for start in range(0, len(a), num_rows):
        rows = slice(start, min(start + num_rows, len(a)))
        part = a[rows]
        distances = torch.addmm(b_squares, part, b.T, alpha=-2)
        distances += part.square().sum(1, keepdim=True)
        yield rows, distances.clamp_(min=0)
