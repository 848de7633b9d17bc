"""Pictures of a policy: its samples beside the fixed schedule's, and its values over the steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adanat_cli.core.generation.actions import ACTION_NAMES, Action
from adanat_cli.core.generation.schedules import Schedule
from adanat_cli.core.generation.state import DecodingState
from adanat_cli.jobs.sample.pictures import image_grid, plot_text, save_figure, save_png
from adanat_cli.jobs.sample.sampler import decode_tokens, sample_tokens
from adanat_cli.jobs.train.policy_update import FrozenModel

_COLUMNS, _ROWS = 10, 3


class ActionTrace:
    """Takes part in generation as its ``on_step`` and keeps every sample's four values."""

    def __init__(self) -> None:
        self._values: list[Tensor] = []

    def __call__(self, state: DecodingState, action: Action) -> None:
        """Keep one step's."""
        self._values.append(action.values().cpu())

    def values(self) -> Tensor:
        """(T, B, 4), in the order of ``ACTION_NAMES``."""
        return torch.stack(self._values)


def draw_policy(
    policy: Schedule, fixed: Schedule, model: FrozenModel, seed: int, samples: Path, curves: Path, title: str
) -> Tensor:
    """Draw images of both schedules from the same seeds, and the values of both over the steps.

    Args:
        policy: learned.
        fixed: what it is compared with.
        model: generates.
        seed: of the images.
        samples: PNG of images: rows of the fixed schedule's above rows of the policy's.
        curves: PNG of the values.
        title: over the curves.

    Returns:
        (T, B, 4) values of the policy.
    """
    classes = model.classes[torch.linspace(0, len(model.classes) - 1, min(_COLUMNS, len(model.classes))).round().long()]
    labels = classes.repeat(_ROWS)
    indices, condition = torch.arange(len(labels)), model.context.condition(labels)
    images, traces = [], []
    for schedule in (fixed, policy):
        traces.append(ActionTrace())
        tracer, null = traces[-1], model.context.null
        ids = sample_tokens(model.nat, schedule, condition, seed, indices, tracer, model.precision, null)
        images.append(decode_tokens(model.tokenizer, ids))
    gap = np.full_like(images[0][: len(classes)], 255)
    save_png(samples, image_grid(np.concatenate([images[0], gap, images[1]]), len(classes)))
    draw_curves(curves, traces[1].values(), traces[0].values(), title)
    return traces[1].values()


def draw_curves(path: Path, learned: Tensor, fixed: Tensor, title: str) -> None:
    """Draw the four values over the steps: mean, and the middle 80 % of samples as a band.

    Args:
        path: PNG file.
        learned: (T, B, 4).
        fixed: (T, B, 4), of which the first sample is drawn.
        title: over the plots.
    """
    from matplotlib.figure import Figure  # only pictures need it; a bare Figure leaves pyplot's global state alone

    figure = Figure(figsize=(11, 2.8), layout="constrained")
    steps = np.arange(1, len(learned) + 1)
    for axes, name, values, before in zip(
        figure.subplots(1, len(ACTION_NAMES)), ACTION_NAMES, learned.unbind(-1), fixed.unbind(-1), strict=True
    ):
        # What the last step masks again is never used.
        shown = slice(0, -1 if name.startswith("remask") else None)
        low, high = np.quantile(values.numpy(), (0.1, 0.9), axis=1)
        axes.plot(steps[shown], before[shown, 0], "--", color="0.5", label="fixed")
        axes.plot(steps[shown], values.mean(1)[shown], color="C0", label="learned, mean")
        axes.fill_between(steps[shown], low[shown], high[shown], color="C0", alpha=0.25, label="middle 80 %")
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.set_xticks(steps)
        axes.tick_params(labelsize=7)
    figure.axes[0].legend(fontsize=7)
    figure.suptitle(plot_text(title), fontsize=10)
    save_figure(path, figure, dpi=110)
