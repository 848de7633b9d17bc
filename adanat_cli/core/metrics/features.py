"""A small classifier whose pooled activations are the features of offline metrics."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adanat_cli.core.config.features import NUM_FEATURE_GROUPS, FeatureConfig
from adanat_cli.core.errors import require


class FeatureOutput(NamedTuple):
    """The outputs of the network for a batch.

    Attributes:
        features: (B, D), not negative.
        logits: (B, C), one for each class.
    """

    features: Tensor
    logits: Tensor


class FeatureNetwork(nn.Module):
    """Residual convolutions with group normalisation, so that an image's features never depend on its batch."""

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        widths, stride = config.channels, config.stem_stride
        self.stem = nn.Conv2d(3, widths[0], 2 + stride, stride, padding=1)
        blocks: list[nn.Module] = []
        for before, width in pairwise(widths):
            blocks.append(_ResidualBlock(before, width, stride=2))
            blocks += [_ResidualBlock(width, width) for _ in range(config.num_res_blocks - 1)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = _normalization(widths[-1])
        # Pooled activations of different images are similar; their classes show in the deviation from the mean.
        self.head = nn.Sequential(nn.LayerNorm(widths[-1]), nn.Linear(widths[-1], config.num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def features(self, images: Tensor) -> Tensor:
        """Return (B, D) features of (B, 3, H, W) images in [0, 1].

        Raises:
            AdaNATError: if the images are not of the network's size.
        """
        return self.levels(images)[-1].mean((2, 3))

    def levels(self, images: Tensor) -> list[Tensor]:
        """Return the (B, C, h, w) activations of each resolution, finest first; the last are normalised, not negative.

        Raises:
            AdaNATError: if the images are not of the network's size.
        """
        size = self.config.image_size
        require(
            images.shape[1:] == (3, size, size),
            f"The feature network takes images (B, 3, {size}, {size}), but got {tuple(images.shape)}; use images of "
            f"{size} x {size} pixels.",
        )
        # Channels last is the faster layout on CPUs as well, by a fifth.
        levels = [self.stem((2 * images - 1).contiguous(memory_format=torch.channels_last))]
        for index, block in enumerate(self.blocks):
            x = block(levels[-1])
            # The blocks of one resolution are consecutive; the first of them halves the grid.
            if index % self.config.num_res_blocks:
                levels[-1] = x
            else:
                levels.append(x)
        levels[-1] = F.relu(self.norm(levels[-1]))
        return levels

    def forward(self, images: Tensor) -> FeatureOutput:
        """Return features and class logits of (B, 3, H, W) images in [0, 1]."""
        features = self.features(images)
        return FeatureOutput(features, self.head(features))


class _ResidualBlock(nn.Module):
    """Two 3×3 convolutions, each after GroupNorm and ReLU (He et al. 2016, arXiv 1603.05027)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1 = _normalization(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)
        self.norm2 = _normalization(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        # With the average before the 1×1 convolution, all pixels contribute to the shortcut.
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(in_channels, out_channels, 1)) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride)."""
        h = F.relu(self.norm1(x), inplace=True)
        shortcut = x if self.shortcut is None else self.shortcut(h)
        return shortcut + self.conv2(F.relu(self.norm2(self.conv1(h)), inplace=True))


def _normalization(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(NUM_FEATURE_GROUPS, channels)
