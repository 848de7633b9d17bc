"""Configurations of the image tokenizers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adanat_cli.core.config.base import Config
from adanat_cli.core.errors import AdaNATError, require


@dataclass(frozen=True)
class _TokenizerFields(Config):
    """What all tokenizers have; subclasses give ``downsampling`` (image pixels per token side)."""

    image_size: int
    codebook_size: int

    @property
    @abstractmethod
    def downsampling(self) -> int:
        """Image pixels per token side."""

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) tokens of an image of ``image_size``."""
        return (self.image_size // self.downsampling,) * 2

    @property
    def num_tokens(self) -> int:
        """N = h * w."""
        return self.grid[0] * self.grid[1]

    def _check(self) -> None:
        require(2 <= self.codebook_size <= 65535, f"Codebook size is {self.codebook_size}; expected 2 to 65,535.")
        require(
            self.image_size >= self.downsampling and self.image_size % self.downsampling == 0,
            f"Image size {self.image_size} is not a multiple of the tokenizer's downsampling {self.downsampling}.",
        )


@dataclass(frozen=True)
class VQGANConfig(_TokenizerFields):
    """The MaskGIT-family VQGAN of the reference (f = 16, K = 1024, code width 256)."""

    image_size: int = 256
    codebook_size: int = 1024
    code_width: int = 256
    base_channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    kind: Literal["vqgan"] = "vqgan"

    def __post_init__(self) -> None:
        require(
            self.base_channels >= 1 and self.base_channels % 32 == 0 and min(self.channel_multipliers, default=0) >= 1,
            f"VQGAN widths are {self.base_channels} times {self.channel_multipliers}; expected multiples of 32.",
        )
        self._check()

    @property
    def downsampling(self) -> int:
        """Image pixels per token side: 2 per level after the first."""
        return 2 ** (len(self.channel_multipliers) - 1)


@dataclass(frozen=True)
class VQAEConfig(_TokenizerFields):
    """A small trainable VQ autoencoder for small images.

    Attributes:
        channels: width at each resolution, finest first; each entry halves the resolution once.
        num_res_blocks: residual blocks per resolution and side.
        code_width: width of a code vector; codes are compared on the unit sphere.
    """

    image_size: int = 64
    codebook_size: int = 1024
    code_width: int = 16
    channels: tuple[int, ...] = (32, 64, 128)
    num_res_blocks: int = 1
    kind: Literal["vqae"] = "vqae"

    def __post_init__(self) -> None:
        require(len(self.channels) >= 1, "A VQ autoencoder needs at least one entry in channels.")
        self._check()

    @property
    def downsampling(self) -> int:
        """Image pixels per token side: 2 per entry of ``channels``."""
        return 2 ** len(self.channels)


@dataclass(frozen=True)
class PixelConfig(_TokenizerFields):
    """Grey pixels as tokens, without training; ``codebook_size`` is the number of grey levels."""

    image_size: int = 8
    codebook_size: int = 17
    kind: Literal["pixels"] = "pixels"

    def __post_init__(self) -> None:
        self._check()

    @property
    def downsampling(self) -> int:
        """A token is a pixel."""
        return 1


TokenizerConfig = VQGANConfig | VQAEConfig | PixelConfig


def tokenizer_config(values: Mapping[str, Any], source: str) -> TokenizerConfig:
    """Build the configuration that ``values["kind"]`` names.

    Raises:
        AdaNATError: if the kind is unknown or a field is invalid.
    """
    kinds: dict[str, type[VQGANConfig] | type[VQAEConfig] | type[PixelConfig]] = {
        "vqgan": VQGANConfig,
        "vqae": VQAEConfig,
        "pixels": PixelConfig,
    }
    kind = values.get("kind")
    if kind not in kinds:
        raise AdaNATError(f"{source}: tokenizer kind {kind!r}; expected one of {', '.join(kinds)}.")
    return kinds[kind].from_dict(values, source)
