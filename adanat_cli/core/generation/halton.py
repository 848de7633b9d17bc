"""The order and the pace of Halton decoding."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def halton_order(grid: tuple[int, int]) -> Tensor:
    """Return the cells of a grid in the order in which the Halton sequence (bases 2 and 3) first visits them.

    Args:
        grid: (h, w).

    Returns:
        (h * w,) int64 positions, row by row numbering.

    Source: Halton scheduler for MaskGIT (arXiv 2503.17076).
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
    """Return how many tokens are decided after each step: ``N * (1 - arccos((i + 1) / T) / (pi / 2))``, rounded down.

    At least one more each step, and all N at the end.
    """
    shares = [1 - math.acos((step + 1) / num_steps) / (math.pi / 2) for step in range(num_steps)]
    return [min(num_tokens, max(step + 1, int(share * num_tokens))) for step, share in enumerate(shares)]


def _halton_cells(num_points: int, base: int, num_cells: int) -> Tensor:
    """Put points 1, 2, ... of the van der Corput sequence into cells, in whole numbers so that no edge is missed."""
    remaining, reversed_digits, denominator = torch.arange(1, num_points + 1), torch.zeros(num_points).long(), 1
    while denominator <= num_points:
        reversed_digits = reversed_digits * base + remaining % base
        remaining = remaining // base
        denominator *= base
    return reversed_digits * num_cells // denominator
