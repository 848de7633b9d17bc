"""Differentiable augmentation: reproducible, per sample, the right size, harmless where it should be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.rewards.augment import differentiable_augment

POLICIES = ["color", "translation", "cutout", "color,translation,cutout"]
GREY = 0.5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 4, height: int = 32, width: int = 24) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=generator(1))


def test_no_policy_returns_the_input() -> None:
    batch = images()
    assert differentiable_augment(batch, generator(), "") is batch


@pytest.mark.parametrize("policy", POLICIES)
def test_the_generator_alone_decides(policy: str) -> None:
    first, again, other = (differentiable_augment(images(), generator(seed), policy) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("policy", POLICIES)
def test_shape_and_type_are_kept_and_values_stay_near_the_range(policy: str) -> None:
    for batch, height, width in [(1, 8, 8), (5, 33, 17), (3, 64, 64)]:
        augmented = differentiable_augment(images(batch, height, width), generator(), policy)
        assert augmented.shape == (batch, 3, height, width)
        assert augmented.dtype == torch.float32
        assert augmented.min() > -2
        assert augmented.max() < 3


@pytest.mark.parametrize("policy", POLICIES)
def test_every_sample_is_augmented_in_its_own_way(policy: str) -> None:
    same = images(1).expand(4, -1, -1, -1)
    augmented = differentiable_augment(same, generator(), policy)
    assert all(not torch.equal(augmented[0], other) for other in augmented[1:])


@pytest.mark.parametrize("policy", POLICIES)
def test_gradients_reach_the_images(policy: str) -> None:
    batch = images().requires_grad_()
    differentiable_augment(batch, generator(), policy).square().sum().backward()
    assert batch.grad is not None
    assert torch.isfinite(batch.grad).all()
    assert (batch.grad.flatten(1).abs().max(1).values > 0).all()


def test_policies_act_in_the_order_given() -> None:
    alone = generator()
    stepwise = differentiable_augment(differentiable_augment(images(), alone, "cutout"), alone, "translation")
    assert torch.equal(differentiable_augment(images(), generator(), "cutout, translation"), stepwise)


def test_a_translation_moves_whole_pixels_by_at_most_an_eighth_and_brings_in_grey() -> None:
    height, width = 32, 24
    batch = images(200, height, width)
    moved = differentiable_augment(batch, generator(), "translation")
    seen = set()
    for before, after in zip(batch, moved, strict=True):
        inside = (after != GREY).all(0).nonzero()
        top, left = inside.amin(0).tolist()
        bottom, right = inside.amax(0).tolist()
        down = top if top else bottom - height + 1
        along = left if left else right - width + 1
        rows = slice(max(0, -down), height - max(0, down))
        columns = slice(max(0, -along), width - max(0, along))
        assert torch.equal(after[:, top : bottom + 1, left : right + 1], before[:, rows, columns])
        seen.add((down, along))
    assert {down for down, _ in seen} == set(range(-4, 5))
    assert {along for _, along in seen} == set(range(-3, 4))


def test_a_cutout_hides_at_most_a_quarter_and_touches_nothing_else() -> None:
    height, width = 32, 24
    batch = images(200, height, width)
    cut = differentiable_augment(batch, generator(), "cutout")
    hidden = (cut == GREY).all(1)  # (B, H, W)
    assert torch.equal(cut.movedim(1, -1)[~hidden], batch.movedim(1, -1)[~hidden])
    fractions = hidden.float().mean((1, 2))
    assert fractions.max() == 0.25
    # At a corner a quarter of the rectangle is left.
    assert fractions.min() >= 0.25 / 4
    rows, columns = hidden.any(2).sum(1), hidden.any(1).sum(1)
    assert torch.equal(rows * columns, hidden.sum((1, 2)))


def test_a_grey_image_stays_without_colour_under_color() -> None:
    grey = images()[:, :1].expand(-1, 3, -1, -1)
    augmented = differentiable_augment(grey, generator(), "color")
    torch.testing.assert_close(augmented, augmented[:, :1].expand(-1, 3, -1, -1))


def test_color_moves_the_mean_by_at_most_a_quarter() -> None:
    batch = images(300, 8, 8)
    shift = (differentiable_augment(batch, generator(), "color") - batch).mean((1, 2, 3))
    assert shift.abs().max() <= 0.25 + 1e-5
    assert shift.min() < -0.2
    assert shift.max() > 0.2


def test_an_unknown_augmentation_is_refused_in_one_line() -> None:
    with pytest.raises(AdaNATError, match="'flip' is not known; expected some of color, translation, cutout") as caught:
        differentiable_augment(images(), generator(), "color,flip")
    assert "\n" not in str(caught.value)
