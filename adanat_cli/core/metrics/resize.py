"""The protocols' ways of resizing; the differences between them amount to whole points of FID."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def bilinear_tensorflow1(images: Tensor, size: int) -> Tensor:
    """Resize as TensorFlow 1 did inside its Inception graph.

    Output pixel i lies at i · (input size / size), measured from the corner instead of pixel centres, and depends on
    two neighbours along each side only, so that a smaller output skips pixels. The order of operations is TensorFlow's.

    Args:
        images: (B, C, H, W), floats.
        size: height and width of the result in pixels.

    Returns:
        (B, C, size, size).

    Source: ``ResizeBilinear`` with ``align_corners=False`` and without half-pixel centres.
    """
    across = _interpolated(images, size, dim=3)
    return _interpolated(across, size, dim=2)


def bilinear_torch(images: Tensor, size: int) -> Tensor:
    """Resize from pixel centres without antialiasing, PyTorch's default; shapes as above."""
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=False)


def _interpolated(images: Tensor, size: int, dim: int) -> Tensor:
    """Resize (B, C, H, W) along one dimension."""
    length = images.shape[dim]
    scale = torch.tensor(length / size, dtype=torch.float32)
    position = torch.arange(size, dtype=torch.float32) * scale
    low = position.long()
    weight = (position - low).to(images).view(-1, *[1] * (images.ndim - 1 - dim))
    before = images.index_select(dim, low.to(images.device))
    after = images.index_select(dim, (low + 1).clamp(max=length - 1).to(images.device))
    return before + (after - before) * weight
