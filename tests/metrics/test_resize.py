from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from adanat_cli.core.metrics.resize import bilinear_tensorflow1, bilinear_torch


def draw(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).float()


def by_the_formula(channel: np.ndarray, size: int, centres: bool) -> np.ndarray:
    """Bilinear interpolation of (H, W), pixel by pixel, in float64."""
    result = np.empty((size, size))
    for i, j in np.ndindex(size, size):
        places = []
        for index, length in ((i, channel.shape[0]), (j, channel.shape[1])):
            place = (index + 0.5) * length / size - 0.5 if centres else index * length / size
            place = max(place, 0.0)
            low = min(int(place), length - 1)
            places.append((low, min(low + 1, length - 1), place - low))
        (top, bottom, down), (left, right, across) = places
        upper = channel[top, left] * (1 - across) + channel[top, right] * across
        lower = channel[bottom, left] * (1 - across) + channel[bottom, right] * across
        result[i, j] = upper * (1 - down) + lower * down
    return result


@pytest.mark.parametrize("shape", [(5, 8), (16, 11), (23, 23), (1, 2)])
def test_both_kinds_follow_their_formulas_up_and_down(shape: tuple[int, int]) -> None:
    images = draw(2, 3, *shape)
    for resize, centres in ((bilinear_tensorflow1, False), (bilinear_torch, True)):
        resized = resize(images, 11)
        assert resized.shape == (2, 3, 11, 11)
        for b, c in ((0, 0), (1, 2)):
            expected = by_the_formula(images[b, c].double().numpy(), 11, centres)
            np.testing.assert_allclose(resized[b, c].numpy(), expected, atol=1e-3)


def test_the_two_kinds_differ_by_a_shift() -> None:
    images = draw(1, 3, 32, 32)
    assert (bilinear_tensorflow1(images, 299) - bilinear_torch(images, 299)).abs().mean() > 5
    # A ramp is shifted by half an input pixel less half an output pixel.
    ramp = torch.arange(64.0).expand(1, 1, 64, 64)
    inner = slice(20, 200)
    shift = (bilinear_tensorflow1(ramp, 256) - bilinear_torch(ramp, 256))[..., inner]
    torch.testing.assert_close(shift, torch.full_like(shift, 0.5 - 0.125))


def test_images_of_the_final_size_stay_as_they_are() -> None:
    images = draw(1, 3, 9, 9)
    assert torch.equal(bilinear_tensorflow1(images, 9), images)
    assert torch.equal(bilinear_torch(images, 9), images)


@pytest.mark.parametrize("shape", [(32, 32), (64, 48), (299, 299), (320, 512)])
def test_tensorflows_kind_is_torch_fidelitys_to_the_last_bit(shape: tuple[int, int]) -> None:
    compat = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    images = draw(1, 3, *shape)
    expected = compat.interpolate_bilinear_2d_like_tensorflow1x(images, size=(299, 299), align_corners=False)
    assert torch.equal(bilinear_tensorflow1(images, 299), expected)
