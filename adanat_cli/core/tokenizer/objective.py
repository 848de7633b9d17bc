"""The loss of the small autoencoder: reconstruction, commitment, and what frozen networks and a discriminator see."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from adanat_cli.core.config import TokenizerTrainingConfig
from adanat_cli.core.tokenizer.losses import (
    EFFICIENTNET,
    EfficientNetLevels,
    LevelsAndPatches,
    PatchDiscriminator,
    TimmLevels,
    adversarial_loss,
    discriminator_loss,
    feature_distance,
    mean_over_views,
    reconstruction_loss,
)
from adanat_cli.core.tokenizer.vqae import Reconstruction


class Views(NamedTuple):
    """What the losses look at of a batch of images, computed once for all of them.

    Attributes:
        compared: (B, D, h, w) features whose distance is the perceptual loss; empty for none.
        judged: what the discriminator reads: (B, D, h, w) features, if any, and the (B, 3, H, W) images; empty while
            there is none.
    """

    compared: list[Tensor]
    judged: list[Tensor]

    def detached(self) -> Views:
        """The same, cut off from the autoencoder."""
        return Views(*([view.detach() for view in views] for views in self))


class Objective:
    """The terms of the autoencoder's loss, and the discriminator that one of them needs.

    Attributes:
        discriminator: maps what it reads of a batch to a list of (B, 1, h, w) logits, higher for real.
    """

    def __init__(self, config: TokenizerTrainingConfig, image_size: int, device: torch.device) -> None:
        """Draw a discriminator from PyTorch's global generator, and load the frozen networks.

        Raises:
            AdaNATError: if the weights of one are not available.
        """
        self.config = config
        self._projected, names = config.discriminator == EFFICIENTNET, config.backbones
        self._efficientnet = EfficientNetLevels(config.feature_size).to(device) if EFFICIENTNET in names else None
        self._timm = next((TimmLevels(name).to(device) for name in names if name != EFFICIENTNET), None)
        network: nn.Module = (
            LevelsAndPatches(EfficientNetLevels.widths, image_size)
            if self._projected
            else PatchDiscriminator(image_size)
        )
        self.discriminator = network.to(device).to(memory_format=torch.channels_last)

    def views(self, images: Tensor, adversarial: bool) -> Views:
        """Look at a batch; a frozen network that several losses read runs once.

        Args:
            images: (B, 3, H, W), nominally in [0, 1].
            adversarial: whether the discriminator has entered.
        """
        config, levels = self.config, list[Tensor]()
        compares = config.perceptual_backbone == EFFICIENTNET and config.perceptual_weight > 0
        if self._efficientnet is not None and (compares or (adversarial and self._projected)):
            levels = self._efficientnet(images)
        compared = levels if compares else self._timm(images) if self._timm is not None else []
        seen = [*(levels if self._projected else []), images]
        return Views(compared, seen if adversarial else [])

    def loss(self, result: Reconstruction, images: Tensor, outputs: Views, targets: Views) -> tuple[Tensor, Tensor]:
        """Return the autoencoder's scalar loss, and the reconstruction error in it.

        Args:
            result: output of the autoencoder.
            images: (B, 3, H, W) in [0, 1], the real ones.
            outputs: the views of its images, which pass gradients.
            targets: the views of the real ones.
        """
        config = self.config
        reconstruction = reconstruction_loss(result.images, images)
        loss = config.reconstruction_weight * reconstruction
        if not config.freeze_encoder:
            loss = loss + config.commitment_weight * result.commitment
        if outputs.compared:
            loss = loss + config.perceptual_weight * feature_distance(outputs.compared, targets.compared)
        if outputs.judged:
            # Not the distributed wrapper, which would wait for gradients that are switched off here.
            loss = loss + config.adversarial_weight * adversarial_loss(self.discriminator(outputs.judged))
        return loss, reconstruction


def judge(discriminator: nn.Module, outputs: Views, targets: Views) -> Tensor:
    """Return the (2,) loss and accuracy of a discriminator, which may be wrapped for several processes."""
    both = [torch.cat([real, fake]) for real, fake in zip(targets.judged, outputs.judged, strict=True)]
    real_logits, fake_logits = zip(*(logits.chunk(2) for logits in discriminator(both)), strict=True)
    right = mean_over_views(lambda logits: (logits > 0).float(), real_logits)
    right = right + mean_over_views(lambda logits: (logits < 0).float(), fake_logits)
    return torch.stack([discriminator_loss(real_logits, fake_logits), 0.5 * right])
