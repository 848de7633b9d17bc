"""How the supports of two feature sets overlap: precision, recall, density, coverage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from adanat_cli.core.errors import require

_DISTANCES_AT_ONCE = 2**24
"""Entries of a chunk of the distance matrix: 64 MB, and as much again while neighbours are sought."""


class ManifoldScores(NamedTuple):
    """Overlap of real and generated features.

    Attributes:
        precision: share of generated images within reach of a real one.
        recall: share of real images within reach of a generated one.
        density: real neighbourhoods that hold a generated image, on average and relative to k; may exceed 1.
        coverage: share of real neighbourhoods that hold a generated image.
    """

    precision: float
    recall: float
    density: float
    coverage: float


@torch.no_grad()
def manifold_scores(
    real: Tensor, fake: Tensor, num_neighbors: int = 3, num_density_neighbors: int = 5
) -> ManifoldScores:
    """Measure all four in bounded memory: copies of the features and one chunk of distances.

    The ball around an image reaches to its k-th nearest neighbour among its own kind. A generated image on the
    rim counts for precision and recall and does not for density and coverage, as their definitions have it.
    Distances are float32 products. To keep their digits, features are first shifted by one of them: in a set far
    from the origin, |a|² + |b|² - 2ab would cancel to nothing.

    Args:
        real: (n, D).
        fake: (m, D).
        num_neighbors: k of precision and recall.
        num_density_neighbors: k of density and coverage.

    Raises:
        AdaNATError: if D differs, a value is not finite, or a set has no more than k images.

    Source: Kynkäänniemi et al. 2019 (arXiv 1904.06991), section 2; Naeem et al. 2020 (arXiv 2002.09797),
    section 3 and its published code, which compares strictly.
    """
    _check(real, fake, num_neighbors, num_density_neighbors)
    origin = real[:1]
    real, fake = _shifted(real, origin), _shifted(fake.to(real.device), origin)
    real_reach, ball_reach = _squared_radii(real, (num_neighbors, num_density_neighbors))
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
    """(n, D) minus (1, D), in float32: subtracted in the wider of the two formats."""
    wide = torch.promote_types(features.dtype, torch.float32)
    return (features.to(wide) - origin.to(wide)).float()


def _squared_radii(features: Tensor, neighbors: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Squared distance of each of (n, D) features to its k-th nearest other one, (n,) for every k."""
    nearest = []
    for rows, distances in _squared_distances(features, features):
        distances[torch.arange(len(distances)), torch.arange(rows.start, rows.stop)] = torch.inf  # not its own
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


def _check(real: Tensor, fake: Tensor, *neighbors: int) -> None:
    require(
        real.ndim == fake.ndim == 2 and real.shape[1] == fake.shape[1],
        f"Features have the shapes {tuple(real.shape)} and {tuple(fake.shape)}; expected (n, D) and (m, D).",
    )
    require(min(neighbors) >= 1, f"Numbers of neighbours are {neighbors}; expected at least 1.")
    least = min(len(real), len(fake))
    require(
        least > max(neighbors),
        f"A set of {least} images is too small for {max(neighbors)} neighbours; expected more images than neighbours.",
    )
    finite = bool(real.isfinite().all()) and bool(fake.isfinite().all())
    require(finite, "Features hold values that are not finite; check the images and the network.")
