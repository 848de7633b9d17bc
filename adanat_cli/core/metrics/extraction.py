"""The interface between feature networks and metrics."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class Extraction(NamedTuple):
    """The outputs of a feature network for a batch of images.

    Attributes:
        features: (B, D) float32, pooled: for the Fréchet distance, KID, precision and recall.
        logits: (B, C) float32, for the Inception Score; None where the network has no classes.
        spatial: (B, S) float32, for sFID; None where the network has no such features.
    """

    features: Tensor
    logits: Tensor | None = None
    spatial: Tensor | None = None


class Extractor(Protocol):
    """A feature network with the image preprocessing of its protocol.

    Numbers of two extractors are comparable only if ``protocol``, ``name`` and ``weights_hash`` agree.

    Attributes:
        protocol: "adm", "paper", "clean", "timm", "efficientnet", "efficientnet-lite0" or "small".
        name: name of the network, such as "inception-fid" or "timm/vit_small_patch14_dinov2.lvd142m".
        weights_hash: sha256 of the network's weights, in hexadecimal digits.
        feature_width: D.
    """

    protocol: str
    name: str
    weights_hash: str
    feature_width: int

    def __call__(self, images: Tensor) -> Extraction:
        """Return the features of images.

        Args:
            images: (B, 3, H, W), bytes or floats in [0, 1]; a protocol on bytes rounds floats itself.
        """
        ...


class Pooled(Protocol):
    """A network whose pooled activations distances are measured in."""

    def features(self, images: Tensor) -> Tensor:
        """Return (B, D) features of (B, 3, H, W) images in [0, 1]."""
        ...


class PooledExtractor:
    """The features of an extractor alone."""

    def __init__(self, extractor: Extractor) -> None:
        """Wrap an extractor."""
        self._extractor = extractor

    def features(self, images: Tensor) -> Tensor:
        """Return (B, D) features of (B, 3, H, W) images in [0, 1]."""
        return self._extractor(images).features
