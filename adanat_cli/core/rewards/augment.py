"""Differentiable augmentation of a discriminator's input, the same for real and generated images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from adanat_cli.core.errors import require

_Augmentation = Callable[[Tensor, torch.Generator], Tensor]
_MAX_SHIFT = 1 / 8
_CUTOUT = 1 / 2
# The paper fills with zeros in [-1, 1], which is this grey in [0, 1].
_GREY = 0.5


def differentiable_augment(
    images: Tensor, generator: torch.Generator, policy: str = "color,translation,cutout"
) -> Tensor:
    """Augment each sample at random.

    Both real and generated images must be augmented, or the discriminator learns to recognise the augmentation.

    Args:
        images: (B, 3, H, W) in [0, 1].
        generator: on any device; the augmentation depends on its state, not on the images' device.
        policy: comma-separated names out of color, translation and cutout, applied in order; "" for none.

    Returns:
        (B, 3, H, W); values may leave [0, 1] slightly, since clamping would stop gradients.

    Raises:
        AdaNATError: if the policy has another name.

    Source: DiffAugment (arXiv 2006.10738), the policies Color, Translation and Cutout.
    """
    names = [name.strip() for name in policy.split(",")] if policy else []
    for name in names:
        require(
            name in _AUGMENTATIONS,
            f"Augmentation {name!r} is not known; expected some of {', '.join(_AUGMENTATIONS)}, separated by commas.",
        )
        images = _AUGMENTATIONS[name](images, generator)
    return images


def _color(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift brightness by up to 0.25, scale saturation by 0 to 2 and contrast by 0.5 to 1.5."""
    brightness, saturation, contrast = _uniform(3, images, generator)[..., None, None, None]  # each (B, 1, 1, 1)
    images = images + (brightness - 0.5) / 2
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * 2 * saturation
    average = images.mean((1, 2, 3), keepdim=True)
    return average + (images - average) * (contrast + 0.5)


def _translation(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to an eighth of height and width; the uncovered border is grey."""
    height, width = images.shape[2:]
    down, right = _uniform(2, images, generator)
    rows, rows_inside = _shifted(height, down)
    columns, columns_inside = _shifted(width, right)
    samples = torch.arange(len(images), device=images.device)
    moved = images[samples[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (B, H, W, 3)
    inside = rows_inside[:, None, :, None] & columns_inside[:, None, None, :]
    return torch.where(inside, moved.movedim(-1, 1), _GREY)


def _cutout(images: Tensor, generator: torch.Generator) -> Tensor:
    """Cover a rectangle of half the height and width with grey, centred anywhere in the image."""
    height, width = images.shape[2:]
    row, column = _uniform(2, images, generator)
    rows, columns = _hidden(height, row), _hidden(width, column)
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], _GREY, images)


_AUGMENTATIONS: dict[str, _Augmentation] = {"color": _color, "translation": _translation, "cutout": _cutout}


def _uniform(count: int, images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw (count, B) numbers from [0, 1)."""
    return torch.rand(count, len(images), generator=generator, device=generator.device).to(images.device)


def _shifted(length: int, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, length) clamped indices to read from, and where they were inside before clamping."""
    most = int(length * _MAX_SHIFT + 0.5)
    shift = (draws * (2 * most + 1)).long() - most  # (B,), whole pixels from -most to most
    indices = torch.arange(length, device=draws.device) - shift[:, None]
    return indices.clamp(0, length - 1), (indices >= 0) & (indices < length)


def _hidden(length: int, draws: Tensor) -> Tensor:
    """Return (B, length) bool, True within an interval of half the length, truncated at the ends."""
    extent = int(length * _CUTOUT + 0.5)
    start = (draws * length).long() - extent // 2
    indices = torch.arange(length, device=draws.device)
    return (indices >= start[:, None]) & (indices < start[:, None] + extent)
