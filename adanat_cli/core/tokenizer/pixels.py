"""Pixels as tokens: a tokenizer for digits and other tiny images that needs no training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from adanat_cli.core.config import PixelConfig
from adanat_cli.core.tokenizer.base import Tokenizer


class PixelTokenizer(Tokenizer):
    """One token for each pixel, or for the mean of each patch of pixels.

    Its id is the grey level, from 0 (black) to K - 1 (white), or the levels of red, green and blue as the
    digits of a number.
    """

    config: PixelConfig

    def __init__(self, config: PixelConfig) -> None:
        """Spread the levels evenly over [0, 1]."""
        super().__init__()
        self.config = config
        # A parameter, so that it is saved, moved and hashed like the weights of other tokenizers.
        self.levels = nn.Parameter(torch.linspace(0, 1, config.num_levels), requires_grad=False)

    @property
    def codebook(self) -> Tensor:
        """(K, 1) levels, or (K, 3) colours."""
        if not self.config.colour:
            return self.levels[:, None]
        return torch.cartesian_prod(self.levels, self.levels, self.levels)

    def encode(self, images: Tensor) -> Tensor:
        """Return the (B, N) ids of (B, 3, H, W) images in [0, 1]; without colour, those of the channels' mean."""
        most = self.config.num_levels - 1
        images = F.avg_pool2d(images, self.config.patch)
        channels = images if self.config.colour else images.mean(1, keepdim=True)
        levels = channels.mul(most).round().long().clamp(0, most)
        ids = levels[:, 0]
        for channel in levels.unbind(1)[1:]:
            ids = ids * self.config.num_levels + channel
        return rearrange(ids, "b h w -> b (h w)")

    def decode(self, token_ids: Tensor) -> Tensor:
        """Return the (B, 3, H, W) images in [0, 1] of (B, N) ids."""
        height, width = self.config.grid
        pixels = rearrange(self.codebook[token_ids], "b (h w) c -> b c h w", h=height, w=width).expand(-1, 3, -1, -1)
        return pixels.repeat_interleave(self.config.patch, 2).repeat_interleave(self.config.patch, 3)
