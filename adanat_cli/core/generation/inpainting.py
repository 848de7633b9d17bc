"""Draw a part of an image: from masked pixels to tokens, and from drawn pixels back into the image without a seam."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_tokens(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Find the tokens whose patch holds a masked pixel.

    Args:
        mask: (H, W) bool, True where pixels may change; H and W are multiples of the grid's.
        grid: (h, w).

    Returns:
        (h * w,) bool, row by row.
    """
    patch = (mask.shape[0] // grid[0], mask.shape[1] // grid[1])
    return F.max_pool2d(mask.float()[None], patch).bool().flatten()


def composite(original: Tensor, drawn: Tensor, mask: Tensor, width: int) -> Tensor:
    """Put drawn pixels into an image; pixels outside the mask are the original's very numbers.

    Inside, the drawn pixels are shifted towards what lies outside: by the mean of ``original - drawn`` over the pixels
    outside, weighted by distance to the power of -4, times ``1 - d / (width + 1)`` for a pixel d rows or columns from
    the nearest of them. So the step at the border fades over ``width`` pixels, no original pixel inside the mask shows
    through, and deeper pixels are the drawn ones. Without a pixel outside, the result is ``drawn``.

    Args:
        original: (3, H, W).
        drawn: (3, H, W), an image that is drawn throughout.
        mask: (H, W) bool, True where pixels may change.
        width: pixels over which a difference fades.

    Returns:
        (3, H, W).

    Source: inverse distance weighting (Shepard, 1968), as in mean-value cloning (Farbman and others, 2009).
    """
    outside = (~mask).to(drawn)[None]  # (1, H, W)
    offsets = torch.arange(-width, width + 1).to(drawn)
    weights = (offsets[:, None] ** 2 + offsets**2).clamp(min=1) ** -2  # the centre is never outside where it counts
    sums = F.conv2d(torch.cat([(original - drawn) * outside, outside])[:, None], weights[None, None], padding=width)
    mean = sums[:3, 0] / sums[3:, 0].clamp(min=weights.min())
    fade, reached = torch.zeros_like(outside), outside
    for _ in range(width):  # the sum is the number of rings from here to the width
        reached = F.max_pool2d(reached, 3, stride=1, padding=1)
        fade = fade + reached
    return torch.where(mask, drawn + mean * fade / (width + 1), original)
