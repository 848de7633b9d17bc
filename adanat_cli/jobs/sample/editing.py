"""Draw what is masked of a picture: tokens of the rest are kept, and the result is put back without a seam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adanat_cli.core.errors import require
from adanat_cli.core.generation.inpainting import composite, masked_tokens
from adanat_cli.core.generation.schedules import Schedule
from adanat_cli.core.generation.step import StepCallback
from adanat_cli.jobs.sample.canvas import Canvas, Mask
from adanat_cli.jobs.sample.conditions import Asked
from adanat_cli.jobs.sample.pictures import Pixels
from adanat_cli.jobs.sample.sampler import Sampler, decode_tokens

_WIDEST_SECOND = 8
"""Most pixels of the second blend, whose work grows with their square."""


@dataclass(frozen=True)
class Fitted:
    """A picture as a model sees it.

    Attributes:
        pixels: (S, S, 3).
        mask: (S, S) bool, True where pixels may change.
        given: (N,) int64, the picture's tokens, and the mask id where a patch holds a pixel that may change.
        window: rows and columns that lie on the picture, where the square reaches beyond it; else all.
    """

    pixels: Pixels
    mask: Mask
    given: Tensor
    window: tuple[slice, slice]


def drawn_tokens(canvas: Canvas, size: int, grid: tuple[int, int], name: str) -> tuple[Mask, Tensor]:
    """The (size, size) mask of a canvas on a model's pixels, and (N,) bool, True for tokens that are drawn.

    Raises:
        AdaNATError: if an extension leaves no token of the picture.
    """
    mask = canvas.fit_mask(size)
    drawn = masked_tokens(torch.from_numpy(mask), grid)
    require(
        not (canvas.extended and bool(drawn.all())),
        f"--extend leaves nothing of {name} to keep: on the model's {size} x {size} pixels, it fills no token of "
        f"{size // grid[0]} x {size // grid[1]}; extend it by less.",
    )
    return mask, drawn


@torch.no_grad()
def fit(sampler: Sampler, canvas: Canvas, name: str) -> Fitted:
    """Scale a canvas to a model's size and encode what is kept.

    Raises:
        AdaNATError: if an extension leaves no token of the picture.
    """
    size, device = sampler.tokenizer.config.image_size, sampler.device
    mask, drawn = drawn_tokens(canvas, size, sampler.config.grid, name)
    pixels = canvas.fit(size)
    # One at a time, since convolutions over another number may round differently.
    images = torch.from_numpy(pixels.copy()).to(device).permute(2, 0, 1)[None].float().div(255)
    given = sampler.tokenizer.encode(images)[0].masked_fill(drawn.to(device), sampler.config.mask_id)
    return Fitted(pixels, mask, given, canvas.scaled_inner(size))


def draw(
    sampler: Sampler,
    schedule: Schedule,
    conditions: Asked,
    seed: int,
    pictures: Sequence[Fitted],
    variations: Sequence[int],
    on_step: StepCallback | None = None,
) -> Pixels:
    """Draw variations of fitted pictures.

    Args:
        sampler: the model.
        schedule: fixed schedule or learned policy; its ratios are fractions of the tokens that are drawn.
        conditions: classes or prompts of variations 0, 1, ….
        seed: random seed; variation i depends on (seed, i), its condition and the picture only.
        pictures: B of them, the same one for several variations of it.
        variations: (B,) numbers.
        on_step: called after every step.

    Returns:
        (B, S, S, 3), drawn throughout; ``paste`` and ``paste_full`` keep what is not masked.
    """
    given = torch.stack([picture.given for picture in pictures])
    return decode_tokens(sampler.tokenizer, sampler.token_ids(schedule, conditions, seed, variations, on_step, given))


def paste(fitted: Fitted, drawn: Pixels, grid: tuple[int, int]) -> Pixels:
    """Put the masked part of (S, S, 3) drawn pixels into the fitted picture; the blend is as wide as a patch."""
    return _composite(fitted.pixels, drawn, fitted.mask, len(drawn) // grid[0])


def paste_cut(fitted: Fitted, drawn: Pixels, grid: tuple[int, int]) -> Pixels:
    """``paste``, without what lies beyond the picture where the square does."""
    return paste(fitted, drawn, grid)[fitted.window]


def paste_full(canvas: Canvas, fitted: Fitted, drawn: Pixels, grid: tuple[int, int]) -> Pixels:
    """Put the masked part of (S, S, 3) drawn pixels, scaled, into the picture at its own size (h, w, 3).

    What ``paste`` makes is scaled; there, colours meet already, and a narrow second blend joins the details.
    """
    scaled, width = canvas.enlarge(paste(fitted, drawn, grid)), round(canvas.side / len(drawn))
    result, window = canvas.picture.copy(), canvas.window
    result[window] = _composite(result[window], scaled, canvas.mask[window], min(max(1, width), _WIDEST_SECOND))
    return result


def _composite(original: Pixels, drawn: Pixels, mask: Mask, width: int) -> Pixels:
    """``composite`` on bytes, only where something changes and beside it."""
    rows, columns = mask.nonzero()
    near = tuple(slice(max(0, int(places.min()) - 1), int(places.max()) + 2) for places in (rows, columns))
    before, after = (torch.from_numpy(image[near].copy()).permute(2, 0, 1).float() for image in (original, drawn))
    mixed = composite(before, after, torch.from_numpy(mask[near].copy()), width)
    result = original.copy()
    result[near] = mixed.clamp(0, 255).round().byte().permute(1, 2, 0).numpy()
    return result


def greyed(fitted: Fitted) -> Pixels:
    """The fitted picture with grey where it may change."""
    return np.where(fitted.mask[..., None], np.uint8(128), fitted.pixels)
