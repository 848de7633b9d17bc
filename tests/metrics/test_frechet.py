from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.metrics.frechet import (
    FrechetReference,
    Gaussian,
    Moments,
    frechet_distances,
)
from tests.support import fixture


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments(features: Tensor, batch_size: int = 7) -> Moments:
    result = Moments()
    for batch in features.split(batch_size):
        result.add(batch)
    return result


def gaussian(features: Tensor) -> Gaussian:
    return moments(features).gaussian()


def diagonal(mean: list[float], variances: list[float]) -> Gaussian:
    return Gaussian(torch.tensor(mean), torch.diag(torch.tensor(variances)))


def upstream(rows: int) -> tuple[Tensor, Gaussian]:
    """Features, and the Gaussian that the fixtures compare them with."""
    arrays = {name: torch.from_numpy(value) for name, value in fixture("metrics").items() if value.ndim}
    return arrays["features"][:rows], Gaussian(arrays["ref_mu"], arrays["ref_sigma"])


@pytest.mark.parametrize(("key", "rows"), [("fid", 64), ("fid_first10", 10)])
def test_the_distance_is_the_references(key: str, rows: int) -> None:
    features, reference = upstream(rows)
    # As the reference does: moments in float32, then widened.
    rounded = Gaussian(features.mean(0), torch.cov(features.T))
    expected = float(fixture("metrics")[key])
    assert FrechetReference(rounded).distance(reference) == pytest.approx(expected, abs=1e-5)
    assert FrechetReference(reference).distance(rounded) == pytest.approx(expected, abs=1e-5)


def test_moments_in_double_precision_change_the_references_distance_of_few_images_only() -> None:
    features, reference = upstream(64)
    expected = float(fixture("metrics")["fid"])
    assert FrechetReference(gaussian(features)).distance(reference) == pytest.approx(expected, abs=1e-5)
    assert FrechetReference(reference).distance(features) == pytest.approx(expected, abs=1e-5)
    # With fewer images than dimensions, float32 fills the null space with rounding, whose root counts.
    features, reference = upstream(10)
    exact = FrechetReference(reference).distance(features)
    assert exact == pytest.approx(float(fixture("metrics")["fid_first10"]), abs=3e-4)
    product = np.linalg.eigvals(gaussian(features).covariance.numpy() @ reference.covariance.numpy())
    traces = float(gaussian(features).covariance.trace() + reference.covariance.trace())
    apart = float((features.double().mean(0) - reference.mean).square().sum())
    assert exact == pytest.approx(apart + traces - 2 * np.sqrt(product.real.clip(0)).sum(), abs=1e-6)


def test_gaussians_with_a_distance_known_by_hand() -> None:
    # Independent dimensions: differences of means squared, and of standard deviations squared.
    a, b = diagonal([1.0, 2.0, 0.0], [4.0, 1.0, 9.0]), diagonal([3.0, 2.0, 1.0], [1.0, 1.0, 0.0])
    assert FrechetReference(a).distance(b) == pytest.approx(4 + 1 + 1 + 0 + 9, abs=1e-12)


def test_rotating_both_changes_nothing() -> None:
    rotation = torch.linalg.qr(draw(3, 3)).Q
    a, b = diagonal([1.0, 2.0, 0.0], [4.0, 1.0, 9.0]), diagonal([3.0, 2.0, 1.0], [1.0, 1.0, 0.0])
    turned = [Gaussian(rotation @ g.mean.double(), rotation @ g.covariance.double() @ rotation.T) for g in (a, b)]
    # Rounding of the zero eigenvalue appears as its root.
    assert FrechetReference(turned[0]).distance(turned[1]) == pytest.approx(15, abs=1e-6)


@pytest.mark.parametrize("num", [5, 200])
def test_identical_sets_are_at_distance_zero(num: int) -> None:
    features = draw(num, 12)
    reference = FrechetReference(gaussian(features))
    assert reference.distance(gaussian(features)) == pytest.approx(0, abs=1e-6)
    assert reference.distance(features) == pytest.approx(0, abs=1e-6)


def test_a_shift_of_the_mean_adds_its_square() -> None:
    features = draw(50, 6)
    assert FrechetReference(gaussian(features)).distance(gaussian(features + 2)) == pytest.approx(6 * 4, abs=1e-6)


def test_fewer_images_than_dimensions_are_measured_exactly() -> None:
    few, many = draw(6, 20), draw(300, 20, seed=1)
    a, b = gaussian(few), gaussian(many)
    # Independently: the trace of the root from the eigenvalues of the unsymmetric product.
    product = np.linalg.eigvals(a.covariance.numpy() @ b.covariance.numpy())
    shared = np.sqrt(product.real.clip(0)).sum()
    expected = float((a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace()) - 2 * shared
    assert FrechetReference(b).distance(few) == pytest.approx(expected, abs=1e-6)
    assert FrechetReference(a).distance(b) == pytest.approx(expected, abs=1e-6)


def test_a_solver_that_does_not_converge_gives_way_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.randn(8, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moments = Moments()
    moments.add(features)
    expected = FrechetReference(moments.gaussian()).distance(features + 1)

    def fail(matrix: Tensor) -> None:
        raise torch.linalg.LinAlgError("The algorithm failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    assert FrechetReference(moments.gaussian()).distance(features + 1) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("num", [4, 9, 40])
def test_groups_together_are_the_groups_one_by_one(num: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, groups = FrechetReference(gaussian(draw(100, 9))), draw(5, num, 9, seed=1).float()
    expected = [reference.distance(gaussian(group)) for group in groups]
    together = frechet_distances(groups, reference)
    assert together.dtype == torch.float64
    np.testing.assert_allclose(together.numpy(), expected, atol=1e-6)
    monkeypatch.setattr("adanat_cli.core.metrics.frechet._NUMBERS_AT_ONCE", 1)
    torch.testing.assert_close(frechet_distances(groups, reference), together)


def test_batches_give_the_moments_of_the_whole() -> None:
    features = draw(100, 5)
    streamed = moments(features, batch_size=9)
    assert streamed.num == 100
    np.testing.assert_allclose(streamed.mean.numpy(), features.numpy().mean(0), atol=1e-14)
    np.testing.assert_allclose(streamed.covariance.numpy(), np.cov(features.numpy(), rowvar=False), atol=1e-14)


def test_a_large_mean_does_not_swallow_the_covariance() -> None:
    # In float32 the sums of squares, 1e10 each, would round the variance of 1 away.
    spread = draw(1000, 4).float().mul(8).round().div(8)
    features = spread + 100_000
    expected = np.cov(spread.double().numpy(), rowvar=False)
    np.testing.assert_allclose(moments(features, 64).covariance.numpy(), expected, atol=1e-9)
    near, far = FrechetReference(gaussian(spread)), FrechetReference(gaussian(features))
    other = draw(20, 4, seed=1).float().mul(8).round().div(8)
    assert far.distance(other + 100_000) == pytest.approx(near.distance(other), abs=1e-6)


def test_a_float32_covariance_that_rounding_made_asymmetric_is_taken() -> None:
    rounded = Gaussian(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5 + 1e-7, 1.0]]))
    assert FrechetReference(rounded).distance(rounded) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        ([0.0, float("nan")], [[1.0, 0.0], [0.0, 1.0]], "not finite"),
        ([0.0, 0.0], [[1.0, 0.5], [0.4, 1.0]], "not symmetric"),
        ([0.0], [[1.0, 0.0], [0.0, 1.0]], "are not compatible"),
    ],
)
def test_what_is_no_gaussian_is_refused(mean: list[float], covariance: list[list[float]], message: str) -> None:
    with pytest.raises(AdaNATError, match=message):
        FrechetReference(Gaussian(torch.tensor(mean), torch.tensor(covariance)))


def test_features_that_do_not_fit_are_refused() -> None:
    reference, streamed = FrechetReference(gaussian(draw(10, 3))), moments(draw(10, 3))
    with pytest.raises(AdaNATError, match=r"width 4 .* width 3"):
        reference.distance(gaussian(draw(10, 4)))
    with pytest.raises(AdaNATError, match=r"width 4 .* width 3"):
        frechet_distances(draw(2, 10, 4), reference)
    with pytest.raises(AdaNATError, match=r"width 4 .* width 3"):
        streamed.add(draw(2, 4))
    with pytest.raises(AdaNATError, match="not finite"):
        streamed.add(torch.full((2, 3), torch.nan))
    with pytest.raises(AdaNATError, match="not finite"):
        frechet_distances(torch.full((2, 5, 3), torch.inf), reference)
    assert streamed.num == 10


def test_a_single_image_has_no_distance() -> None:
    one = moments(draw(1, 3))
    with pytest.raises(AdaNATError, match="at least 2"):
        one.gaussian()
    with pytest.raises(AdaNATError, match="at least 2"):
        frechet_distances(draw(4, 1, 3), FrechetReference(gaussian(draw(10, 3))))
    with pytest.raises(AdaNATError, match="no mean"):
        _ = Moments().mean
