"""A small trainable VQ autoencoder for small images."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from adanat_cli.core.config import VQAEConfig
from adanat_cli.core.tokenizer.base import Tokenizer
from adanat_cli.core.tokenizer.blocks import ResidualBlock, Upsample, normalization


class Reconstruction(NamedTuple):
    """The output of the autoencoder in training.

    Attributes:
        images: (B, 3, H, W), nominally in [0, 1], not clamped.
        latents: (B, N, C) unit vectors, before quantisation.
        token_ids: (B, N) int64.
        commitment: scalar, mean squared distance of latents to their codes.
    """

    images: Tensor
    latents: Tensor
    token_ids: Tensor
    commitment: Tensor


class VQAE(Tokenizer):
    """Convolutional encoder and decoder around a codebook on the unit sphere.

    Narrow codes compared by cosine keep the whole codebook in use. The code vectors are a buffer that
    ``codebook.Codebook`` updates.

    Source: ViT-VQGAN (arXiv 2110.04627), section 3.2.
    """

    def __init__(self, config: VQAEConfig) -> None:
        super().__init__()
        self.config: VQAEConfig = config
        widths = config.channels
        encoder: list[nn.Module] = []
        for before, width in zip((3, *widths), widths, strict=False):
            encoder += [nn.Conv2d(before, width, 4, stride=2, padding=1)]
            encoder += [ResidualBlock(width) for _ in range(config.num_res_blocks)]
        self.encoder = nn.Sequential(
            *encoder, normalization(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], config.code_width, 1)
        )
        decoder: list[nn.Module] = [nn.Conv2d(config.code_width, widths[-1], 3, padding=1)]
        for width, after in zip(widths[::-1], (*widths[-2::-1], 0), strict=True):
            # One block more than the encoder: the decoder has to invent what the ids leave out.
            decoder += [ResidualBlock(width) for _ in range(config.num_res_blocks + 1)]
            decoder += [Upsample(width, after)] if after else [normalization(width), nn.SiLU(), Upsample(width, 3)]
        self.decoder = nn.Sequential(*decoder)
        self.codes: Tensor
        codes = torch.randn(config.codebook_size, config.code_width)
        # Without values, where only shapes count, a norm would load PyTorch's compiler.
        self.register_buffer("codes", codes if codes.is_meta else F.normalize(codes, dim=-1))
        self._in_float32 = False

    def freeze_encoder(self) -> None:
        """Let only the decoder learn, from exactly the ids that ``encode`` gives: in float32, even under autocast."""
        self.encoder.requires_grad_(False)
        self._in_float32 = True

    @property
    def codebook(self) -> Tensor:
        """(K, C) unit vectors."""
        return self.codes

    def encode(self, images: Tensor) -> Tensor:
        """Return the (B, N) ids of (B, 3, H, W) images in [0, 1]."""
        return self.nearest(self.latents(images))

    def decode(self, token_ids: Tensor) -> Tensor:
        """Return the (B, 3, H, W) images in [0, 1] of (B, N) ids."""
        return self.decode_codes(self.codes[token_ids]).clamp(0, 1)

    def reconstruct(self, images: Tensor) -> Reconstruction:
        """Encode (B, 3, H, W) images in [0, 1], quantise with straight-through gradients, and decode."""
        latents = self.latents(images)
        token_ids = self.nearest(latents)
        codes = self.codes[token_ids]
        commitment = (latents - codes).square().sum(-1).mean()
        quantized = latents + (codes - latents).detach()
        return Reconstruction(self.decode_codes(quantized), latents, token_ids, commitment)

    def forward(self, images: Tensor) -> Reconstruction:
        """Do what ``reconstruct`` does, where distributed wrappers expect it."""
        return self.reconstruct(images)

    def latents(self, images: Tensor) -> Tensor:
        """Return the (B, N, C) unit vectors of (B, 3, H, W) images in [0, 1]."""
        with torch.autocast(images.device.type, enabled=False) if self._in_float32 else nullcontext():
            h = self.encoder(2 * images - 1)
        return F.normalize(rearrange(h, "b c h w -> b (h w) c").float(), dim=-1)

    def nearest(self, latents: Tensor) -> Tensor:
        """Return the (B, N) ids of the codes with the largest cosine to (B, N, C) latents."""
        with torch.no_grad():
            return (latents @ self.codes.T).argmax(-1)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Return the unclamped (B, 3, H, W) images of (B, N, C) code vectors on a square grid."""
        side = round(codes.shape[1] ** 0.5)
        # The elements of a unit vector are about C^-1/2; scale them to unit variance.
        scaled = codes * codes.shape[-1] ** 0.5
        return 0.5 + 0.5 * self.decoder(rearrange(scaled, "b (h w) c -> b c h w", h=side))
