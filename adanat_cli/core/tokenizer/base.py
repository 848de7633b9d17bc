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
        """Return the ids of images.

        Args:
            images: (B, 3, H, W) floats in [0, 1]; H and W are multiples of the downsampling factor.

        Returns:
            (B, N) int64 in [0, K), row by row of the grid.
        """

    @abstractmethod
    def decode(self, token_ids: Tensor) -> Tensor:
        """Return the images of ids.

        Args:
            token_ids: (B, N) int64 in [0, K).

        Returns:
            (B, 3, H, W) floats in [0, 1].
        """
