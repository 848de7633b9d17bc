from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.metrics.scores import inception_score, kernel_distance
from tests.support import fixture


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num_splits", [10, 4, 1])
@pytest.mark.parametrize("shuffle", [0, 1])
def test_the_inception_score_is_the_references(num_splits: int, shuffle: int) -> None:
    arrays = fixture("metrics")
    score = inception_score(torch.from_numpy(arrays["logits"]), num_splits, 2020 if shuffle else None)
    assert score.mean == pytest.approx(float(arrays[f"isc.splits{num_splits}_shuffle{shuffle}"]), abs=1e-9)


def test_indifferent_guesses_score_one_and_sure_varied_ones_the_number_of_classes() -> None:
    assert inception_score(torch.zeros(30, 7), 3) == pytest.approx((1, 0))
    assert inception_score(draw(7).expand(30, 7), 3) == pytest.approx((1, 0), abs=1e-12)
    # Every class twice in each of three splits, without any doubt.
    sure = 1e4 * torch.eye(7).repeat(6, 1)
    assert inception_score(sure, 3, seed=None) == pytest.approx((7, 0))
    # Half of the classes only.
    assert inception_score(sure[torch.arange(42) % 7 < 3], 1).mean == pytest.approx(3)


def test_a_constant_added_to_logits_changes_nothing() -> None:
    # A multiple of 1/4, so that adding it loses nothing.
    logits = draw(60, 9).mul(4).round().div(4)
    assert inception_score(logits + 4096, 2) == pytest.approx(inception_score(logits, 2), abs=1e-12)


def test_logits_that_cannot_be_scored_are_refused() -> None:
    with pytest.raises(AdaNATError, match="at least one image in a split"):
        inception_score(draw(9, 4), 10)
    with pytest.raises(AdaNATError, match="at least one image in a split"):
        inception_score(draw(9), 1)
    with pytest.raises(AdaNATError, match="not finite"):
        inception_score(torch.full((4, 4), torch.inf), 1)


def test_the_kernel_distance_is_the_definition_over_all_pairs() -> None:
    real, fake = draw(12, 5).double(), draw(12, 5, seed=1).double() * 1.3 + 0.2
    kernel = [[float((a @ b / 5 + 1) ** 3) for b in (*real, *fake)] for a in (*real, *fake)]
    matrix = np.array(kernel)
    off = ~np.eye(12, dtype=bool)
    expected = matrix[:12, :12][off].mean() + matrix[12:, 12:][off].mean() - 2 * matrix[:12, 12:].mean()
    # As many images as there are: every subset is the whole.
    mean, std = kernel_distance(real, fake, num_subsets=3)
    assert mean == pytest.approx(expected, rel=1e-12)
    assert std == pytest.approx(0, abs=1e-12)


def test_normal_distributions_with_a_kernel_distance_known_by_hand() -> None:
    # x ~ N(0, 1) in D = 8 dimensions, y ~ N(s, 1) with s = 1/2 in each, so |s|² = 2. With u = x·x'/D, the mean of
    # (1 + u)³ needs the mean of u, its variance and its third central moment:
    # k(x, x'): 0, 1/D, 0; k(x, y): 0, (D + |s|²)/D², 0; k(y, y'): |s|²/D, (D + 2|s|²)/D², 6|s|²/D³.
    expected = (1 + 3 / 8) + (1.25**3 + 3 * 1.25 * 12 / 64 + 12 / 512) - 2 * (1 + 3 * 10 / 64)
    pairs = [(draw(500, 8, seed=seed), draw(500, 8, seed=100 + seed)) for seed in range(32)]
    far = np.mean([kernel_distance(x, y + 0.5, 1).mean for x, y in pairs])
    assert far == pytest.approx(expected, rel=0.05)
    near = np.mean([kernel_distance(x, y, 1).mean for x, y in pairs])
    assert abs(near) < 0.01 * expected


def test_identical_sets_are_no_further_apart_than_chance() -> None:
    features = draw(50, 6)
    # x = y: only the pairs of an image with itself are missing from the unbiased side.
    mean = kernel_distance(features, features, 1).mean
    kernel = (features.double() @ features.double().T / 6 + 1) ** 3
    expected = 2 * ((kernel.sum() - kernel.trace()) / (50 * 49) - kernel.mean())
    assert mean == pytest.approx(float(expected), rel=1e-9)
    assert mean < 0


def test_the_same_seed_draws_the_same_subsets() -> None:
    real, fake = draw(300, 4), draw(200, 4, seed=1) + 1
    first = kernel_distance(real, fake, 5, 50, seed=1)
    assert first == kernel_distance(real, fake, 5, 50, seed=1)
    assert first != kernel_distance(real, fake, 5, 50, seed=2)
    assert first.std > 0


def test_a_large_common_mean_leaves_the_distance_its_digits() -> None:
    # Kernel values of about 1e12 in float32 would leave errors of 1e5.
    real, fake = [draw(40, 4, seed=seed).mul(8).round().div(8) for seed in (0, 1)]
    shifted = kernel_distance(real + 10_000, fake + 10_000, 1).mean
    a, b = (x.numpy().astype(np.longdouble) + 10_000 for x in (real, fake))
    off = ~np.eye(40, dtype=bool)
    kernels = [(x @ y.T / 4 + 1) ** 3 for x, y in ((a, a), (b, b), (a, b))]
    expected = float(kernels[0][off].mean() + kernels[1][off].mean() - 2 * kernels[2].mean())
    assert shifted == pytest.approx(expected, rel=1e-6)


def test_sets_without_a_kernel_distance_are_refused() -> None:
    with pytest.raises(AdaNATError, match="expected"):
        kernel_distance(draw(5, 3), draw(5, 4))
    with pytest.raises(AdaNATError, match="at least 2"):
        kernel_distance(draw(1, 3), draw(5, 3))
    with pytest.raises(AdaNATError, match="not finite"):
        kernel_distance(draw(5, 3), torch.full((5, 3), torch.nan))


def test_kernel_distance_and_inception_score_agree_with_torch_fidelity() -> None:
    pytest.importorskip("torch_fidelity")
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    real, fake = draw(150, 16).relu(), draw(120, 16, seed=1).relu() + 0.1
    theirs = kid_features_to_metric(fake, real, kid_subsets=7, kid_subset_size=60, verbose=False)
    ours = kernel_distance(real, fake, 7, 60)
    # They compute in float32.
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert ours.std == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-3)
    for shuffle in (True, False):
        scores = isc_features_to_metric(4 * fake, 7, shuffle, 2020)
        expected = scores["inception_score_mean"], scores["inception_score_std"]
        assert inception_score(4 * fake, 7, 2020 if shuffle else None) == pytest.approx(expected, abs=1e-12)
