"""Pictures of a policy: its samples beside the fixed schedule's, and its values over the steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from adanat_cli.core.generation.actions import ACTION_NAMES
from adanat_cli.core.generation.schedules import Schedule
from adanat_cli.jobs.sample.conditions import Conditions
from adanat_cli.jobs.sample.pictures import image_grid, plot_text, save_figure, save_png
from adanat_cli.jobs.sample.sampler import Sampler
from adanat_cli.jobs.sample.trace import Trace

_COLUMNS, _ROWS = 10, 3


def draw_policy(
    sampler: Sampler,
    conditions: Conditions,
    policy: Schedule,
    fixed: Schedule,
    seed: int,
    samples: Path,
    curves: Path,
    title: str,
) -> None:
    """Draw images of both schedules from the same seeds, and the values of both over the steps.

    Args:
        sampler: the model.
        conditions: a column of images each, evenly spaced over all.
        policy: learned schedule.
        fixed: schedule that it is compared with.
        seed: random seed of the images.
        samples: PNG of images: rows of the fixed schedule's above rows of the policy's.
        curves: PNG of the values.
        title: over the curves.
    """
    columns = min(_COLUMNS, len(conditions.turns))
    shown, indices = conditions.spread(columns), range(columns * _ROWS)
    before, after = Trace(len(indices)), Trace(len(indices))
    above, below = (
        sampler.images(schedule, shown, seed, indices, trace) for schedule, trace in ((fixed, before), (policy, after))
    )
    gap = np.full_like(above[:columns], 255)
    save_png(samples, image_grid(np.concatenate([above, gap, below]), columns))
    draw_curves(curves, after.actions, before.actions, title)


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
        # What the last step re-masks is never used.
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
