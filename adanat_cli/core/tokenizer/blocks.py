"""Convolutional blocks of the small autoencoder."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def normalization(channels: int) -> nn.GroupNorm:
    """Group normalisation in up to 32 groups of at least eight channels."""
    groups = next(groups for groups in (32, 16, 8, 4, 2, 1) if channels % groups == 0 and channels // groups >= 8)
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, each after GroupNorm and SiLU, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = normalization(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = normalization(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        # The block starts as the identity, so that depth does not slow down early training.
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


class Upsample(nn.Module):
    """Double the sides by sub-pixel convolution (Shi et al. 2016, arXiv 1609.05158)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1)
        # All four sub-pixels start equal: nearest-neighbour upsampling, without a checkerboard.
        kernel = self.conv.weight.data[:out_channels]
        self.conv.weight.data.copy_(kernel.repeat_interleave(4, dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', 2H, 2W)."""
        return F.pixel_shuffle(self.conv(x), 2)
