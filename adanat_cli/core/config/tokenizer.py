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
    """Pixels as tokens, without training.

    Attributes:
        codebook_size: number of grey levels, or of colours.
        patch: pixels per token side; a token is the mean of its patch.
        colour: whether pixels keep their colour, of as many levels in each of red, green and blue as the cube root of
            ``codebook_size``.
    """

    image_size: int = 8
    codebook_size: int = 17
    kind: Literal["pixels"] = "pixels"
    colour: bool = False
    patch: int = 1

    def __post_init__(self) -> None:
        require(
            not self.colour or self.num_levels**3 == self.codebook_size,
            f"Colour pixels have {self.codebook_size} colours; expected a cube of levels: 8, 27, 64, 125 …",
        )
        require(self.patch >= 1, f"A token's patch is {self.patch} pixels; expected at least 1.")
        self._check()

    @property
    def num_levels(self) -> int:
        """Of grey, or of each of red, green and blue."""
        return round(self.codebook_size ** (1 / 3)) if self.colour else self.codebook_size

    @property
    def downsampling(self) -> int:
        """A token is a patch of pixels."""
        return self.patch


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
