"""Tokenizers by configuration."""

from __future__ import annotations

from adanat_cli.core.config import PixelConfig, TokenizerConfig, VQGANConfig
from adanat_cli.core.tokenizer.base import Tokenizer
from adanat_cli.core.tokenizer.pixels import PixelTokenizer
from adanat_cli.core.tokenizer.vqae import VQAE
from adanat_cli.core.tokenizer.vqgan import VQGAN


def build_tokenizer(config: TokenizerConfig) -> Tokenizer:
    """Return a randomly initialised tokenizer of the configured kind."""
    if isinstance(config, PixelConfig):
        return PixelTokenizer(config)
    return VQGAN(config) if isinstance(config, VQGANConfig) else VQAE(config)
