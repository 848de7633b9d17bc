"""The MaskGIT-family VQGAN: a convolutional autoencoder without attention around a codebook."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from adanat_cli.core.config import VQGANConfig
from adanat_cli.core.tokenizer.base import Tokenizer


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions without bias, each after GroupNorm and SiLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = _norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = _norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.nin_shortcut = (
            nn.Conv2d(out_channels, out_channels, 1, bias=False) if in_channels != out_channels else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        # Where the width changes, the published weights were trained with the shortcut applied to the
        # output of the second convolution; the block's input is dropped.
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(h))


class Upsample(nn.Module):
    """Double the sides by nearest neighbours, then a 3×3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The residual blocks of one resolution; ``upsample`` follows them in the decoder."""

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int, upsample: bool = False) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * num_blocks
        self.block = nn.ModuleList(ResidualBlock(*pair) for pair in pairwise(widths))
        self.upsample = Upsample(out_channels) if upsample else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H, W), or twice the sides with ``upsample``."""
        for block in self.block:
            x = block(x)
        return x if self.upsample is None else self.upsample(x)


class Middle(nn.Module):
    """The two residual blocks at the lowest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.block_2 = ResidualBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return self.block_2(self.block_1(x))


class Encoder(nn.Module):
    """Images to latents."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        widths = _widths(config)
        inputs = [config.base_channels, *widths[:-1]]
        self.conv_in = nn.Conv2d(3, config.base_channels, 3, padding=1, bias=False)
        self.down = nn.ModuleList(
            Level(before, after, config.num_res_blocks) for before, after in zip(inputs, widths, strict=True)
        )
        self.mid = Middle(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.code_width, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [0, 1] to latents (B, C, h, w)."""
        x = self.conv_in(images)
        for index, level in enumerate(self.down):
            x = level(F.avg_pool2d(x, 2) if index else x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Code vectors to images."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        widths = _widths(config)
        inputs = [*widths[1:], widths[-1]]
        self.conv_in = nn.Conv2d(config.code_width, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        # up.0 is the finest level, which runs last.
        self.up = nn.ModuleList(
            Level(before, after, config.num_res_blocks, upsample=index > 0)
            for index, (before, after) in enumerate(zip(inputs, widths, strict=True))
        )
        self.norm_out = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, codes: Tensor) -> Tensor:
        """Map code vectors (B, C, h, w) to images (B, 3, H, W), nominally in [0, 1]."""
        x = self.mid(self.conv_in(codes))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Quantizer(nn.Module):
    """The code vectors, and the choice of the nearest."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.codebook_size, config.code_width)
        nn.init.uniform_(self.embedding.weight, -1 / config.codebook_size, 1 / config.codebook_size)

    def nearest(self, latents: Tensor) -> Tensor:
        """Return the (B, N) ids of the codes nearest to (B, N, C) latents; the lower id wins a tie."""
        codes = self.embedding.weight
        # |z - e|^2 without |z|^2, which is the same for every code.
        return (codes.square().sum(dim=1) - 2 * latents @ codes.T).argmin(dim=-1)


class VQGAN(Tokenizer):
    """The tokenizer of the published ImageNet models (f = 16, K = 1024).

    The names in its state dict are those of the authors' checkpoints. Images go in and come out in [0, 1].

    Sources: MaskGIT (arXiv 2202.04200); MAGE (arXiv 2211.09117) for the PyTorch port of its weights.
    """

    config: VQGANConfig

    def __init__(self, config: VQGANConfig) -> None:
        """Build with fresh weights, drawn from PyTorch's global generator."""
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = Quantizer(config)

    @property
    def codebook(self) -> Tensor:
        """(K, C) code vectors."""
        return self.quantize.embedding.weight

    def encode(self, images: Tensor) -> Tensor:
        """Return the (B, N) ids of (B, 3, H, W) images in [0, 1]."""
        latents = rearrange(self.encoder(images), "b c h w -> b (h w) c")
        return self.quantize.nearest(latents)

    def decode(self, token_ids: Tensor) -> Tensor:
        """Return the (B, 3, H, W) images in [0, 1] of (B, N) ids."""
        return self.decode_unclamped(token_ids).clamp(0, 1)

    def decode_unclamped(self, token_ids: Tensor) -> Tensor:
        """Return the images of (B, N) ids as the network outputs them, with some values outside [0, 1]."""
        height, width = self.config.grid
        codes = rearrange(self.quantize.embedding(token_ids), "b (h w) c -> b c h w", h=height, w=width)
        return self.decoder(codes)


def _widths(config: VQGANConfig) -> list[int]:
    """Return the channels of each resolution, finest first."""
    return [config.base_channels * multiplier for multiplier in config.channel_multipliers]
