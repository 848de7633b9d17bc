"""From masked pixels to tokens, and drawn pixels put into an image without a seam."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adanat_cli.core.generation.inpainting import composite, masked_tokens


def box_mask(size: int, top: int, left: int, height: int, width: int) -> Tensor:
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_a_token_is_drawn_if_one_pixel_of_its_patch_is_masked() -> None:
    drawn = masked_tokens(box_mask(16, 3, 7, 2, 1), (4, 4))
    assert drawn.nonzero()[:, 0].tolist() == [1, 5]  # rows 3 and 4, column 7
    assert not masked_tokens(torch.zeros(16, 16, dtype=torch.bool), (4, 4)).any()
    assert masked_tokens(torch.ones(16, 16, dtype=torch.bool), (4, 4)).all()


@pytest.mark.parametrize("width", [1, 3, 8])
def test_pixels_outside_the_mask_are_the_originals_and_deep_ones_the_drawn(width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    original, drawn = torch.rand(2, 3, 40, 40, generator=generator)
    mask = box_mask(40, 10, 0, 25, 30)  # it meets the left edge of the image, beyond which nothing is known
    result = composite(original, drawn, mask, width)
    assert torch.equal(result[:, ~mask], original[:, ~mask])
    deep = box_mask(40, 10 + width, 0, 25 - 2 * width, 30 - width)
    assert torch.equal(result[:, deep], drawn[:, deep])
    assert not torch.isclose(result, drawn)[:, mask & ~deep].all()


def test_a_constant_difference_fades_linearly_from_the_border() -> None:
    drawn = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    result = composite(drawn + 0.5, drawn, box_mask(32, 8, 8, 16, 16), 3)
    shift = (result - drawn)[0, 16]  # along a row through the middle
    expected = torch.tensor([0.5, 0.375, 0.25, 0.125, 0.0, 0.0])
    torch.testing.assert_close(shift[7:13], expected)
    torch.testing.assert_close(shift[19:25], expected.flip(0))


def test_no_original_pixel_inside_the_mask_shows_through() -> None:
    original, drawn = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    mask = box_mask(16, 4, 4, 8, 8)
    other = torch.where(mask, 1 - original, original)
    assert torch.equal(composite(original, drawn, mask, 4), composite(other, drawn, mask, 4))


def test_without_a_pixel_outside_the_result_is_what_was_drawn() -> None:
    original, drawn = torch.rand(2, 3, 16, 16)
    assert torch.equal(composite(original, drawn, torch.ones(16, 16, dtype=torch.bool), 4), drawn)
