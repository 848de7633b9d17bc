"""Configurations of the image tokenizers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from adanat_cli.core.config.base import MAX_IMAGE_SIZE, MAX_WIDTH, Bounds, Config, Sizes, Width
from adanat_cli.core.config.features import MAX_BLOCKS, MAX_LEVELS
from adanat_cli.core.config.schema import shown
from adanat_cli.core.errors import AdaNATError, require

_IDENTITY = {"tokens_of", "encoder_fingerprint"}
_MIN_CHANNELS = 8
"""Channels of one group of the small autoencoder's group normalisation."""
_ImageSize = Annotated[int, Bounds(1, MAX_IMAGE_SIZE)]
_CodebookSize = Annotated[int, Bounds(2, 65535)]


@dataclass(frozen=True)
class _TokenizerFields(Config):
    """What all tokenizers have; subclasses give ``downsampling`` (image pixels per token side)."""

    image_size: _ImageSize
    codebook_size: _CodebookSize

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.image_size % self.downsampling == 0,
            f"Image size {self.image_size} is not a multiple of the tokenizer's downsampling {self.downsampling}.",
        )

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


def _check_levels(widths: tuple[int, ...]) -> None:
    """Check the number of resolutions of a network, and their widths."""
    require(
        1 <= len(widths) <= MAX_LEVELS and max(widths) <= MAX_WIDTH,
        f"A tokenizer has widths {shown(widths)}; expected 1 to {MAX_LEVELS} of at most {MAX_WIDTH:,} each.",
    )


@dataclass(frozen=True)
class VQGANConfig(_TokenizerFields):
    """The MaskGIT-family VQGAN of the reference (f = 16, K = 1024, code width 256)."""

    image_size: _ImageSize = 256
    codebook_size: _CodebookSize = 1024
    code_width: Width = 256
    base_channels: Width = 128
    channel_multipliers: Annotated[tuple[int, ...], Bounds(1)] = (1, 1, 2, 2, 4)
    num_res_blocks: Annotated[int, Bounds(1, MAX_BLOCKS)] = 2
    kind: Literal["vqgan"] = "vqgan"

    def __post_init__(self) -> None:
        require(
            self.base_channels % 32 == 0,
            f"VQGAN widths are {self.base_channels} times {self.channel_multipliers}; expected multiples of 32.",
        )
        _check_levels(self._widths)
        super().__post_init__()

    @property
    def _widths(self) -> tuple[int, ...]:
        """Channels at each resolution, finest first."""
        return tuple(self.base_channels * factor for factor in self.channel_multipliers)

    def sizes(self) -> Sizes:
        """Return the shapes that the settings decide; see ``Config``."""
        base, last = self.base_channels, self._widths[-1]
        levels = {
            f"encoder.down.{level}.block.0.conv1.weight": (width, before, 3, 3)
            for level, (before, width) in enumerate(zip((base, *self._widths), self._widths, strict=False))
        }
        return {
            "quantize.embedding.weight": (self.codebook_size, self.code_width),
            "encoder.conv_in.weight": (base, 3, 3, 3),
            "encoder.conv_out.weight": (self.code_width, last, 1, 1),
            "encoder.down": len(self._widths),
            "encoder.down.0.block": self.num_res_blocks,
            **levels,
        }

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
        tokens_of: fingerprint of the tokenizer that gives the same ids, where only the decoder was trained further;
            "" for ids of its own.
        encoder_fingerprint: with it, that of encoder and codes.
    """

    image_size: _ImageSize = 64
    codebook_size: _CodebookSize = 1024
    code_width: Width = 16
    channels: Annotated[tuple[int, ...], Bounds(_MIN_CHANNELS)] = (32, 64, 128)
    num_res_blocks: Annotated[int, Bounds(0, MAX_BLOCKS)] = 1
    kind: Literal["vqae"] = "vqae"
    tokens_of: str = ""
    encoder_fingerprint: str = ""

    def __post_init__(self) -> None:
        _check_levels(self.channels)
        require(
            bool(self.tokens_of) == bool(self.encoder_fingerprint),
            "A tokenizer names one of tokens_of and encoder_fingerprint; expected both or none.",
        )
        super().__post_init__()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, for ids of its own without what earlier versions do not know."""
        values = super().to_dict()
        return {key: value for key, value in values.items() if self.tokens_of or key not in _IDENTITY}

    def sizes(self) -> Sizes:
        """Return the shapes that the settings decide; see ``Config``."""
        stride = 1 + self.num_res_blocks  # layers of a resolution
        halvings = {
            f"encoder.{level * stride}.weight": (width, before, 4, 4)
            for level, (before, width) in enumerate(zip((3, *self.channels), self.channels, strict=False))
        }
        last = f"encoder.{len(self.channels) * stride + 2}.weight"
        return {
            "codes": (self.codebook_size, self.code_width),
            last: (self.code_width, self.channels[-1], 1, 1),
            **halvings,
        }

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
        colour: whether pixels keep their colour; red, green and blue have the cube root of ``codebook_size`` levels
            each.
    """

    image_size: _ImageSize = 8
    codebook_size: _CodebookSize = 17
    kind: Literal["pixels"] = "pixels"
    colour: bool = False
    patch: _ImageSize = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not self.colour or self.num_levels**3 == self.codebook_size,
            f"Colour pixels have {self.codebook_size} colours; expected a cube of levels: 8, 27, 64, 125 …",
        )

    def sizes(self) -> Sizes:
        """Return the shapes that the settings decide; see ``Config``."""
        return {"levels": (self.num_levels,)}

    @property
    def num_levels(self) -> int:
        """Number of levels of grey, or of each of red, green and blue."""
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
    if not isinstance(kind, str) or kind not in kinds:
        raise AdaNATError(f"{source}: tokenizer kind {shown(kind)}; expected one of {', '.join(kinds)}.")
    return kinds[kind].from_dict(values, source)
