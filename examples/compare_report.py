"""The report of ``compare.py``: tables, commands, and pictures of what each way to choose a schedule does."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from math import prod
from pathlib import Path
from statistics import mean, stdev
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from adanat_cli.core.checkpoints.files import atomic_path, write_json
from adanat_cli.core.generation.actions import ACTION_NAMES
from adanat_cli.core.generation.schedules import Schedule
from adanat_cli.core.generation.search import GRID
from adanat_cli.jobs.resolve.classes import short_name
from adanat_cli.jobs.resolve.models import resolve_model
from adanat_cli.jobs.resolve.schedules import choose_schedule, settle_schedule
from adanat_cli.jobs.runtime.devices import pick_device
from adanat_cli.jobs.sample.conditions import Asked
from adanat_cli.jobs.sample.pictures import Pixels, image_grid, plot_text, save_figure
from adanat_cli.jobs.sample.sampler import Sampler, decode_tokens
from adanat_cli.jobs.sample.trace import Trace, grey_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIXED, TUNED = "default (cosine)", f"tuned, best of {prod(map(len, GRID.values()))}"
STATIC, ADAPTIVE = "static, adversarial", "adaptive, adversarial"
_COLUMNS = 10
_UNUSED = ("remask_ratio", "remask_temperature")
"""Values that have no effect in the last step."""


class Drawing(NamedTuple):
    """What decides an image beside its number: model, ``--schedule``, number of steps and random seed."""

    model: str
    schedule: str
    num_steps: int
    seed: int

    def open(self) -> tuple[Sampler, Schedule, Asked]:
        """Load the networks."""
        sampler = Sampler(resolve_model(self.model), pick_device())
        sampler.load()
        choice, _ = settle_schedule(choose_schedule(self.schedule, self.num_steps), sampler.folder)
        return sampler, sampler.schedule(choice), sampler.conditions((), (), self.seed)

    def save(self, file: Path, num_images: int) -> float:
        """Draw images; keep them with their classes and the values of every step.

        Args:
            file: .npz for ``images`` (n, H, W, 3), ``labels`` (n,) and ``actions`` (T, n, 4).
            num_images: n.

        Returns:
            Seconds for an image, where all are drawn at once.
        """
        sampler, schedule, conditions = self.open()
        sampler.images(schedule, conditions, self.seed, range(2))  # the first call is slower
        trace, start = Trace(num_images), time.perf_counter()
        images = sampler.images(schedule, conditions, self.seed, range(num_images), trace)
        seconds = (time.perf_counter() - start) / num_images
        labels = conditions.numbers(range(num_images)).numpy()
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, images=images, labels=labels, actions=trace.actions.numpy())
        return seconds


@dataclass(frozen=True)
class Measurement:
    """What was measured of a way with one number of steps and one seed.

    Attributes:
        way, steps, seed: what was measured.
        lines: commands that trained and measured it.
        nat, tokenizer: fingerprints of the networks.
        metrics: heading of a column -> value; None where it could not be measured.
        real: the same of the reference's real images, as far as it is known.
        about: what it was measured with: ``num_images``, ``num_real``, ``source`` and ``network``.
        tera_flops: operations of an image in units of 1e12.
        seconds: seconds of an image.
        drawing: what decides the images.
        shown: file with the first of them, see ``Drawing.save``.
    """

    way: str
    steps: int
    seed: int
    lines: list[str]
    nat: str
    tokenizer: str
    metrics: dict[str, float | None]
    real: dict[str, float]
    about: dict[str, Any]
    tera_flops: float
    seconds: float
    drawing: Drawing
    shown: str

    @property
    def identity(self) -> tuple[Any, ...]:
        """What decides the numbers."""
        return self.way, self.steps, self.seed, self.lines, self.nat, self.tokenizer

    @classmethod
    def read(cls, file: Path) -> Measurement | None:
        """Read what an earlier run has measured; None if nothing was."""
        if not file.exists():
            return None
        row = json.loads(file.read_text())
        return cls(**{**row, "drawing": Drawing(*row["drawing"])})

    def write(self, file: Path) -> None:
        """Keep it for later runs."""
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, asdict(self))

    def array(self, name: str) -> np.ndarray[Any, np.dtype[Any]]:
        """Read ``images``, ``labels`` or ``actions`` of the first images."""
        with np.load(self.shown, allow_pickle=False) as arrays:
            return arrays[name]


def write_report(folder: Path, rows: Sequence[Measurement], recognised: str, commands: Sequence[str]) -> None:
    """Write RESULTS.md and its pictures.

    Args:
        folder: where to.
        rows: measurements, in the order of the tables.
        recognised: heading of the column that is drawn beside the distance.
        commands: command line that measures all, and lines that it runs first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {"Mean over the seeds, and a dot for each": "distances.png"}
    draw_bars(folder / "distances.png", rows, ("distance", recognised))
    ways = {row.way for row in rows}
    if {FIXED, ADAPTIVE} <= ways:
        draw_curves(folder / "curves.png", rows)
        pictures["The values over the steps: mean of each seed, and the middle 80 % of its images"] = "curves.png"
    for steps in sorted({row.steps for row in rows}):
        first = [row for row in rows if row.steps == steps and row.seed == rows[0].seed]
        draw_samples(folder / f"samples-{steps}.png", first)
        pictures[f"The same images with {steps} steps: classes and random numbers of a column agree"] = (
            f"samples-{steps}.png"
        )
    if ADAPTIVE in ways:
        row = max((row for row in rows if row.way == ADAPTIVE), key=lambda row: (row.steps, -row.seed))
        pair = farthest_pair(torch.from_numpy(row.array("actions")), torch.from_numpy(row.array("labels")))
        draw_pair(folder / "pair.png", row.drawing, pair)
        pictures["Two images of a class with the most different values"] = "pair.png"
    text = "\n".join(_markdown(rows, pictures, *commands))
    with atomic_path(folder / "RESULTS.md") as temporary:
        temporary.write_text(text)
    print(text)


def _markdown(rows: Sequence[Measurement], pictures: Mapping[str, str], command: str, *prepared: str) -> Iterator[str]:
    """Yield the lines of the report."""
    first, seeds = rows[0], sorted({row.seed for row in rows})
    about = first.about
    grid = "; ".join(f"{name.replace('_', ' ')} x {', '.join(map('{:g}'.format, row))}" for name, row in GRID.items())
    yield from (
        "# Ways to choose a schedule",
        "",
        f"{about['num_images']:,} images of each row and seed against {about['num_real']:,} real images of "
        f"{about['source']}, in the features of {about['network']}; {len(seeds)} seed{'s' * (len(seeds) > 1)}, mean ± "
        "standard deviation. No training used the random numbers of the measured images. Operations are of generating "
        "and decoding an image, a multiply-add counts as 2; seconds are those of the first images, all at once, on "
        f"{machine()}. The tuned schedule is the best of the cosine schedule with these factors: {grid}.",
    )
    for steps in sorted({row.steps for row in rows}):
        yield from ("", f"## {steps} steps", "", *table([row for row in rows if row.steps == steps]))
    yield from ("", "## Pictures")
    for caption, file in pictures.items():
        yield from ("", f"![{caption}]({file})", "", f"*{caption}.*")
    yield from ("", "## Commands", "", "```bash", command, "```", "", "It runs:", "")
    numbers = " ".join(map(str, sorted({row.steps for row in rows})))
    yield from (
        "```bash",
        *(f"adanat {line}" for line in prepared),
        f"for T in {numbers}; do for SEED in {' '.join(map(str, seeds))}; do",
    )
    yield from dict.fromkeys(f"    adanat {line}" for row in rows for line in row.lines)
    yield from ("done; done", "```", "")


def table(rows: Sequence[Measurement]) -> Iterator[str]:
    """Yield the lines of a table in Markdown: means and standard deviations over the seeds, a line for each way."""
    heads = list(rows[0].metrics)
    yield f"| schedule | distance | against default | {' | '.join(heads[1:])} | GFLOPs | seconds |"
    yield "|" + "---|" * (len(heads) + 4)
    default = [row.metrics["distance"] for row in rows if row.way == FIXED]
    for way in dict.fromkeys(row.way for row in rows):
        own = [row for row in rows if row.way == way]
        distance, *others = (_spread([row.metrics[head] for row in own]) for head in heads)
        change = ""
        if default and way != FIXED:
            change = f"{_mean([row.metrics['distance'] for row in own]) / _mean(default) - 1:+.0%}"
        cost = (f"{1000 * mean(row.tera_flops for row in own):.4g}", f"{mean(row.seconds for row in own):.2g}")
        yield f"| {' | '.join((way, distance, change, *others, *cost))} |"
    if real := rows[0].real:
        cells = (f"{real[head]:.3g}" if head in real else "" for head in heads[1:])
        yield f"| real images | | | {' | '.join(cells)} | | |"


def _mean(values: Sequence[float | None]) -> float:
    """Mean of the values that could be measured."""
    return mean(value for value in values if value is not None)


def _spread(values: Sequence[float | None]) -> str:
    """Mean and standard deviation in a cell of a table."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return f"{known[0]:.3g}" if known else "—"
    return f"{mean(known):.3g} ± {stdev(known):.2g}"


def machine() -> str:
    """Kind of the machine, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    num = torch.get_num_threads()
    return (
        f"{num} thread{'s' * (num > 1)} of a CPU ({names[0] if names else platform.machine()}, {os.cpu_count()} cores)"
    )


def draw_bars(path: Path, rows: Sequence[Measurement], heads: tuple[str, ...]) -> None:
    """Draw columns of the table as bars: the mean over the seeds, and a dot for each seed."""
    from matplotlib.figure import Figure

    ways, steps = list(dict.fromkeys(row.way for row in rows)), sorted({row.steps for row in rows})
    figure = Figure(figsize=(1 + 0.9 * len(ways) * len(steps), 3 * len(heads)), layout="constrained")
    panels = figure.subplots(len(heads), len(steps), squeeze=False, sharey="row")
    for (head, num), axes in zip(product(heads, steps), panels.flat, strict=True):
        for place, way in enumerate(ways):
            own = [row.metrics[head] for row in rows if (row.way, row.steps) == (way, num)]
            if values := [value for value in own if value is not None]:
                axes.bar(place, mean(values), color="C0", alpha=0.5)
                axes.plot([place] * len(values), values, "k.")
        if head in rows[0].real:
            axes.axhline(rows[0].real[head], color="0.5", linestyle="--", label="real images")
            axes.legend(fontsize=7)
        axes.set_xticks(range(len(ways)), list(map(_folded, ways)), fontsize=7)
        axes.set_title(f"{head}, {num} steps", fontsize=9)
    save_figure(path, figure, dpi=120)


def draw_curves(path: Path, rows: Sequence[Measurement]) -> None:
    """Draw the values over the steps: for each seed the mean, and the middle 80 % of its images as a band."""
    from matplotlib.figure import Figure

    steps = sorted({row.steps for row in rows})
    figure = Figure(figsize=(11, 2.6 * len(steps)), layout="constrained")
    panels = figure.subplots(len(steps), len(ACTION_NAMES), squeeze=False)
    for num, line in zip(steps, panels, strict=True):
        for way, style in {FIXED: "--C7", TUNED: ":C2", STATIC: "-C1", ADAPTIVE: "-C0"}.items():
            own = [row for row in rows if (row.way, row.steps) == (way, num)]
            for row in own[:1] if way == FIXED else own:  # which does not depend on the seed
                _draw_values(line, row.array("actions"), style, way if row is own[0] else "")
        for name, axes in zip(ACTION_NAMES, line, strict=True):
            _label(axes, f"{name.replace('_', ' ')}, {num} steps", num)
    panels[0, 0].legend(fontsize=7)
    save_figure(path, figure, dpi=110)


def _draw_values(line: Sequence[Axes], actions: np.ndarray[Any, np.dtype[Any]], style: str, label: str) -> None:
    """Draw the (T, n, 4) values of some images, in one plot each: their mean, and the middle 80 % of them."""
    dashes, color = style[:-2], style[-2:]
    low, high = np.quantile(actions, (0.1, 0.9), axis=1)  # (T, 4)
    for column, axes in enumerate(line):
        steps = _used(column, len(actions))
        values = (part[: len(steps), column] for part in (actions.mean(1), low, high))
        axes.plot(steps, next(values), dashes, color=color, label=label or None)
        axes.fill_between(steps, *values, color=color, alpha=0.2, linewidth=0)


def _used(column: int, num_steps: int) -> range:
    """The steps in which a value has an effect, from 1."""
    return range(1, num_steps + (ACTION_NAMES[column] not in _UNUSED))


def _label(axes: Axes, title: str, num_steps: int) -> None:
    axes.set_title(title, fontsize=8)
    axes.set_xlabel("step", fontsize=8)
    axes.set_xticks(range(1, num_steps + 1))
    axes.tick_params(labelsize=7)


def draw_samples(path: Path, rows: Sequence[Measurement]) -> None:
    """Draw the first images of every way; those of a column have class and random numbers in common."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_COLUMNS + 1.6, 1.1 * len(rows) + 0.3), layout="constrained")
    panels = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for row, axes in zip(rows, panels, strict=True):
        axes.imshow(np.asarray(image_grid(row.array("images")[:_COLUMNS], _COLUMNS)), interpolation="nearest")
        axes.set_ylabel(_folded(row.way), rotation=0, ha="right", va="center", fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    names, labels = resolve_model(rows[0].drawing.model).labels(), rows[0].array("labels")[:_COLUMNS].tolist()
    width = rows[0].array("images").shape[2] + 2
    panels[0].xaxis.tick_top()
    panels[0].set_xticks(
        [width * (column + 0.5) for column in range(len(labels))],
        [plot_text(short_name(names.get(label, str(label)))) for label in labels],
        fontsize=7,
    )
    panels[0].tick_params(length=0)
    save_figure(path, figure, dpi=120)


def _folded(way: str) -> str:
    """The name of a way in short lines."""
    return "\n".join(wrap(way, 11))


def farthest_pair(actions: Tensor, labels: Tensor) -> tuple[int, int]:
    """Find two images of one class whose values differ most.

    Args:
        actions: (T, B, 4), values of every step.
        labels: (B,), classes.

    Returns:
        Their numbers. The distance is Euclidean, with each value in units of its range over all steps and images;
        values that have no effect do not count.
    """
    values = actions.clone()
    values[-1, :, [ACTION_NAMES.index(name) for name in _UNUSED]] = 0
    used = actions[:-1] if len(actions) > 1 else actions
    span = used.amax((0, 1)) - used.amin((0, 1))
    rows = (values / span.clamp(min=1e-6)).transpose(0, 1).flatten(1)  # (B, 4 T)
    distances = torch.cdist(rows, rows).masked_fill(labels[:, None] != labels, -1)
    distances.fill_diagonal_(-0.5)  # an image is no pair, but rather that than two classes
    first, second = divmod(int(distances.argmax()), len(labels))
    return first, second


def draw_pair(path: Path, drawing: Drawing, pair: tuple[int, int]) -> None:
    """Draw how two images were generated, step by step, and their values."""
    from matplotlib.figure import Figure

    sampler, schedule, conditions = drawing.open()
    trace = Trace(2)
    sampler.images(schedule, conditions, drawing.seed, pair, trace)
    num, grid, masks = drawing.num_steps, sampler.tokenizer.config.grid, trace.masks.clone()
    masks[-1] = False  # what the last step masks again is never used
    figure = Figure(figsize=(max(9.0, 1.3 * num), 6.2), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(3, 2))[:, 0]
    panels = above.subplots(2, num, squeeze=False)
    for row, index in enumerate(pair):
        images = decode_tokens(sampler.tokenizer, trace.token_ids[:, row].to(sampler.device))
        decided: Pixels = grey_out(images, masks[:, row].reshape(num, *grid).numpy())
        for step, axes in enumerate(panels[row]):
            axes.imshow(decided[step], interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(f"step {step + 1}" if row == 0 else "", fontsize=8)
        panels[row, 0].set_ylabel(f"image {index}", fontsize=9, color=f"C{row}")
    for column, axes in enumerate(below.subplots(1, len(ACTION_NAMES), squeeze=False)[0]):
        shown = _used(column, num)
        for row in range(2):
            axes.plot(shown, trace.actions[: len(shown), row, column], ".-", color=f"C{row}")
        _label(axes, ACTION_NAMES[column].replace("_", " "), num)
    figure.suptitle(plot_text(f"{short_name(conditions.name(pair[0]))}, seed {drawing.seed}"), fontsize=10)
    save_figure(path, figure, dpi=110)
