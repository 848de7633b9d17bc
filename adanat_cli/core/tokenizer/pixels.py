"""Grey pixels as tokens: for digits and other tiny images there is nothing to learn."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from adanat_cli.core.config import PixelConfig
from adanat_cli.core.tokenizer.base import Tokenizer


class PixelTokenizer(Tokenizer):
    """One token a pixel; its id is the pixel's grey level, from 0 (black) to K - 1 (white)."""

    config: PixelConfig

    def __init__(self, config: PixelConfig) -> None:
        """Spread K levels evenly over [0, 1]."""
        super().__init__()
        self.config = config
        # A parameter, so that it is saved, moved and fingerprinted like any tokenizer's weights.
        self.levels = nn.Parameter(torch.linspace(0, 1, config.codebook_size), requires_grad=False)

    @property
    def codebook(self) -> Tensor:
        """(K, 1) levels."""
        return self.levels[:, None]

    def encode(self, images: Tensor) -> Tensor:
        """Return the (B, N) ids of (B, 3, H, W) images in [0, 1]; colours become their mean."""
        levels = images.mean(1).mul(self.config.codebook_size - 1).round().long()
        return rearrange(levels, "b h w -> b (h w)").clamp(0, self.config.codebook_size - 1)

    def decode(self, token_ids: Tensor) -> Tensor:
        """Return the (B, 3, H, W) images in [0, 1] of (B, N) ids."""
        height, width = self.config.grid
        grey = rearrange(self.levels[token_ids], "b (h w) -> b 1 h w", h=height, w=width)
        return grey.expand(-1, 3, -1, -1)
