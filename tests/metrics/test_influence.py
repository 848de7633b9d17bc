"""The influence function against the distance itself."""

from __future__ import annotations

import torch

from adanat_cli.core.metrics.frechet import FrechetReference, Gaussian, Moments
from adanat_cli.core.metrics.influence import frechet_influence


def sets() -> tuple[torch.Tensor, FrechetReference]:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    features = torch.randn(400, 6, generator=generator, dtype=torch.float64) @ mixing + 0.3
    moments = Moments()
    moments.add(torch.randn(500, 6, generator=generator, dtype=torch.float64))
    return features, FrechetReference(moments.gaussian())


def weighted(features: torch.Tensor, weights: torch.Tensor) -> Gaussian:
    weights = weights / weights.sum()
    mean = weights @ features
    centred = features - mean
    return Gaussian(mean, (centred * weights[:, None]).T @ centred)


def test_it_is_the_derivative_of_the_distance_by_a_samples_weight() -> None:
    features, reference = sets()
    influence = frechet_influence(features, reference)
    even = torch.full((400,), 1 / 400, dtype=torch.float64)
    for row in (0, 17, 399):
        step = torch.zeros(400, dtype=torch.float64)
        step[row] = 1e-4
        rise = reference.distance(weighted(features, even + step)) - reference.distance(weighted(features, even - step))
        torch.testing.assert_close(rise / 2e-4, float(influence[row]), rtol=0.02, atol=0.02)


def test_it_has_mean_zero_and_dropping_the_worst_samples_lowers_the_distance() -> None:
    features, reference = sets()
    influence = frechet_influence(features, reference)
    assert abs(float(influence.mean())) < 1e-9
    kept = features[influence.argsort()[:300]]
    assert reference.distance(kept) < 0.8 * reference.distance(features)


def test_a_constant_direction_does_no_harm() -> None:
    features, reference = sets()
    features[:, 0] = 1.0
    assert frechet_influence(features, reference).isfinite().all()
