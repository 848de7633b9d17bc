"""The trace of an image: what every step decided, as a picture, as an animation and as JSON."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adanat_cli.core.checkpoints.files import atomic_path, write_json
from adanat_cli.core.generation.actions import ACTION_NAMES, Action
from adanat_cli.core.generation.state import DecodingState
from adanat_cli.core.generation.step import StepCallback
from adanat_cli.core.tokenizer.base import Tokenizer
from adanat_cli.jobs.runtime.reporter import Task
from adanat_cli.jobs.sample.labelled_grid import enlarge
from adanat_cli.jobs.sample.pictures import Pixels, plot_text, save_figure
from adanat_cli.jobs.sample.sampler import decode_tokens

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRACE_SUFFIXES = (".png", ".gif", ".json")
"""Of the files of a trace."""
_GREY, _DPI = 128, 120
_INCHES_PER_STEP = 1.6
_GENERATION_MS, _SHORTEST_MS, _LONGEST_MS, _IMAGE_MS = 4000, 60, 500, 2000
"""Milliseconds of an animation: all steps together, the least and the most of one, and the finished image."""
_MAX_COLUMNS = 12
"""Steps in the picture, evenly spaced if there are more; the JSON has them all."""


class Trace:
    """An ``on_step`` callback that records on the CPU what every step did to the first n images of a batch."""

    def __init__(self, num_images: int) -> None:
        """Prepare to keep ``num_images`` images."""
        self.num_images = num_images
        self._steps: list[tuple[Tensor, ...]] = []

    def __call__(self, state: DecodingState, action: Action) -> None:
        """Keep what one step did."""
        kept = (action.values(), state.sampled_ids, state.mask)
        self._steps.append(tuple(tensor[: self.num_images].cpu() for tensor in kept))

    def alone(self, row: int) -> Trace:
        """What every step did to one image."""
        one = Trace(1)
        one._steps = [tuple(tensor[row : row + 1] for tensor in step) for step in self._steps]
        return one

    @property
    def actions(self) -> Tensor:
        """(T, n, 4), in the order of ``ACTION_NAMES``."""
        return torch.stack([action for action, _, _ in self._steps])

    @property
    def token_ids(self) -> Tensor:
        """(T, n, N), what a step drew or kept at every position."""
        return torch.stack([ids for _, ids, _ in self._steps])

    @property
    def masks(self) -> Tensor:
        """(T, n, N) bool, True where a step re-masked."""
        return torch.stack([mask for _, _, mask in self._steps])

    def values(self, row: int) -> list[dict[str, Any]]:
        """Return one image's steps as JSON values, with the positions that are masked after each."""
        return [
            {
                "step": number,
                **dict(zip(ACTION_NAMES, map(float, action[row]), strict=True)),
                "num_masked": int(mask[row].sum()),
                "masked_positions": mask[row].nonzero()[:, 0].tolist(),
                "token_ids": token_ids[row].tolist(),
            }
            for number, (action, token_ids, mask) in enumerate(self._steps, start=1)
        ]


def telling(task: Task, num_steps: int, trace: Trace | None) -> StepCallback:
    """An ``on_step`` callback for one batch: shows the step beside a bar, and keeps it in a trace if there is one."""
    numbers = itertools.count(1)

    def on_step(state: DecodingState, action: Action) -> None:
        task.advance(0, step=f"{next(numbers)}/{num_steps}")
        if trace is not None:
            trace(state, action)

    return on_step


def write_trace(
    stem: Path, trace: Trace, row: int, tokenizer: Tokenizer, title: str, facts: dict[str, Any]
) -> list[Path]:
    """Write one image's trace as ``<stem>.png``, ``.gif`` and ``.json``; returns the paths.

    Args:
        stem: path without a suffix.
        trace: recorded steps of the image's batch.
        row: the image's place in the batch.
        tokenizer: decodes the ids.
        title: over the picture.
        facts: go in front of the steps in the JSON.
    """
    picture, animation, numbers = (stem.with_name(f"{stem.name}{suffix}") for suffix in TRACE_SUFFIXES)
    device, grid = next(tokenizer.parameters()).device, tokenizer.config.grid
    images = decode_tokens(tokenizer, trace.token_ids[:, row].to(device))
    masks = trace.masks[:, row].numpy()  # (T, N)
    # What the last step re-masks is never used: its ids are the image.
    masks[-1] = False
    masks = masks.reshape(len(masks), *grid)
    _draw(picture, images, masks, trace.actions[:, row], title)
    _animate(animation, grey_out(images, masks))
    write_json(numbers, {**facts, "grid": list(grid), "steps": trace.values(row)})
    return [picture, animation, numbers]


def grey_out(images: Pixels, masks: np.ndarray[Any, np.dtype[np.bool_]]) -> Pixels:
    """Paint the masked cells of images grey.

    Args:
        images: (T, H, W, 3).
        masks: (T, h, w), True where masked.
    """
    height, width = images.shape[1] // masks.shape[1], images.shape[2] // masks.shape[2]
    cells = masks.repeat(height, axis=1).repeat(width, axis=2)
    return np.where(cells[..., None], np.uint8(_GREY), images)


def _animate(path: Path, decided: Pixels) -> None:
    """Write a GIF that begins with grey, shows what every step has decided, and stays on the image.

    Args:
        path: file.
        decided: (T, H, W, 3), small ones are enlarged.
    """
    start = np.full_like(decided[:1], _GREY)
    first, *others = (Image.fromarray(frame) for frame in enlarge(np.concatenate([start, decided])))
    step = int(np.clip(_GENERATION_MS / len(decided), _SHORTEST_MS, _LONGEST_MS))
    durations = [step] * len(decided) + [_IMAGE_MS]
    with atomic_path(path, durable=False) as temporary:
        first.save(temporary, "GIF", save_all=True, append_images=others, duration=durations, loop=0)


def _draw(path: Path, images: Pixels, masks: np.ndarray[Any, np.dtype[np.bool_]], actions: Tensor, title: str) -> None:
    """Draw a column per step: the decided tokens, the image of all drawn ids, and the four values."""
    from matplotlib.figure import Figure  # only traces need it; a bare Figure leaves pyplot's global state alone

    decided, last = grey_out(images, masks), len(images) - 1
    steps = np.linspace(0, last, min(len(images), _MAX_COLUMNS)).round().astype(int)
    figure = Figure(figsize=(_INCHES_PER_STEP * len(steps) + 0.9, 2 * _INCHES_PER_STEP + 1.5), layout="constrained")
    axes = figure.subplots(2, len(steps), squeeze=False)
    for column, step in enumerate(steps):
        _show(axes[0, column], decided[step], f"step {step + 1}\n{masks[step].sum()} of {masks[step].size} masked")
        _show(axes[1, column], images[step], "")
        axes[1, column].set_xlabel(_caption(actions[step], last=step == last), fontsize=8)
    axes[0, 0].set_ylabel("decided", fontsize=9)
    axes[1, 0].set_ylabel("drawn", fontsize=9)
    figure.suptitle(plot_text(title), fontsize=10)
    _snap(figure, images.shape[1:3])
    save_figure(path, figure, dpi=_DPI)


def _snap(figure: Figure, size: tuple[int, ...]) -> None:
    """Show every pixel of images that are smaller than their axes as a square of a whole number of pixels.

    Args:
        figure: finished, with an image in each of its axes.
        size: height and width of the images.
    """
    figure.set_dpi(_DPI)
    figure.draw_without_rendering()  # lays it out
    figure.set_layout_engine("none")
    for axes in figure.axes:
        box = axes.get_window_extent()
        factor = int(min(box.height / size[0], box.width / size[1]))
        if factor >= 1:
            height, width = factor * size[0], factor * size[1]
            left, bottom = round((box.x0 + box.x1 - width) / 2), round((box.y0 + box.y1 - height) / 2)
            lengths = (left / figure.bbox.width, bottom / figure.bbox.height)
            axes.set_position((*lengths, width / figure.bbox.width, height / figure.bbox.height))


def _show(axes: Axes, image: Pixels, title: str) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=8)


def _caption(action: Tensor, last: bool) -> str:
    """Name the four values under a step; the last step's re-masking ratio and temperature have no effect."""
    ratio, sampling, remasking, guidance = (f"{float(value):.3g}" for value in action)
    if last:
        ratio = remasking = "unused"
    return f"remask ratio {ratio}\nsampling temp. {sampling}\nremask temp. {remasking}\nguidance {guidance}"
