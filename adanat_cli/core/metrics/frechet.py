"""The Fréchet distance between Gaussians fitted to features (FID: Heusel et al. 2017, arXiv 1706.08500).

Everything here is in double precision: moments of float32 features with a large mean lose their covariance in
float32, and the distance is a small difference of large traces. Tensors stay on their device, except on one
without double precision (mps), whose tensors are moved to the CPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from adanat_cli.core.errors import require

_NUMBERS_AT_ONCE = 2**22
_ASYMMETRY = 1e-5
"""Tolerated relative to the largest entry: published covariances were often formed in float32."""


class Gaussian(NamedTuple):
    """A normal distribution.

    Attributes:
        mean: (D,).
        covariance: (D, D), unbiased.
    """

    mean: Tensor
    covariance: Tensor


class Moments:
    """Mean and covariance of features that come in batches.

    Source: the pairwise update of Chan, Golub, LeVeque 1979, which never subtracts large sums of squares.
    """

    def __init__(self) -> None:
        """Begin with no features; the first batch tells their width and device."""
        self._num = 0
        self._mean = torch.empty(0, dtype=torch.float64)
        self._scatter = torch.empty(0, 0, dtype=torch.float64)

    @property
    def num(self) -> int:
        """Feature vectors so far."""
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
        """(D, D) float64, divided by the number less one.

        Raises:
            AdaNATError: if fewer than 2 feature vectors were added.
        """
        require(self._num >= 2, f"A covariance of {self._num} images does not exist; expected at least 2.")
        return self._scatter / (self._num - 1)

    def gaussian(self) -> Gaussian:
        """Both as one."""
        return Gaussian(self.mean, self.covariance)

    @torch.no_grad()
    def add(self, features: Tensor) -> None:
        """Take in a batch; an empty one changes nothing.

        Args:
            features: (B, D), of any floating-point format.

        Raises:
            AdaNATError: if a value is not finite, or D is not that of the earlier batches.
        """
        require(features.ndim == 2, f"Features have the shape {tuple(features.shape)}; expected (B, D).")
        _check_finite(features)
        if len(features):
            batch = _double(features)
            mean = batch.mean(0)
            centered = batch - mean
            self._combine(len(batch), mean, centered.T @ centered)

    @torch.no_grad()
    def to_tensor(self) -> Tensor:
        """Return (1 + D + D * D,) float64: number, mean and sum of centred outer products, for other processes."""
        return torch.cat([self._mean.new_tensor([self._num]), self._mean, self._scatter.flatten()])

    def merge(self, values: Tensor) -> None:
        """Take in what other moments have seen.

        Args:
            values: (1 + D + D * D,), as ``to_tensor`` gives them.
        """
        num, width = int(values[0]), int(len(values) ** 0.5)
        if num:
            mean, scatter = values[1:].split([width, width * width])
            self._combine(num, mean, scatter.view(width, width))

    def _combine(self, num: int, mean: Tensor, scatter: Tensor) -> None:
        """Join with ``num`` vectors of the given mean (D,) and sum of centred outer products (D, D)."""
        if not self._num:
            self._num, self._mean, self._scatter = num, mean.clone(), scatter.clone()
            return
        _check_width(len(mean), len(self._mean))
        total = self._num + num
        delta = mean.to(self._mean.device) - self._mean
        self._mean = self._mean + delta * (num / total)
        self._scatter = self._scatter + scatter.to(delta.device) + torch.outer(delta, delta) * (self._num * num / total)
        self._num = total


class FrechetReference:
    """A Gaussian with the root of its covariance, for many distances to it.

    Attributes:
        mean: (D,) float64.
        covariance: (D, D) float64.
        root: (D, D) float64, the symmetric square root of the covariance.
        trace: scalar, of the covariance.
    """

    @torch.no_grad()
    def __init__(self, gaussian: Gaussian) -> None:
        """Take the root once.

        Raises:
            AdaNATError: if mean and covariance do not belong together, are not finite or not symmetric.
        """
        self.mean, self.covariance = checked_gaussian(gaussian)
        values, vectors = torch.linalg.eigh(self.covariance)
        # A covariance of fewer samples than D has zero eigenvalues, which rounding makes negative.
        self.root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        self.trace = self.covariance.trace()

    @torch.no_grad()
    def distance(self, other: Gaussian | Tensor) -> float:
        """Return the squared Fréchet distance |m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^1/2), the FID.

        Args:
            other: a Gaussian, or (n, D) features, few enough to be held in double precision.

        Raises:
            AdaNATError: if D differs, a value is not finite, or there are fewer than 2 features.

        Source: Dowson and Landau 1982; the trace of the root is taken from the symmetric S1^1/2 S2 S1^1/2.
        """
        if isinstance(other, Tensor):
            return float(frechet_distances(other[None], self))
        mean, covariance = checked_gaussian(other)
        _check_width(len(mean), len(self.mean))
        mean, covariance = mean.to(self.mean.device), covariance.to(self.mean.device)
        product = self.root @ covariance @ self.root
        return float(self._from_parts(mean, covariance.trace(), (product + product.T) / 2))

    def _from_parts(self, mean: Tensor, trace: Tensor, product: Tensor) -> Tensor:
        """|m1 - m2|² + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), never below 0.

        Args:
            mean: (..., D), m2.
            trace: (...), of S2.
            product: (..., d, d), symmetric, with the non-zero eigenvalues of S1^1/2 S2 S1^1/2.
        """
        shared = torch.linalg.eigvalsh(product).clamp(min=0).sqrt().sum(-1)
        return ((mean - self.mean).square().sum(-1) + self.trace + trace - 2 * shared).clamp(min=0)


@torch.no_grad()
def frechet_distances(features: Tensor, reference: FrechetReference) -> Tensor:
    """Return the squared Fréchet distance of every group of features to one reference.

    Args:
        features: (G, n, D), n images in each of G groups; n may be smaller than D.
        reference: what they are compared with.

    Returns:
        (G,) float64, on the features' device where that has float64.

    Raises:
        AdaNATError: if D differs, a value is not finite, or n is less than 2.
    """
    require(features.ndim == 3, f"Features have the shape {tuple(features.shape)}; expected (G, n, D).")
    _, num, width = features.shape
    require(num >= 2, f"A Fréchet distance of {num} images does not exist; expected at least 2 in a group.")
    _check_width(width, len(reference.mean))
    _check_finite(features)
    at_once = max(1, _NUMBERS_AT_ONCE // (max(num, width) * width))
    distances = [_group_distances(groups, reference) for groups in features.split(at_once)]
    home = torch.device("cpu") if features.device.type == "mps" else features.device
    return torch.cat(distances).to(home)


def checked_gaussian(gaussian: Gaussian) -> Gaussian:
    """Widen to float64, with the small asymmetry of a rounded covariance taken out.

    Raises:
        AdaNATError: if mean and covariance do not belong together, are not finite or not symmetric.
    """
    mean, covariance = gaussian
    width = mean.shape[0] if mean.ndim else 0
    require(
        mean.ndim == 1 and width >= 1 and covariance.shape == (width, width),
        f"A mean of shape {tuple(mean.shape)} and a covariance of shape {tuple(covariance.shape)} do not belong "
        "together; expected (D,) and (D, D).",
    )
    _check_finite(mean, covariance)
    mean, covariance = _double(mean), _double(covariance)
    asymmetry, largest = float((covariance - covariance.T).abs().max()), float(covariance.abs().max())
    require(
        asymmetry <= _ASYMMETRY * largest,
        f"The covariance is not symmetric (entries differ by up to {asymmetry:.3g}); check where it came from.",
    )
    return Gaussian(mean, covariance / 2 + covariance.T / 2)  # their sum may be out of the range of numbers


def _group_distances(features: Tensor, reference: FrechetReference) -> Tensor:
    """(G, n, D) to (G,), all at once."""
    groups = _double(features).to(reference.mean.device)
    num, width = groups.shape[1:]
    mean = groups.mean(1)  # (G, D)
    centered = (groups - mean[:, None]) / (num - 1) ** 0.5  # S2 is centered.mT @ centered
    scaled = centered @ reference.root
    # Of scaled's two products with itself, S1^1/2 S2 S1^1/2 and a matrix of images by images, the smaller does:
    # both have the same non-zero eigenvalues.
    product = scaled @ scaled.mT if num < width else scaled.mT @ scaled
    return reference._from_parts(mean, centered.square().sum((1, 2)), product)


def _check_finite(*tensors: Tensor) -> None:
    finite = all(bool(tensor.isfinite().all()) for tensor in tensors)
    require(finite, "Features or their moments hold values that are not finite; check the images and the network.")


def _check_width(width: int, expected: int) -> None:
    require(
        width == expected,
        f"Features of width {width} cannot be compared with features of width {expected}; use one feature network.",
    )


def _double(tensor: Tensor) -> Tensor:
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
