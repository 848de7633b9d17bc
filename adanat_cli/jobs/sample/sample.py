"""Generate images from a model and write them, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adanat_cli.core.checkpoints.files import check_picture, check_writable
from adanat_cli.core.config import tokenizer_config
from adanat_cli.core.config.acting import CLASSES, refuse_idle
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.config.settings import SampleSettings, settled_as
from adanat_cli.core.errors import require
from adanat_cli.core.generation.schedules import Schedule
from adanat_cli.jobs.resolve.models import read_config, resolve_model
from adanat_cli.jobs.resolve.schedules import ScheduleChoice, choose_schedule, settle_schedule
from adanat_cli.jobs.runtime.devices import pick_device
from adanat_cli.jobs.runtime.output_lock import output_held
from adanat_cli.jobs.runtime.reporter import Reporter
from adanat_cli.jobs.sample.behind import Behind
from adanat_cli.jobs.sample.conditions import Asked, read_prompts, unused_conditions
from adanat_cli.jobs.sample.labelled_grid import labelled_grid
from adanat_cli.jobs.sample.npz import check_room, npz_writer
from adanat_cli.jobs.sample.pictures import Pixels, save_png
from adanat_cli.jobs.sample.sample_folder import (
    NPZ,
    add_to_record,
    check_folder,
    claim_grid,
    first_free,
    is_numbered,
    run_of,
    start_record,
)
from adanat_cli.jobs.sample.sampler import Sampler
from adanat_cli.jobs.sample.trace import TRACE_SUFFIXES, Trace, telling, write_trace

_MAX_GRID, _MAX_COLUMNS, _MAX_TRACED, _MAX_LISTED = 100, 16, 8, 100_000


def sample(request: SampleRequest, reporter: Reporter) -> dict[str, Any]:
    """Generate images; returns what was written.

    Raises:
        AdaNATError: if the request does not fit the model, or the folder cannot be written.
    """
    settled = settle_sample(request)
    with output_held(settled.output):
        return _sample(settled, reporter)


def settle_sample(request: SampleRequest) -> SampleSettings:
    """Read prompts from their file, and fill in where to write and how many images."""
    texts, number = read_prompts(request.prompts, request.prompts_file), request.num_images
    if number is None:
        number = len(texts) if request.prompts_file else SampleSettings.num_images
    output = request.output or SampleSettings.output
    settled = settled_as(SampleSettings, request, prompts=texts, num_images=number, output=output)
    if request.output is None:
        settled = replace(settled, output=first_free(output, run_of(settled), settled.overwrite))
    return settled


def prepared(request: SampleSettings, warn: Callable[[str], None], sampler: Sampler | None = None) -> SampleRun:
    """Check a settled request against its model; no network is loaded yet.

    Args:
        request: what is asked for.
        warn: called with a warning about prompts.
        sampler: the request's model, where it is at hand.

    Raises:
        AdaNATError: if the request does not fit the model.
    """
    require(request.num_images >= 1, f"--num-images is {request.num_images}; expected at least 1.")
    require(request.batch_size >= 1, f"--batch-size is {request.batch_size}; expected at least 1.")
    choice = choose_schedule(
        request.schedule,
        request.num_steps,
        request.sampling_temperature,
        request.remask_temperature,
        request.guidance_scale,
    )
    sampler = sampler or Sampler(
        resolve_model(request.model), pick_device(request.device), request.precision, request.text_encoder
    )
    sampler.check_steps(choice.num_steps)
    if sampler.config.condition == "class":
        refuse_idle(request, f"model {sampler.folder.name}, which is conditioned on classes", CLASSES)
    conditions = sampler.conditions(request.classes, request.prompts, request.seed, warn)
    for unused in unused_conditions(request.classes, request.prompts, request.num_images, "--num-images"):
        warn(unused)
    choice, line = settle_schedule(choice, sampler.folder)
    return SampleRun(request, sampler, conditions, choice, line)


def _sample(request: SampleSettings, reporter: Reporter) -> dict[str, Any]:
    """Generate the images of a settled request."""
    run = prepared(request, reporter.warn)
    run.check_output()
    reporter.log(run.line)
    schedule = run.sampler.schedule(run.choice)
    run.sampler.load()
    if request.compiled:
        run.sampler.compile(reporter.log)
        first = range(min(request.batch_size, request.num_images))
        run.sampler.token_ids(schedule, run.conditions, request.seed, first)  # so that the speed is that of the rest
    start = time.perf_counter()
    written = run.write(schedule, reporter)
    seconds = time.perf_counter() - start
    return {
        "output": str(request.output),
        **written,
        "num_images": request.num_images,
        "model": run.sampler.folder.name,
        **run.conditions.described(request.num_images),
        "schedule": run.choice.kind,
        "num_steps": run.choice.num_steps,
        "seed": request.seed,
        "seconds": round(seconds, 3),
        "images_per_second": round(request.num_images / seconds, 3),
    }


@dataclass(frozen=True)
class SampleRun:
    """One run: what is generated and where it is written.

    Attributes:
        request: settled.
        sampler: its model.
        conditions: what the images are of.
        choice: their schedule.
        line: the schedule in words.
    """

    request: SampleSettings
    sampler: Sampler
    conditions: Asked
    choice: ScheduleChoice
    line: str

    def stem(self, index: int) -> str:
        """The name of image ``index`` without its suffix."""
        return f"{index:05d}_{self.conditions.slug(index)}_seed{self.request.seed}"

    def check_output(self) -> None:
        """Refuse what cannot be written, or would overwrite what is not this run's, before anything is loaded."""
        output, grid = self.request.output, self.request.grid
        check_writable(output)
        check_folder(output, run_of(self.request), self.request.overwrite, self._writes)
        size = read_config(self.sampler.folder, "tokenizer", tokenizer_config).image_size
        if self.request.image_format == "npz":
            check_room(output, self.request.num_images, size)
        if grid is not None:
            check_picture(grid, "--grid")
            require(
                grid.resolve().parent != output.resolve() or not self._writes(grid.name),
                f"--grid {grid} is the name of one of the images; choose another, such as grid.png.",
            )
            check_writable(grid.parent, "choose another --grid")

    def write(self, schedule: Schedule, reporter: Reporter) -> dict[str, Any]:
        """Generate and write all batches; returns their paths, at most 100,000 of images."""
        request, total = self.request, self.request.num_images
        size = self.sampler.tokenizer.config.image_size
        files: list[str] = []
        traces: list[str] = []
        shown: list[Pixels] = []
        start_record(request.output, run_of(request), request.overwrite)
        if as_npz := request.image_format == "npz":
            add_to_record(request.output, [NPZ])
            files.append(str(request.output / NPZ))
        archive = npz_writer(request.output / NPZ, total, size, self.conditions) if as_npz else nullcontext()
        with archive as append, reporter.task("Sampling", total, "images") as task, Behind() as behind:
            for first in range(0, total, request.batch_size):
                indices = range(first, min(first + request.batch_size, total))
                trace = Trace(_MAX_TRACED - first) if request.trace and first < _MAX_TRACED else None
                on_step = telling(task, self.choice.num_steps, trace)
                images = self.sampler.images(schedule, self.conditions, request.seed, indices, on_step)
                if append:
                    behind.do(append, images)
                else:
                    paths = [str(request.output / f"{self.stem(index)}.png") for index in indices]
                    files += paths[: max(0, _MAX_LISTED - first)]
                    behind.do(self.write_pngs, indices, images)
                if first < _MAX_GRID:
                    shown.append(images[: _MAX_GRID - first].copy())
                if trace:
                    behind.wait()  # both add to the record
                    traces += self.write_traces(indices[: trace.num_images], trace)
                task.advance(len(indices))
        return {"files": files, "grid": self.write_grid(np.concatenate(shown)), "traces": traces}

    def _writes(self, name: str) -> bool:
        """Whether this run writes a file of this name."""
        if self.request.image_format == "npz":
            return name == NPZ
        return is_numbered(name, self.request.num_images, self.stem)

    def write_pngs(self, indices: Sequence[int], images: Pixels) -> None:
        """Write the images of a batch."""
        names = [f"{self.stem(index)}.png" for index in indices]
        add_to_record(self.request.output, names)
        for index, name, image in zip(indices, names, images, strict=True):
            save_png(self.request.output / name, image, self._facts(index))

    def _facts(self, index: int) -> dict[str, Any]:
        """What the file of an image says of it: enough to generate it again."""
        return {
            "model": self.sampler.folder.title,
            **self.conditions.facts(index),
            "seed": self.request.seed,
            "index": index,
            "schedule": self.choice.kind,
            "steps": self.choice.num_steps,
        }

    def write_grid(self, images: Pixels) -> str:
        """Write the first images together; a few classes or prompts have a column each."""
        grid = self.request.grid or claim_grid(self.request.output)
        columns = len(self.request.classes) or len(self.request.prompts)
        labels = [self.conditions.name(index) for index in range(len(images))]
        save_png(grid, labelled_grid(images, labels, columns if 2 <= columns <= _MAX_COLUMNS else 0))
        return str(grid)

    def write_traces(self, indices: Sequence[int], trace: Trace) -> list[str]:
        """Write the traces of the first images of a batch."""
        names = [f"{self.stem(index)}_trace" for index in indices]
        add_to_record(self.request.output, [f"{name}{suffix}" for name in names for suffix in TRACE_SUFFIXES])
        seed, schedule = self.request.seed, f"{self.choice.kind}, {self.choice.num_steps} steps"
        paths = []
        for row, (index, name) in enumerate(zip(indices, names, strict=True)):
            facts = {"index": index, **self.conditions.facts(index), "seed": seed, "schedule": schedule}
            title = f"{self.conditions.name(index)}, seed {seed}, image {index}: {schedule}"
            paths += write_trace(self.request.output / name, trace, row, self.sampler.tokenizer, title, facts)
        return [str(path) for path in paths]
