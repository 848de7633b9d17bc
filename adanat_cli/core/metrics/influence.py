"""The influence function of the Fréchet distance: how much each sample contributes to it."""

from __future__ import annotations

import torch
from torch import Tensor

from adanat_cli.core.metrics.frechet import FrechetReference

_RELATIVE_FLOOR = 1e-6


def frechet_influence(features: Tensor, reference: FrechetReference) -> Tensor:
    """Return the derivative of the Fréchet distance with respect to each sample's weight, (n,), with mean 0.

    For samples with mean m and covariance S against the reference's m_r and S_r, a sample at x moves the distance by

        2 (m - m_r) . (x - m) + (x - m)' M (x - m) - tr(M S),   M = I - R (R S R)^(-1/2) R,   R = S_r^(1/2),

    the first-order term of mixing a point mass at x into the distribution. Unlike the distance of a batch, which is
    the same for all its images, it shows which images reduce the distance.

    Args:
        features: (n, D).
        reference: moments of real images.
    """
    x = features.double()
    mean = x.mean(0)
    centred = x - mean
    covariance = centred.T @ centred / max(len(x) - 1, 1)
    root = reference.root.to(x)
    values, vectors = torch.linalg.eigh(root @ covariance @ root)
    # Directions without variance on either side carry no information, and their inverse must stay bounded.
    inverse = values.clamp(min=float(values.max()) * _RELATIVE_FLOOR).rsqrt()
    metric = torch.eye(x.shape[1], dtype=x.dtype, device=x.device) - root @ (vectors * inverse @ vectors.T) @ root
    quadratic = ((centred @ metric) * centred).sum(-1)
    influence = 2 * centred @ (mean - reference.mean.to(x)) + quadratic
    return influence - influence.mean()
