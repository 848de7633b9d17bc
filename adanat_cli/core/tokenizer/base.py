"""The interface of a tokenizer."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from adanat_cli.core.config import TokenizerConfig


class Tokenizer(nn.Module):
    """A VQ autoencoder between images and a grid of token ids."""

    config: TokenizerConfig

    @property
    @abstractmethod
    def codebook(self) -> Tensor:
        """(K, C) code vectors, one for each id."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Return the (B, N) int64 ids, row by row of the grid, of (B, 3, H, W) floats in [0, 1].

        H and W are multiples of the downsampling factor.
        """

    @abstractmethod
    def decode(self, token_ids: Tensor) -> Tensor:
        """Return the images, (B, 3, H, W) floats in [0, 1], of (B, N) int64 ids in [0, K)."""
