from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.metrics import manifold
from adanat_cli.core.metrics.manifold import ManifoldScores, manifold_scores


def line(*places: float) -> Tensor:
    return torch.tensor(places)[:, None]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def whole_matrix_scores(real: Tensor, fake: Tensor, k: int, density_k: int) -> ManifoldScores:
    """The definitions, written out with complete distance matrices in float64."""
    a, b = real.double().numpy(), fake.double().numpy()

    def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))

    def reach(x: np.ndarray, neighbors: int) -> np.ndarray:
        return np.sort(distances(x, x), axis=1)[:, neighbors]

    across = distances(a, b)
    inside = across < reach(a, density_k)[:, None]
    return ManifoldScores(
        precision=float((across <= reach(a, k)[:, None]).any(0).mean()),
        recall=float((across <= reach(b, k)[None]).any(1).mean()),
        density=float(inside.sum(0).mean() / density_k),
        coverage=float(inside.any(1).mean()),
    )


def test_points_on_a_line_worked_by_hand() -> None:
    # Nearest neighbours: real 1, 1, 2, 6 away; generated 1, 1, 17, 80 away.
    real, fake = line(0, 1, 3, 9), line(2, 3, 20, 100)
    scores = manifold_scores(real, fake, num_neighbors=1, num_density_neighbors=1)
    # 2 is on the rims of 1 and 3, and 3 lies on 3; 20 and 100 are out of reach of 9, whose ball ends at 15.
    assert scores.precision == 2 / 4
    # 20's ball [3, 37] holds 3 and 9; 2's ball [1, 3] holds 1; 100's ball [20, 180] nothing; 0 is in none.
    assert scores.recall == 3 / 4
    # Strictly inside: 0's ball (-1, 1) none; 1's (0, 2) none; 3's (1, 5) both 2 and 3; 9's (3, 15) none.
    assert scores.density == 2 / 4
    assert scores.coverage == 1 / 4


def test_sets_far_apart_score_nothing() -> None:
    assert manifold_scores(draw(30, 4), draw(30, 4, seed=1) + 100) == (0, 0, 0, 0)


def test_identical_sets_score_one() -> None:
    # Strictly inside a ball that reaches to the fifth neighbour are the image itself and four others.
    assert manifold_scores(draw(40, 3), draw(40, 3)) == (1, 1, 1, 1)


def test_density_exceeds_one_where_generated_images_crowd() -> None:
    real = line(*range(20))
    fake = torch.linspace(9.4, 9.6, 50)[:, None]
    scores = manifold_scores(real, fake)
    assert scores.precision == 1
    assert scores.density > 1
    assert scores.recall < 0.2
    assert scores.coverage < 0.5


@pytest.mark.parametrize("width", [2, 64])
def test_chunks_give_what_whole_matrices_give(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = draw(70, width), 0.95 * draw(45, width, seed=1) + 0.2
    expected = whole_matrix_scores(real, fake, 3, 5)
    assert min(expected) > 0
    assert expected.coverage < 1
    assert manifold_scores(real, fake) == pytest.approx(expected, abs=1e-12)
    monkeypatch.setattr(manifold, "_DISTANCES_AT_ONCE", 200)
    assert manifold_scores(real, fake) == pytest.approx(expected, abs=1e-12)
    assert manifold_scores(fake, real, 2, 4) == pytest.approx(whole_matrix_scores(fake, real, 2, 4), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_common_offset_changes_nothing(dtype: torch.dtype) -> None:
    # Multiples of 1/4, so that the sums are exact; squares of 10,000 would leave float32 no digits for distances.
    real, fake = [draw(60, 8, seed=seed).mul(4).round().div(4).to(dtype) for seed in (0, 1)]
    assert manifold_scores(real + 10_000, fake + 10_000) == manifold_scores(real, fake)


def test_sets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(AdaNATError, match="expected"):
        manifold_scores(draw(10, 3), draw(10, 4))
    with pytest.raises(AdaNATError, match="5 images is too small for 5 neighbours"):
        manifold_scores(draw(10, 3), draw(5, 3))
    with pytest.raises(AdaNATError, match="at least 1"):
        manifold_scores(draw(10, 3), draw(10, 3), num_neighbors=0)
    with pytest.raises(AdaNATError, match="not finite"):
        manifold_scores(draw(10, 3), torch.full((10, 3), torch.nan))
