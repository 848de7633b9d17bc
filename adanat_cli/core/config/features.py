"""Configuration of the small feature network, and how it is trained by data set."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from adanat_cli.core.config.base import MAX_IMAGE_SIZE, MAX_WIDTH, Bounds, Config, Sizes
from adanat_cli.core.config.nat import MAX_CLASSES
from adanat_cli.core.errors import require

_MIN_IMAGE_SIZE, _STRIDE_FROM = 8, 32
MAX_LEVELS, MAX_BLOCKS = 12, 256
"""Largest numbers of resolutions, and of residual blocks at each."""
NUM_FEATURE_GROUPS = 4
"""Groups of the network's group normalisation; they divide its widths."""


@dataclass(frozen=True)
class FeatureConfig(Config):
    """A small classifier whose pooled activations measure images where no Inception network is at hand.

    Attributes:
        image_size: side of the images it is trained on, in pixels.
        num_classes: number of classes of its head.
        channels: width at each resolution, finest first; each entry after the first halves the resolution.
        num_res_blocks: residual blocks per resolution after the first, which has none.
    """

    noun: ClassVar[str] = "Feature network"
    image_size: Annotated[int, Bounds(_MIN_IMAGE_SIZE, MAX_IMAGE_SIZE)]
    num_classes: Annotated[int, Bounds(2, MAX_CLASSES)]
    channels: Annotated[tuple[int, ...], Bounds(1, MAX_WIDTH)] = (32, 64, 128)
    num_res_blocks: Annotated[int, Bounds(1, MAX_BLOCKS)] = 1
    kind: Literal["residual"] = "residual"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            2 <= len(self.channels) <= MAX_LEVELS and all(width % NUM_FEATURE_GROUPS == 0 for width in self.channels),
            f"Feature network channels are {self.channels}; expected at least two multiples of {NUM_FEATURE_GROUPS}.",
        )
        require(
            self.image_size % self.downsampling == 0,
            f"Feature network image_size is {self.image_size}; expected a multiple of {self.downsampling} pixels.",
        )

    def sizes(self) -> Sizes:
        """Return the shapes that the settings decide; see ``Config``."""
        kernel, num_blocks = 2 + self.stem_stride, self.num_res_blocks
        widenings = {
            f"blocks.{level * num_blocks}.conv1.weight": (width, before, 3, 3)
            for level, (before, width) in enumerate(pairwise(self.channels))
        }
        return {
            "stem.weight": (self.channels[0], 3, kernel, kernel),
            "head.1.weight": (self.num_classes, self.feature_width),
            "blocks": (len(self.channels) - 1) * num_blocks,
            **widenings,
        }

    @property
    def feature_width(self) -> int:
        """D, features of an image."""
        return self.channels[-1]

    @property
    def stem_stride(self) -> int:
        """Stride of the first convolution: larger images are halved first, since full resolution is slow."""
        return 2 if self.image_size >= _STRIDE_FROM else 1

    @property
    def downsampling(self) -> int:
        """Image pixels per side of the last level's cells."""
        return int(self.stem_stride * 2 ** (len(self.channels) - 1))


FEATURE_TRAINING: dict[str, dict[str, Any]] = {
    "digits": {
        "shape": {"channels": (32, 64, 64)},
        "training": {"steps": 400, "batch_size": 64, "learning_rate": 3e-3, "flips": False},
    },
    "imagenet64": {
        "shape": {"channels": (32, 64, 128, 256)},
        "training": {"steps": 2000, "batch_size": 64, "learning_rate": 2e-3, "flips": True},
    },
}
"""Settings by data set, for runs that a laptop finishes: fields of ``FeatureConfig``, and arguments of the training."""
