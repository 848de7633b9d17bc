"""Counter-based noise: distribution, independence, determinism."""

import math

import pytest
import torch

from adanat_cli.core.generation.noise import SeededNoise, draw
from adanat_cli.core.generation.state import DecodingState


def uniforms(seed: int = 0, images: int = 400, step: int = 0, purpose: int = 0) -> torch.Tensor:
    return SeededNoise(seed, torch.arange(images), 256).uniform(step, purpose)


def test_uniforms_have_the_moments_of_the_uniform_distribution() -> None:
    values = uniforms().double()
    n = values.numel()
    assert values.min() > 0
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 4 * math.sqrt(1 / 12 / n)
    assert abs(values.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / n)
    counts = torch.histc(values, 64, 0, 1)
    chi_square = ((counts - n / 64) ** 2 / (n / 64)).sum()
    assert abs(chi_square - 63) < 5 * math.sqrt(2 * 63)


@pytest.mark.parametrize(
    "other",
    [uniforms(seed=1), uniforms(step=1), uniforms(purpose=1), uniforms().roll(1, 0), uniforms().roll(1, 1)],
    ids=["seed", "step", "purpose", "image", "position"],
)
def test_uniforms_are_uncorrelated_between(other: torch.Tensor) -> None:
    values = uniforms()
    correlation = torch.corrcoef(torch.stack([values.flatten(), other.flatten()]))[0, 1]
    assert abs(correlation) < 4 / math.sqrt(values.numel())


def test_noise_of_an_image_is_the_same_in_any_batch() -> None:
    whole = SeededNoise(7, torch.arange(10), 64)
    part = SeededNoise(7, torch.tensor([8, 3]), 64)
    assert torch.equal(part.gumbel(2), whole.gumbel(2)[[8, 3]])


def test_any_integer_is_a_seed() -> None:
    values = [SeededNoise(seed, torch.arange(1), 8).uniform(0, 0) for seed in (-1, 0, 2**63, 2**64 - 2, 10**30)]
    assert len({tuple(value[0].tolist()) for value in values}) == 5


def test_gumbel_noise_has_mean_and_variance_of_the_gumbel_distribution() -> None:
    values = SeededNoise(3, torch.arange(400), 256).gumbel(0).double()
    assert values.isfinite().all()
    assert values.mean().item() == pytest.approx(0.57722, abs=0.02)
    assert values.var().item() == pytest.approx(math.pi**2 / 6, abs=0.04)


def test_drawn_frequencies_match_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, -2.0, 2.5, -torch.inf, 0.3, -1.0])
    noise = SeededNoise(11, torch.arange(500), 256)
    ids = noise.choose(logits.expand(500 * 256, 7), 0, DecodingState.start(500, 256, 7, 1).masked)
    expected = logits.softmax(0).double() * ids.numel()
    counts = torch.bincount(ids.flatten(), minlength=7).double()
    assert counts[4] == 0
    kept = expected > 0
    chi_square = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    assert abs(chi_square - 5) < 5 * math.sqrt(2 * 5)


def test_a_uniform_distribution_over_a_large_codebook_is_drawn_evenly() -> None:
    num_ids = 16384
    masked = DecodingState.start(2, 512, num_ids, 1).masked
    ids = SeededNoise(2, torch.arange(2), 512).choose(torch.zeros(1, num_ids).expand(1024, num_ids), 0, masked)
    counts = torch.histc(ids.float(), 16, 0, num_ids)
    expected = ids.numel() / 16
    assert ((counts - expected) ** 2 / expected).sum() < 15 + 5 * math.sqrt(30)


@pytest.mark.parametrize("position", [0, 3, 6])
def test_ids_of_zero_probability_are_never_drawn_even_by_extreme_uniforms(position: int) -> None:
    logits = torch.full((4, 7), -torch.inf)
    logits[:, position] = 0.0
    extremes = torch.tensor([2.0**-24, 0.25, 0.5, 1 - 2.0**-24])
    assert (draw(logits, extremes) == position).all()
    spread = torch.tensor([-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf, 3.0, -torch.inf]).expand(4, 7)
    assert set(draw(spread, extremes).tolist()) <= {1, 3, 5}
