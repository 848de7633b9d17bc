"""Masked-token training of the NAT: which tokens are masked."""

from __future__ import annotations

import torch
from torch import Tensor


def masks_from(ratios: Tensor, uniforms: Tensor) -> Tensor:
    """Mask a given fraction of each image's tokens.

    Args:
        ratios: (B,), fraction of N to mask; the count is rounded half to even and at least 1.
        uniforms: (B, N), random numbers whose order selects the tokens.

    Returns:
        (B, N) bool, True where masked.

    Source: AutoNAT (arXiv 2406.05478), the authors' training code.
    """
    num_masked = (ratios * uniforms.shape[1]).round().clamp(min=1)  # (B,)
    return uniforms.argsort(dim=1) < num_masked[:, None]


def sample_masks(num_samples: int, num_tokens: int, alpha: float, beta: float, generator: torch.Generator) -> Tensor:
    """Draw masks whose ratios follow Beta(alpha, beta).

    Returns:
        (B, N) bool, True where masked, on the generator's device.
    """
    shapes = torch.tensor([[alpha], [beta]], dtype=torch.float32, device=generator.device).expand(2, num_samples)
    gammas = torch._standard_gamma(shapes, generator=generator)
    ratios = gammas[0] / gammas.sum(dim=0)  # two Gamma draws make one Beta draw
    uniforms = torch.rand(num_samples, num_tokens, generator=generator, device=generator.device)
    return masks_from(ratios, uniforms)
