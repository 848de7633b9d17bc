"""Losses of the small autoencoder: reconstruction, patch discriminator and perceptual distance."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from adanat_cli.core.pretrained import Normalization, load_timm


def reconstruction_loss(outputs: Tensor, images: Tensor) -> Tensor:
    """Return the mean absolute plus mean squared error in [-1, 1]; both images are (B, 3, H, W) in [0, 1]."""
    difference = 2 * (outputs.float() - images)
    return difference.abs().mean() + difference.square().mean()


class PatchDiscriminator(nn.Module):
    """A classifier of overlapping patches, with spectral instead of batch normalisation.

    Source: PatchGAN of pix2pix (arXiv 1611.07004), section 3.2.2.
    """

    def __init__(self, image_size: int, width: int = 48) -> None:
        super().__init__()
        # Two halvings where the image is large enough: a patch is about 20 pixels wide.
        halvings = 2 if image_size >= 32 else 1
        layers: list[nn.Module] = []
        before = 3
        for level in range(halvings):
            after = width * 2**level
            layers += [spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
            before = after
        layers += [spectral_norm(nn.Conv2d(before, 2 * before, 3, padding=1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(2 * before, 1, 3, padding=1)))

    def forward(self, images: Tensor) -> Tensor:
        """Return the (B, 1, h, w) logits, higher for real, of (B, 3, H, W) images in [0, 1]."""
        return self.layers(2 * images - 1)


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the scalar hinge loss (Geometric GAN, arXiv 1705.02894) of the logits of both kinds of images."""
    return 0.5 * (F.relu(1 - real_logits.float()).mean() + F.relu(1 + fake_logits.float()).mean())


class PerceptualLoss(nn.Module):
    """Distance of channel-normalised feature maps of a frozen timm backbone.

    Source: LPIPS (arXiv 1801.03924), equation 1, without its linear weights.
    """

    def __init__(self, backbone: str) -> None:
        """Load a timm backbone by its name, or ``name=FILE`` for weights in a local safetensors file.

        Raises:
            AdaNATError: if its weights are not available.
        """
        super().__init__()
        advice = "give a timm name that can be downloaded here, name=FILE.safetensors, or leave the option out"
        network = load_timm(backbone, "Perceptual backbone", advice, features_only=True)
        self.backbone = network.eval().requires_grad_(False)
        config = self.backbone.pretrained_cfg
        self.normalize = Normalization(config["mean"], config["std"])

    def forward(self, outputs: Tensor, images: Tensor) -> Tensor:
        """Return the scalar distance of two batches of (B, 3, H, W) images in [0, 1]."""
        pairs = zip(self._features(outputs), self._features(images), strict=True)
        return sum(((a - b).square().sum(1).mean() for a, b in pairs), start=outputs.new_zeros(()))

    def _features(self, images: Tensor) -> list[Tensor]:
        return [F.normalize(level.float(), dim=1) for level in self.backbone(self.normalize(images))]
