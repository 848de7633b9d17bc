"""Inception Score and kernel distance: both a mean over parts of the images, with its deviation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from adanat_cli.core.errors import require

SEED = 2020
"""Of the permutations and subsets of torch-fidelity, which AdaNAT's authors use."""


class Score(NamedTuple):
    """A number that was measured on parts of the images.

    Attributes:
        mean: over the parts.
        std: over the parts, of the population; how much parts differ, not how sure the mean is.
    """

    mean: float
    std: float


@torch.no_grad()
def inception_score(logits: Tensor, num_splits: int = 10, seed: int | None = SEED) -> Score:
    """Measure how sure and how varied a classifier's guesses are, over splits: from 1 to C, more is better.

    It is exp of the mean divergence of p(class | image) from p(class) in the split.

    Args:
        logits: (n, C), of Inception without bias where numbers are to be those of the field.
        num_splits: parts, as equal as can be; larger parts give larger scores.
        seed: of the order in which images fall into parts; None keeps the order given, as guided-diffusion's
            evaluator does with parts of 5,000.

    Raises:
        AdaNATError: if there are fewer images than splits, or a value is not finite.

    Source: Salimans et al. 2016 (arXiv 1606.03498), computed as in torch-fidelity.
    """
    require(
        logits.ndim == 2 and 1 <= num_splits <= len(logits),
        f"Logits have the shape {tuple(logits.shape)} and are to be split into {num_splits}; expected (n, C) with at "
        "least one image in a split.",
    )
    _check_finite(logits)
    order = np.arange(len(logits)) if seed is None else _legacy_generator(seed).permutation(len(logits))
    scores = []
    for split in range(num_splits):
        rows = order[split * len(order) // num_splits : (split + 1) * len(order) // num_splits]
        log_p = _double(logits[torch.from_numpy(rows).to(logits.device)]).log_softmax(1)  # (n / splits, C)
        p = log_p.exp()
        # A class that nobody is given has probability 0, and adds nothing.
        divergence = (p * (log_p - p.mean(0, keepdim=True).log())).nan_to_num(0).sum(1)
        scores.append(float(divergence.mean().exp()))
    return Score(float(np.mean(scores)), float(np.std(scores)))


@torch.no_grad()
def kernel_distance(
    real: Tensor, fake: Tensor, num_subsets: int = 100, subset_size: int = 1000, seed: int = SEED
) -> Score:
    """KID: the squared maximum mean discrepancy with the kernel (x·y / D + 1)³, over random subsets.

    It is unbiased, so it does not grow as sets shrink, and can be a little below 0 for sets alike.

    Args:
        real: (n, D).
        fake: (m, D).
        num_subsets: to average over.
        subset_size: images of each kind in a subset; all of the smaller set if that has fewer.
        seed: of the subsets, which are torch-fidelity's with ``fake`` as its first input.

    Raises:
        AdaNATError: if D differs, a value is not finite, or a set has fewer than 2 images.

    Source: Bińkowski et al. 2018 (arXiv 1801.01401), section 4.
    """
    require(
        real.ndim == fake.ndim == 2 and real.shape[1] == fake.shape[1],
        f"Features have the shapes {tuple(real.shape)} and {tuple(fake.shape)}; expected (n, D) and (m, D).",
    )
    size = min(subset_size, len(real), len(fake))
    require(
        size >= 2 and num_subsets >= 1,
        f"A kernel distance of {num_subsets} subsets of {size} images does not exist; expected at least 2 images.",
    )
    _check_finite(real)
    _check_finite(fake)
    generator = _legacy_generator(seed)
    distances = []
    for _ in range(num_subsets):
        x, y = (_double(part[_subset(generator, len(part), size).to(part.device)]) for part in (fake, real))
        distances.append(float(_squared_discrepancy(x, y.to(x.device))))
    return Score(float(np.mean(distances)), float(np.std(distances)))


def _squared_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased estimate from (n, D) and (n, D): pairs of an image with itself are left out."""
    num, width = x.shape
    within = sum(kernel.sum() - kernel.diagonal().sum() for kernel in (_kernel(x, x, width), _kernel(y, y, width)))
    return within / (num * (num - 1)) - 2 * _kernel(x, y, width).mean()


def _kernel(x: Tensor, y: Tensor, width: int) -> Tensor:
    return (x @ y.T / width + 1) ** 3


def _subset(generator: np.random.RandomState, num: int, size: int) -> Tensor:
    return torch.from_numpy(generator.choice(num, size, replace=False))


def _legacy_generator(seed: int) -> np.random.RandomState:
    """NumPy's old generator, whose permutations the published numbers rest on."""
    return np.random.RandomState(seed)


def _double(tensor: Tensor) -> Tensor:
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def _check_finite(values: Tensor) -> None:
    finite = all(bool(part.isfinite().all()) for part in values.split(4096))
    require(finite, "Features or logits hold values that are not finite; check the images and the network.")
