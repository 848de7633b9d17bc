"""Losses of the small autoencoder: reconstruction, discriminators and the distance of frozen features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from adanat_cli.core.efficientnet import LEVEL_WIDTHS, EfficientNet, require_weights, resized
from adanat_cli.core.pretrained import Frozen, Normalization, load_timm, require_timm

EFFICIENTNET = "efficientnet"
_NUM_LEVELS = 4
"""Levels of EfficientNet-Lite0: at 1/2, 1/4, 1/8 and 1/16 of the resolution."""
_NEGATIVE_SLOPE, _LEAST_WIDTH = 0.2, 32
_WHAT = "Perceptual backbone"
_ADVICE = "give a timm name that can be downloaded here, name=FILE.safetensors, efficientnet, or leave the option out"
_WITHOUT = "use --discriminator patch without --perceptual-backbone efficientnet"


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
            layers += [spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(_NEGATIVE_SLOPE)]
            before = after
        layers += [spectral_norm(nn.Conv2d(before, 2 * before, 3, padding=1)), nn.LeakyReLU(_NEGATIVE_SLOPE)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(2 * before, 1, 3, padding=1)))

    def forward(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Return the (B, 1, h, w) logits, higher for real, of (B, 3, H, W) images in [0, 1]; both in lists of one."""
        (images,) = views
        return [self.layers(2 * images - 1)]


class LevelHeads(nn.Module):
    """The learning part of a projected discriminator: one small classifier of positions for each level of features.

    Source: Projected GAN (arXiv 2111.01007), section 3, without its random projections.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        """Initialise from PyTorch's global generator; ``widths`` are the D of the levels."""
        super().__init__()
        self.heads = nn.ModuleList(_head(width, max(width, _LEAST_WIDTH)) for width in widths)

    def forward(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Return the (B, 1, h, w) logits, higher for real, of the (B, D, h, w) features of each level."""
        return [head(view) for head, view in zip(self.heads, views, strict=True)]


class LevelsAndPatches(nn.Module):
    """Heads on levels of features, and a classifier of patches of the images themselves.

    Without the patches, the decoder leaves a fine grid in all images: a network of features hardly sees one.
    """

    def __init__(self, widths: Sequence[int], image_size: int) -> None:
        """Initialise from PyTorch's global generator; ``widths`` are the D of the levels."""
        super().__init__()
        self.levels, self.patches = LevelHeads(widths), PatchDiscriminator(image_size)

    def forward(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Return the (B, 1, h, w) logits of the (B, D, h, w) features of each level and, last, of the images."""
        return [*self.levels(views[:-1]), *self.patches(views[-1:])]


def _head(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        spectral_norm(nn.Conv2d(width, hidden, 1)),
        nn.LeakyReLU(_NEGATIVE_SLOPE),
        spectral_norm(nn.Conv2d(hidden, hidden, 3, padding=1)),
        nn.LeakyReLU(_NEGATIVE_SLOPE),
        spectral_norm(nn.Conv2d(hidden, 1, 1)),
    )


def discriminator_loss(real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Tensor:
    """Return the scalar hinge loss (Geometric GAN, arXiv 1705.02894) of the logits of both kinds of images."""
    real = mean_over_views(lambda logits: F.relu(1 - logits), real_logits)
    return 0.5 * (real + mean_over_views(lambda logits: F.relu(1 + logits), fake_logits))


def adversarial_loss(fake_logits: Sequence[Tensor]) -> Tensor:
    """Return what the autoencoder minimises: the negative mean logit of its images."""
    return mean_over_views(torch.neg, fake_logits)


def mean_over_views(function: Callable[[Tensor], Tensor], logits: Sequence[Tensor]) -> Tensor:
    """Return the mean of a function of float32 logits of several views of a batch.

    The last view, the images themselves, counts as much as all levels of features before it, which count the same
    however fine they are.
    """
    *levels, images = [function(view.float()).mean() for view in logits]
    return 0.5 * (torch.stack(levels).mean() + images) if levels else images


class EfficientNetLevels(Frozen):
    """Four levels of EfficientNet-Lite0, whose gradients reach the images.

    Attributes:
        widths: D of each level, finest first.
    """

    widths = LEVEL_WIDTHS[:_NUM_LEVELS]

    def __init__(self, size: int) -> None:
        """Load the network.

        Args:
            size: side in pixels to which smaller images are enlarged, bicubically; at least 32.

        Raises:
            AdaNATError: if its package is not installed.
        """
        super().__init__()
        self._size = size
        self.network = EfficientNet("lite0", "A loss on EfficientNet", _WITHOUT)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the (B, D, h, w) activations of (B, 3, H, W) images, nominally in [0, 1]."""
        return self.network.levels(resized(images.float(), self._size), _NUM_LEVELS)


class TimmLevels(Frozen):
    """All levels of a frozen timm backbone, whose gradients reach the images."""

    def __init__(self, backbone: str) -> None:
        """Load a timm backbone by its name, or ``name=FILE`` for weights in a local safetensors file.

        Raises:
            AdaNATError: if its weights are not available.
        """
        super().__init__()
        self.backbone = load_timm(backbone, _WHAT, _ADVICE, features_only=True).eval().requires_grad_(False)
        config = self.backbone.pretrained_cfg
        self.normalize = Normalization(config["mean"], config["std"])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the (B, D, h, w) activations of (B, 3, H, W) images, nominally in [0, 1]."""
        return list(self.backbone(self.normalize(images)))


def require_backbones(*names: str) -> None:
    """Check that the weights of frozen networks are available; downloads nothing.

    Args:
        names: efficientnet, or what ``TimmLevels`` takes.

    Raises:
        AdaNATError: if they are not.
    """
    for name in names:
        if name == EFFICIENTNET:
            require_weights("lite0", "A loss on EfficientNet", _WITHOUT)
        else:
            require_timm(name, _WHAT, _ADVICE)


def feature_distance(outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Return the scalar distance of channel-normalised (B, D, h, w) features, summed over levels, in float32.

    Source: LPIPS (arXiv 1801.03924), equation 1, without its linear weights.
    """
    pairs = [
        (F.normalize(a.float(), dim=1), F.normalize(b.float(), dim=1)) for a, b in zip(outputs, targets, strict=True)
    ]
    return torch.stack([(a - b).square().sum(1).mean() for a, b in pairs]).sum()
