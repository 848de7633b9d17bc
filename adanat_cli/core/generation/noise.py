"""Randomness of generation as a pure function of (seed, image, step, position)."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

_NUM_BITS = 23
"""Bits of a uniform number: few enough that u * total stays below total in float32, whatever the total."""

_CHOICE, _GUMBEL = 0, 1
_WEYL = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


class Noise(Protocol):
    """The random numbers of a step."""

    def choose(self, logits: Tensor, step: int, masked: tuple[Tensor, Tensor]) -> Tensor:
        """Draw one id (M,) from the softmax of each row of logits (M, K), given its sample and position, (M,) each."""

    def gumbel(self, step: int) -> Tensor:
        """Return (B, N) standard Gumbel noise for the confidence."""


class SeededNoise:
    """Counter-based noise: image i depends on (seed, i) only, whatever batch, device or order it is drawn in."""

    def __init__(self, seed: int, image_indices: Tensor, num_tokens: int) -> None:
        """Prepare the noise of some images.

        Args:
            seed: any integer.
            image_indices: (B,) int64, each image's number within the run; their device is the noise's.
            num_tokens: N.
        """
        positions = torch.arange(num_tokens, device=image_indices.device)
        self._positions = positions * _signed(_WEYL)
        seeded = _mix(torch.tensor(_signed(seed), device=image_indices.device))
        self._keys = _mix(seeded + image_indices * _signed(_WEYL))

    def choose(self, logits: Tensor, step: int, masked: tuple[Tensor, Tensor]) -> Tensor:
        """Draw one id (M,) for each row of logits (M, K); ids of zero probability are never drawn."""
        return draw(logits, self.uniform(step, _CHOICE)[masked])

    def gumbel(self, step: int) -> Tensor:
        """Return (B, N) standard Gumbel noise."""
        return -torch.log(-torch.log(self.uniform(step, _GUMBEL)))

    def uniform(self, step: int, purpose: int) -> Tensor:
        """Return (B, N) float32 numbers in the open interval (0, 1)."""
        keys = _mix(self._keys + _signed((2 * step + purpose) * _WEYL))
        bits = _shift_right(_mix(keys[:, None] + self._positions), 64 - _NUM_BITS)
        return (bits.float() + 0.5) * 2.0**-_NUM_BITS


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draw from a softmax by inverting its cumulative distribution.

    Args:
        logits: (..., K).
        uniform: (...), multiples of 2^-24 in (0, 1).

    Returns:
        (...) int64 ids; never one whose probability is zero (or rounds to zero at 2^-23).
    """
    # Whole numbers that sum to less than 2^24 add up exactly in float32, in whatever order a device
    # takes them: the cumulative sum never falls, and it stands still at ids of zero weight.
    cumulative = logits.softmax(-1).mul_(2.0**_NUM_BITS).round_().cumsum(-1)
    threshold = uniform[..., None] * cumulative[..., -1:]
    return torch.searchsorted(cumulative, threshold, right=True)[..., 0]


def _mix(keys: Tensor) -> Tensor:
    """Hash 64-bit integers: the output function of SplitMix64 (Steele, Lea and Flood, 2014)."""
    mixed = keys + _signed(_WEYL)
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        mixed = (mixed ^ _shift_right(mixed, shift)) * _signed(multiplier)
    return mixed ^ _shift_right(mixed, 31)


def _shift_right(values: Tensor, amount: int) -> Tensor:
    """Shift 64-bit integers and fill with zeros; PyTorch's own shift repeats the sign."""
    return (values >> amount) & ((1 << (64 - amount)) - 1)


def _signed(value: int) -> int:
    """Reduce an integer modulo 2^64 into the range of int64."""
    return (value + 2**63) % 2**64 - 2**63
