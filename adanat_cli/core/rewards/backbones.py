"""Frozen networks whose features a projected discriminator judges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adanat_cli.core.errors import require
from adanat_cli.core.pretrained import Frozen, Normalization, load_timm, require_timm

DINO = "vit_small_patch16_224.dino"
_NUM_BLOCK_LAYERS = 4
_WHAT = "Discriminator backbone"
_ADVICE = (
    "give a local file with --discriminator dino=FILE.safetensors, or take --discriminator classifier or "
    "--discriminator pyramid, which need no download"
)


def require_transformer(name: str) -> None:
    """Find out whether the weights of a transformer can be had; a local file is read, nothing is downloaded.

    Args:
        name: as ``VisionTransformerBackbone`` takes it.

    Raises:
        AdaNATError: if not.
    """
    if "=" in name:
        VisionTransformerBackbone(name)
    else:
        require_timm(name, _WHAT, _ADVICE)


class Backbone(Frozen, ABC):
    """A frozen network, always run without gradients.

    Heads train on its features, for real and generated images alike, and a reward needs no gradient, so none has to
    reach the images.

    Attributes:
        widths: D of every layer.
        crop_size: side of the square that a crop takes, in pixels; 0 for a network that sees whole images only.
    """

    widths: tuple[int, ...]
    crop_size: int = 0

    @abstractmethod
    def features(self, images: Tensor, crop: tuple[int, int] | None = None) -> list[Tensor]:
        """Return (B, D, N) features of every layer; D and N may differ between layers.

        Args:
            images: (B, 3, H, W) in [0, 1].
            crop: corner of the square of ``crop_size`` to look at; None for all.
        """


class VisionTransformerBackbone(Backbone):
    """The position embedding and the last block of every quarter of a vision transformer such as DINO's.

    Source: StyleGAN-T (arXiv 2301.09515), as AdaNAT (arXiv 2409.00342) uses it.
    """

    def __init__(self, name: str = DINO, pretrained: bool = True) -> None:
        """Load the transformer.

        Args:
            name: timm's, or ``NAME=FILE.safetensors`` for local weights.
            pretrained: False leaves the network random, which downloads nothing.

        Raises:
            AdaNATError: if it cannot be had, or has no class token.
        """
        super().__init__()
        self.model: Any = load_timm(name, _WHAT, _ADVICE, pretrained)
        require(
            getattr(self.model, "cls_token", None) is not None,
            f"Discriminator backbone {name!r} is not a vision transformer with a class token; expected one such as "
            f"{DINO}.",
        )
        self.eval().requires_grad_(False)
        self.crop_size: int = self.model.patch_embed.img_size[0]
        depth = len(self.model.blocks)
        # 2, 5, 8 and 11 of twelve.
        self._layers = [depth * (quarter + 1) // _NUM_BLOCK_LAYERS - 1 for quarter in range(_NUM_BLOCK_LAYERS)]
        self.widths = (self.model.embed_dim,) * (_NUM_BLOCK_LAYERS + 1)
        config = self.model.pretrained_cfg
        self.normalize = Normalization(config["mean"], config["std"])

    @torch.no_grad()
    def features(self, images: Tensor, crop: tuple[int, int] | None = None) -> list[Tensor]:
        """Return (B, D, N) of the four blocks and of the position embedding.

        Raises:
            ValueError: if the crop leaves the images.
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
        # What the class token has gathered is added to every patch.
        return [(patches + prefix[:, :1]).transpose(1, 2) for patches, prefix in layers]

    def _framed(self, images: Tensor, crop: tuple[int, int] | None) -> Tensor:
        """Crop or resize to (B, 3, size, size)."""
        (height, width), size = images.shape[2:], self.crop_size
        if crop is not None:
            row, column = crop
            if not (0 <= row <= height - size and 0 <= column <= width - size):
                raise ValueError(f"A crop of {size} at {crop} leaves images of {height} x {width}.")
            return images[:, :, row : row + size, column : column + size]
        if min(height, width) >= size:
            return F.interpolate(images, (size, size), mode="area")
        return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


class ClassifierBackbone(Backbone):
    """Every level of a small classifier of the data's own images, for small images and for work without a download.

    Source: Projected GANs (arXiv 2111.01007), with a network that a laptop trains in the place of a large one.
    """

    def __init__(self, network: nn.Module, widths: tuple[int, ...]) -> None:
        """Take a trained network, which must not be the one that measures.

        Args:
            network: whose ``levels(images)`` are (B, D, h, w), finest first.
            widths: D of every level.
        """
        super().__init__()
        self.network: Any = network
        self.eval().requires_grad_(False)
        self.widths = widths

    @torch.no_grad()
    def features(self, images: Tensor, crop: tuple[int, int] | None = None) -> list[Tensor]:
        """Return (B, D, N) of every level, finest first, one place for each of its pixels."""
        return [level.flatten(2) for level in self.network.levels(images)]
