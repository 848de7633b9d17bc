"""The Fréchet distance between Gaussians fitted to features (FID: Heusel et al. 2017, arXiv 1706.08500, equation 6).

All arithmetic is in float64: moments of features with a large mean lose their covariance in float32, and the distance
is a small difference of large traces. Tensors stay on their device, except on one without float64 (mps), whose tensors
are moved to the CPU.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from adanat_cli.core.errors import require
from adanat_cli.core.metrics.checks import as_double, require_finite

_NUMBERS_AT_ONCE = 2**22
_ASYMMETRY = 1e-5
"""Tolerance relative to the largest entry: many published covariances were computed in float32."""


class Gaussian(NamedTuple):
    """A normal distribution.

    Attributes:
        mean: (D,).
        covariance: (D, D), unbiased.
    """

    mean: Tensor
    covariance: Tensor


class Moments:
    """Mean and covariance of features that are added in batches.

    Source: Chan, Golub and LeVeque 1979, the pairwise update, which never subtracts large sums of squares.
    """

    def __init__(self) -> None:
        """Begin without features; the first batch sets width and device."""
        self._num = 0
        self._mean = torch.empty(0, dtype=torch.float64)
        self._scatter = torch.empty(0, 0, dtype=torch.float64)

    @property
    def num(self) -> int:
        """Number of feature vectors added."""
        return self._num

    @property
    def mean(self) -> Tensor:
        """(D,) float64.

        Raises:
            AdaNATError: if no features were added.
        """
        require(self._num >= 1, "Moments of 0 images have no mean; add features first.")
        return self._mean

    @property
    def covariance(self) -> Tensor:
        """(D, D) float64, unbiased.

        Raises:
            AdaNATError: if fewer than 2 feature vectors were added.
        """
        require(self._num >= 2, f"A covariance needs at least 2 images, and got {self._num}; add features first.")
        return self._scatter / (self._num - 1)

    def gaussian(self) -> Gaussian:
        """Return mean and covariance."""
        return Gaussian(self.mean, self.covariance)

    @torch.no_grad()
    def add(self, features: Tensor) -> None:
        """Add a batch of features, which may be empty.

        Args:
            features: (B, D), of any floating-point type.

        Raises:
            AdaNATError: if a value is not finite, or D differs from that of earlier batches.
        """
        require(features.ndim == 2, f"Features have the shape {tuple(features.shape)}; expected (B, D).")
        require_finite(features)
        if len(features):
            batch = as_double(features)
            mean = batch.mean(0)
            centered = batch - mean
            self._combine(len(batch), mean, centered.T @ centered)

    @torch.no_grad()
    def to_tensor(self) -> Tensor:
        """Return number, mean and sum of centred outer products, (1 + D + D * D,) float64, for other processes."""
        return torch.cat([self._mean.new_tensor([self._num]), self._mean, self._scatter.flatten()])

    def merge(self, values: Tensor) -> None:
        """Add the features of other moments.

        Args:
            values: (1 + D + D * D,), from their ``to_tensor``.
        """
        num, width = int(values[0]), int(len(values) ** 0.5)
        if num:
            mean, scatter = values[1:].split([width, width * width])
            self._combine(num, mean, scatter.view(width, width))

    def _combine(self, num: int, mean: Tensor, scatter: Tensor) -> None:
        """Add ``num`` vectors with mean (D,) and sum of centred outer products ``scatter`` (D, D)."""
        if not self._num:
            self._num, self._mean, self._scatter = num, mean.clone(), scatter.clone()
            return
        _require_width(len(mean), len(self._mean))
        total = self._num + num
        delta = mean.to(self._mean.device) - self._mean
        self._mean = self._mean + delta * (num / total)
        self._scatter = self._scatter + scatter.to(delta.device) + torch.outer(delta, delta) * (self._num * num / total)
        self._num = total


class FrechetReference:
    """A Gaussian with the square root of its covariance, for many distances to it.

    Attributes:
        mean: (D,) float64.
        covariance: (D, D) float64.
        root: (D, D) float64, symmetric square root of the covariance.
        trace: scalar, trace of the covariance.
    """

    @torch.no_grad()
    def __init__(self, gaussian: Gaussian) -> None:
        """Compute the square root.

        Raises:
            AdaNATError: if mean and covariance differ in D, or are not finite or symmetric.
        """
        self.mean, self.covariance = checked_gaussian(gaussian)
        values, vectors = _eigh(self.covariance)
        # A covariance of fewer samples than D has zero eigenvalues, which rounding makes negative.
        self.root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        self.trace = self.covariance.trace()

    @torch.no_grad()
    def distance(self, other: Gaussian | Tensor) -> float:
        """Return the squared Fréchet distance |m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^1/2), the FID.

        Args:
            other: a Gaussian, or (n, D) features, few enough to be held in float64.

        Raises:
            AdaNATError: if D differs, a value is not finite, or there are fewer than 2 features.

        Source: Dowson and Landau 1982; the trace of the root is computed from the symmetric S1^1/2 S2 S1^1/2.
        """
        if isinstance(other, Tensor):
            return float(frechet_distances(other[None], self))
        mean, covariance = checked_gaussian(other)
        _require_width(len(mean), len(self.mean))
        mean, covariance = mean.to(self.mean.device), covariance.to(self.mean.device)
        product = self.root @ covariance @ self.root
        return float(self._from_parts(mean, covariance.trace(), (product + product.T) / 2))

    def _from_parts(self, mean: Tensor, trace: Tensor, product: Tensor) -> Tensor:
        """Return |m1 - m2|² + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), (...) and never below 0.

        Args:
            mean: (..., D), m2.
            trace: (...), trace of S2.
            product: (..., d, d), symmetric, with the non-zero eigenvalues of S1^1/2 S2 S1^1/2.
        """
        shared = torch.linalg.eigvalsh(product).clamp(min=0).sqrt().sum(-1)
        return ((mean - self.mean).square().sum(-1) + self.trace + trace - 2 * shared).clamp(min=0)


@torch.no_grad()
def frechet_distances(features: Tensor, reference: FrechetReference) -> Tensor:
    """Return the squared Fréchet distance of each group of features to one reference.

    Args:
        features: (G, n, D), n images in each of G groups; n may be smaller than D.
        reference: the Gaussian with which they are compared.

    Returns:
        (G,) float64, on the features' device if it has float64.

    Raises:
        AdaNATError: if D differs, a value is not finite, or n is less than 2.
    """
    require(features.ndim == 3, f"Features have the shape {tuple(features.shape)}; expected (G, n, D).")
    _, num, width = features.shape
    require(num >= 2, f"A Fréchet distance needs at least 2 images in a group, and got {num}; use larger groups.")
    _require_width(width, len(reference.mean))
    require_finite(features)
    at_once = max(1, _NUMBERS_AT_ONCE // (max(num, width) * width))
    distances = [_group_distances(groups, reference) for groups in features.split(at_once)]
    home = torch.device("cpu") if features.device.type == "mps" else features.device
    return torch.cat(distances).to(home)


def checked_gaussian(gaussian: Gaussian) -> Gaussian:
    """Convert to float64 and remove the small asymmetry of a rounded covariance.

    Raises:
        AdaNATError: if mean and covariance differ in D, or are not finite or symmetric.
    """
    mean, covariance = gaussian
    width = mean.shape[0] if mean.ndim else 0
    require(
        mean.ndim == 1 and width >= 1 and covariance.shape == (width, width),
        f"A mean of shape {tuple(mean.shape)} and a covariance of shape {tuple(covariance.shape)} are not compatible; "
        "expected (D,) and (D, D).",
    )
    require_finite(mean, covariance)
    mean, covariance = as_double(mean), as_double(covariance)
    asymmetry, largest = float((covariance - covariance.T).abs().max()), float(covariance.abs().max())
    require(
        asymmetry <= _ASYMMETRY * largest,
        f"The covariance is not symmetric (entries differ by up to {asymmetry:.3g}); check its source.",
    )
    return Gaussian(mean, covariance / 2 + covariance.T / 2)  # half of each, since their sum may overflow


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the (D,) eigenvalues and (D, D) eigenvectors of a symmetric matrix.

    PyTorch's solver (MKL's) does not converge for some covariances of few images and many idle features; NumPy's does.
    """
    try:
        return torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # PyTorch documents it
        values, vectors = np.linalg.eigh(matrix.cpu().numpy())
        return torch.from_numpy(values).to(matrix.device), torch.from_numpy(vectors).to(matrix.device)


def _group_distances(features: Tensor, reference: FrechetReference) -> Tensor:
    """Map (G, n, D) features to (G,) distances, all at once."""
    groups = as_double(features).to(reference.mean.device)
    num, width = groups.shape[1:]
    mean = groups.mean(1)  # (G, D)
    centered = (groups - mean[:, None]) / (num - 1) ** 0.5  # S2 is centered.mT @ centered
    scaled = centered @ reference.root
    # Both products of ``scaled`` with itself, (D, D) and (n, n), have the same non-zero eigenvalues: take the smaller.
    product = scaled @ scaled.mT if num < width else scaled.mT @ scaled
    return reference._from_parts(mean, centered.square().sum((1, 2)), product)


def _require_width(width: int, expected: int) -> None:
    require(
        width == expected,
        f"Features of width {width} cannot be compared with features of width {expected}; use one feature network.",
    )
