"""Halton decoding: the order in which tokens are revealed, and how many at each step."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def halton_order(grid: tuple[int, int]) -> Tensor:
    """Return the cells of a grid in the order in which the Halton sequence (bases 2 and 3) first visits them.

    Args:
        grid: (h, w).

    Returns:
        (h * w,) int64 positions, numbered row by row.

    Source: Halton scheduler for MaskGIT (arXiv 2503.17076), the Halton sequence on a grid.
    """
    height, width = grid
    num_points = 4 * height * width
    while True:
        rows, columns = _halton_cells(num_points, 2, height), _halton_cells(num_points, 3, width)
        first_visit = torch.full((height * width,), num_points)
        first_visit.scatter_reduce_(0, rows * width + columns, torch.arange(num_points), reduce="amin")
        if int(first_visit.max()) < num_points:
            return first_visit.argsort()
        num_points *= 2


def num_revealed(num_steps: int, num_tokens: int) -> list[int]:
    """Return how many tokens are decided after each of T steps.

    After step i they are ``N * (1 - arccos((i + 1) / T) / (pi / 2))``, rounded down, but at least i + 1; after the
    last step, all N.
    """
    shares = [1 - math.acos((step + 1) / num_steps) / (math.pi / 2) for step in range(num_steps)]
    return [min(num_tokens, max(step + 1, int(share * num_tokens))) for step, share in enumerate(shares)]


def _halton_cells(num_points: int, base: int, num_cells: int) -> Tensor:
    """Assign points 1, 2, ... of the van der Corput sequence to cells, in integers so that rounding moves none."""
    remaining, reversed_digits, denominator = torch.arange(1, num_points + 1), torch.zeros(num_points).long(), 1
    while denominator <= num_points:
        reversed_digits = reversed_digits * base + remaining % base
        remaining = remaining // base
        denominator *= base
    return reversed_digits * num_cells // denominator
