"""A small discriminator that is trained from scratch, for small images and for work without a download."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class PyramidDiscriminator(nn.Module):
    """Convolutions that halve an image down to 4 x 4, with one conditional logit for each level.

    A level's logit is that of its pooled features alone, plus their inner product with an embedding of the condition.

    Source: projection discriminator (arXiv 1802.05637).
    """

    def __init__(self, image_size: int, num_classes: int = 0, text_width: int = 0, width: int = 64) -> None:
        """Build with fresh weights.

        Args:
            image_size: side of the images in pixels, at least 8.
            num_classes: number of classes if labels are the condition, else 0.
            text_width: width E of the text embedding if it is the condition, else 0.
            width: channels of the first level; the others have twice as many.
        """
        super().__init__()
        num_levels = max(1, (image_size // 4).bit_length() - 1)
        widths = [width, *[2 * width] * num_levels]
        self.stem = spectral_norm(nn.Conv2d(3, width, 3, padding=1))
        self.levels = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(after, after, 3, padding=1)),
                nn.LeakyReLU(0.2),
            )
            for before, after in pairwise(widths)
        )
        self.scores = nn.ModuleList(spectral_norm(nn.Linear(after, 1)) for after in widths[1:])
        self.conditions = nn.ModuleList(
            nn.Embedding(num_classes, after) if num_classes else nn.Linear(text_width, after) for after in widths[1:]
        )

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """Return (B, L) logits, one for each level, higher for real.

        Args:
            images: (B, 3, H, W) in [0, 1].
            condition: (B,) int64 labels, or (B, E) text embeddings.
        """
        x = F.leaky_relu(self.stem(2 * images - 1), 0.2)
        logits = []
        for level, score, embed in zip(self.levels, self.scores, self.conditions, strict=True):
            x = level(x)
            pooled = x.mean((2, 3))  # (B, C)
            logits.append(score(pooled)[:, 0] + (pooled * embed(condition)).sum(-1) / pooled.shape[1] ** 0.5)
        return torch.stack(logits, dim=-1)
