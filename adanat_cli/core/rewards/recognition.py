"""A fixed reward: how surely a classifier of ImageNet takes an image for the class that was asked for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from adanat_cli.core.efficientnet import EfficientNet, Variant, require_weights, resized
from adanat_cli.core.pretrained import Frozen

_LITE: Variant = "lite0"
_WHAT, _OTHERS = "Reward recognition", "use another --reward"
_LEAST, _MOST = 160, 224
"""Pixels of a side between which the network, trained at 224, sees images as they are."""


class RecognitionReward(Frozen):
    """Log-probability of the class that was asked for, under a frozen EfficientNet-Lite0.

    It rewards images that are easy to recognise, and not that they differ from each other: a policy that always draws
    the most typical image of a class is the best one.

    Source: classifier accuracy score (arXiv 1905.10887), as a reward for each image.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        """Load the network.

        Raises:
            AdaNATError: if the package of its weights is not installed, or damaged.
        """
        super().__init__()
        self.network = EfficientNet(_LITE, _WHAT, _OTHERS).to(device)

    @torch.no_grad()
    def score(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return (B,) log-probabilities of (B,) classes of ImageNet-1k for (B, 3, H, W) images in [0, 1]."""
        logits = self.network(resized(images, _LEAST, _MOST).clamp(0, 1)).logits
        return F.log_softmax(logits.float(), dim=1).gather(1, labels[:, None])[:, 0]


def require_recognition() -> None:
    """Check that the weights of the network are installed.

    Raises:
        AdaNATError: if they are not.
    """
    require_weights(_LITE, _WHAT, _OTHERS)
