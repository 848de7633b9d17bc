"""Inception Score and kernel distance, which are means over parts of the images; and the PSNR of reconstructions."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from adanat_cli.core.errors import require
from adanat_cli.core.metrics.checks import as_double, require_finite, require_two_sets

SEED = 2020
"""Seed of torch-fidelity's permutations and subsets, which AdaNAT's authors use."""


class Score(NamedTuple):
    """A score that was computed on several parts of the images.

    Attributes:
        mean: mean over the parts.
        std: population standard deviation over the parts, which is not the standard error of the mean.
    """

    mean: float
    std: float


@torch.no_grad()
def inception_score(logits: Tensor, num_splits: int = 10, seed: int | None = SEED) -> Score:
    """Return the Inception Score, from 1 to C, higher for more certain and more diverse predictions.

    In each split it is exp of the mean Kullback-Leibler divergence of p(class | image) from p(class).

    Args:
        logits: (n, C); to compare with published numbers, Inception's without bias.
        num_splits: number of parts of (nearly) equal size; larger parts give larger scores.
        seed: seed of the permutation before the split; None keeps the order, as guided-diffusion's evaluator does
            with parts of 5,000 images.

    Raises:
        AdaNATError: if there are fewer images than splits, or a value is not finite.

    Source: Salimans et al. 2016 (arXiv 1606.03498), section 4, computed as in torch-fidelity.
    """
    require(
        logits.ndim == 2 and 1 <= num_splits <= len(logits),
        f"Logits of shape {tuple(logits.shape)} cannot be split into {num_splits} parts; expected (n, C) with at least "
        "one image in a split.",
    )
    require_finite(logits)
    # NumPy's legacy generator, on whose permutations published numbers depend.
    order = np.arange(len(logits)) if seed is None else np.random.RandomState(seed).permutation(len(logits))
    scores = []
    for split in range(num_splits):
        rows = order[split * len(order) // num_splits : (split + 1) * len(order) // num_splits]
        log_p = as_double(logits[torch.from_numpy(rows).to(logits.device)]).log_softmax(1)  # (n / splits, C)
        p = log_p.exp()
        # A class of probability 0 contributes nothing.
        divergence = (p * (log_p - p.mean(0, keepdim=True).log())).nan_to_num(0).sum(1)
        scores.append(float(divergence.mean().exp()))
    return Score(float(np.mean(scores)), float(np.std(scores)))


@torch.no_grad()
def kernel_distance(
    real: Tensor, fake: Tensor, num_subsets: int = 100, subset_size: int = 1000, seed: int = SEED
) -> Score:
    """Return the KID: the squared maximum mean discrepancy with the kernel (x·y / D + 1)³, over random subsets.

    It is unbiased: it does not depend on the number of images, and may be slightly negative for similar sets.

    Args:
        real: (n, D), features of real images.
        fake: (m, D), features of generated images.
        num_subsets: number of subsets to average over.
        subset_size: images of each set in a subset; at most those of the smaller set.
        seed: seed of the subsets, which are those of torch-fidelity with ``fake`` as its first input.

    Raises:
        AdaNATError: if D differs, a value is not finite, or a set has fewer than 2 images.

    Source: Bińkowski et al. 2018 (arXiv 1801.01401), section 4.
    """
    require_two_sets(real, fake)
    size = min(subset_size, len(real), len(fake))
    require(
        size >= 2 and num_subsets >= 1,
        f"A kernel distance cannot use {num_subsets} subsets of {size} images; expected at least one of at least 2 "
        "images.",
    )
    generator = np.random.RandomState(seed)
    distances = []
    for _ in range(1 if size == len(real) == len(fake) else num_subsets):  # all subsets would be the whole sets
        x, y = (as_double(part[_subset(generator, len(part), size).to(part.device)]) for part in (fake, real))
        distances.append(float(_squared_discrepancy(x, y.to(x.device))))
    return Score(float(np.mean(distances)), float(np.std(distances)))


def _squared_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """Return the unbiased estimate from (n, D) and (n, D), without pairs of an image with itself."""
    num, width = x.shape
    within = sum(kernel.sum() - kernel.diagonal().sum() for kernel in (_kernel(x, x, width), _kernel(y, y, width)))
    return within / (num * (num - 1)) - 2 * _kernel(x, y, width).mean()


def _kernel(x: Tensor, y: Tensor, width: int) -> Tensor:
    return (x @ y.T / width + 1) ** 3


def _subset(generator: np.random.RandomState, num: int, size: int) -> Tensor:
    return torch.from_numpy(generator.choice(num, size, replace=False))


def signal_to_noise(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB of values in [0, 1]; infinite without an error."""
    return -10 * math.log10(mean_squared_error) if mean_squared_error else math.inf
