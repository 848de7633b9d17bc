"""Frozen networks whose features a projected discriminator classifies."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adanat_cli.core.efficientnet import LEVEL_WIDTHS, EfficientNet, Variant, require_weights, resized, seen_side
from adanat_cli.core.errors import require
from adanat_cli.core.pretrained import Frozen, Normalization, load_timm, require_timm

DINO = "vit_small_patch16_224.dino"
_NUM_BLOCK_LAYERS = 4
_WHAT = "Discriminator backbone"
_OTHERS = "use --discriminator classifier or --discriminator pyramid, which need no download"
_ADVICE = f"give a local file with --discriminator dino=FILE.safetensors, or {_OTHERS}"
_EFFICIENTNET = "Discriminator efficientnet"
_LITE: Variant = "lite0"
_TRAINED_AT, _MIXED_WIDTH = 224, 64


def require_transformer(name: str) -> None:
    """Check that the weights of a transformer are available; a local file is read, nothing is downloaded.

    Args:
        name: timm name or ``NAME=FILE.safetensors``, see ``VisionTransformerBackbone``.

    Raises:
        AdaNATError: if they are not.
    """
    if "=" in name:
        VisionTransformerBackbone(name)
    else:
        require_timm(name, _WHAT, _ADVICE)


def require_efficientnet() -> None:
    """Check that the weights of EfficientNet-Lite0 are installed.

    Raises:
        AdaNATError: if they are not.
    """
    require_weights(_LITE, _EFFICIENTNET, _OTHERS)


def seen_by_efficientnet(image_size: int, resolution: int) -> int:
    """Side in pixels of the images as EfficientNet-Lite0 sees them; see ``EfficientNetBackbone``."""
    return seen_side(image_size, resolution, _TRAINED_AT)


class Backbone(Frozen, ABC):
    """A frozen network, always run without gradients.

    Only the heads on its features learn, and a reward needs no gradient, so none has to reach the images.

    Attributes:
        widths: D of each layer.
        crop_size: side of a square crop in pixels; 0 for a network that takes whole images only.
    """

    widths: tuple[int, ...]
    crop_size: int = 0

    @abstractmethod
    def features(self, images: Tensor, crop: tuple[int, int] | None = None) -> list[Tensor]:
        """Return the (B, D, N) features of each layer; D and N may differ between layers.

        Args:
            images: (B, 3, H, W) in [0, 1].
            crop: row and column of the top left corner of a crop; None for the whole images.
        """


class VisionTransformerBackbone(Backbone):
    """A vision transformer, such as DINO's: the last block of each quarter of its depth, and the embedded patches.

    Source: StyleGAN-T (arXiv 2301.09515), section 3.2, as AdaNAT (arXiv 2409.00342) uses it.
    """

    def __init__(self, name: str = DINO, pretrained: bool = True) -> None:
        """Load the transformer.

        Args:
            name: timm name, or ``NAME=FILE.safetensors`` for local weights.
            pretrained: False for random weights, without a download.

        Raises:
            AdaNATError: if its weights are not available, or it has no class token.
        """
        super().__init__()
        self.model: Any = load_timm(name, _WHAT, _ADVICE, pretrained)
        require(
            getattr(self.model, "cls_token", None) is not None,
            f"Discriminator backbone {name!r} is not a vision transformer with a class token; take one such as {DINO}.",
        )
        self.eval().requires_grad_(False)
        self.crop_size: int = self.model.patch_embed.img_size[0]
        depth = len(self.model.blocks)
        # Blocks 2, 5, 8 and 11 of twelve, from 0.
        self._layers = [depth * (quarter + 1) // _NUM_BLOCK_LAYERS - 1 for quarter in range(_NUM_BLOCK_LAYERS)]
        self.widths = (self.model.embed_dim,) * (_NUM_BLOCK_LAYERS + 1)
        config = self.model.pretrained_cfg
        self.normalize = Normalization(config["mean"], config["std"])

    @torch.no_grad()
    def features(self, images: Tensor, crop: tuple[int, int] | None = None) -> list[Tensor]:
        """Return the (B, D, N) features of the four blocks and, last, of the embedded patches.

        Raises:
            ValueError: if the crop exceeds the images.
        """
        inputs = self.normalize(self._framed(images, crop))
        embedded: list[Tensor] = []
        watch = self.model.blocks[0].register_forward_pre_hook(lambda _, inputs: embedded.append(inputs[0]))
        try:
            layers = self.model.forward_intermediates(
                inputs,
                indices=self._layers,
                return_prefix_tokens=True,
                output_fmt="NLC",
                stop_early=True,
                intermediates_only=True,
            )
        finally:
            watch.remove()
        num_prefix = self.model.num_prefix_tokens
        layers = [*layers, (embedded[0][:, num_prefix:], embedded[0])]
        # The class token is added to each patch.
        return [(patches + prefix[:, :1]).transpose(1, 2) for patches, prefix in layers]

    def _framed(self, images: Tensor, crop: tuple[int, int] | None) -> Tensor:
        """Crop or resize to (B, 3, size, size)."""
        (height, width), size = images.shape[2:], self.crop_size
        if crop is not None:
            row, column = crop
            if not (0 <= row <= height - size and 0 <= column <= width - size):
                raise ValueError(f"A crop of {size} x {size} at {crop} exceeds images of {height} x {width}.")
            return images[:, :, row : row + size, column : column + size]
        if min(height, width) >= size:
            return F.interpolate(images, (size, size), mode="area")
        return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


class ClassifierBackbone(Backbone):
    """All levels of a small classifier of the data's own images, for small images and for work without a download.

    Source: Projected GANs (arXiv 2111.01007), with a network that a laptop can train instead of a large one.
    """

    def __init__(self, network: nn.Module, widths: tuple[int, ...]) -> None:
        """Wrap a trained network, which must not be the one that measures the policy.

        Args:
            network: has a method ``levels(images)`` that returns (B, D, h, w) activations, finest first.
            widths: D of each level.
        """
        super().__init__()
        self.network: Any = network
        self.eval().requires_grad_(False)
        self.widths = widths

    @torch.no_grad()
    def features(self, images: Tensor, crop: tuple[int, int] | None = None) -> list[Tensor]:
        """Return the (B, D, h * w) features of each level, finest first."""
        return [level.flatten(2) for level in self.network.levels(images)]


class EfficientNetBackbone(Backbone):
    """Four levels of an EfficientNet-Lite0 trained on ImageNet, at 1/4 to 1/32 of the resolution that it sees.

    The channels of each level are mixed at random to one width, always by the same numbers. Of the paper's mixing
    across levels nothing is taken: levels stay apart.

    Source: Projected GANs (arXiv 2111.01007), section 3.2.
    """

    widths = (_MIXED_WIDTH,) * len(LEVEL_WIDTHS[1:])

    def __init__(self, resolution: int, pretrained: bool = True) -> None:
        """Load the network.

        Args:
            resolution: side in pixels to which smaller images are enlarged; from 64 on the deepest level has enough
                positions for the heads. Images of more than 224 pixels are reduced to that, or to this.
            pretrained: False for the network without weights, on the meta device, for counting.

        Raises:
            AdaNATError: if the package of its weights is not installed, or damaged.
        """
        super().__init__()
        self.network = EfficientNet(_LITE, _EFFICIENTNET, _OTHERS, pretrained)
        self.resolution = resolution
        generator = torch.Generator().manual_seed(0)
        for level, width in enumerate(LEVEL_WIDTHS[1:]):
            mixing = torch.randn(_MIXED_WIDTH, width, generator=generator, device="cpu") / math.sqrt(width)
            self.register_buffer(f"mixing{level}", mixing, persistent=False)

    @torch.no_grad()
    def features(self, images: Tensor, crop: tuple[int, int] | None = None) -> list[Tensor]:
        """Return the (B, D, h * w) features of each level, finest first."""
        levels = self.network.levels(resized(images, self.resolution, _TRAINED_AT).clamp(0, 1))[1:]
        return [self.get_buffer(f"mixing{index}") @ level.flatten(2) for index, level in enumerate(levels)]
