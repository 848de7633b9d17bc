"""Edit images with a model: draw what a mask, a box or an extension names, and write the results."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from adanat_cli.core.checkpoints.files import check_writable
from adanat_cli.core.config import tokenizer_config
from adanat_cli.core.config.acting import CLASSES, refuse_idle
from adanat_cli.core.config.edit import EditRequest, EditSettings
from adanat_cli.core.config.settings import settled_as
from adanat_cli.core.data.described import plural
from adanat_cli.core.errors import require
from adanat_cli.core.generation.schedules import Schedule
from adanat_cli.core.generation.step import StepCallback
from adanat_cli.jobs.resolve.models import read_config, resolve_model
from adanat_cli.jobs.resolve.schedules import ScheduleChoice, choose_schedule, settle_schedule
from adanat_cli.jobs.runtime.devices import pick_device
from adanat_cli.jobs.runtime.output_lock import output_held
from adanat_cli.jobs.runtime.reporter import Reporter
from adanat_cli.jobs.sample.canvas import Canvas
from adanat_cli.jobs.sample.conditions import Asked, read_prompts, slugged, unused_conditions
from adanat_cli.jobs.sample.edit_files import EditFile, find_files, passed_over
from adanat_cli.jobs.sample.editing import Fitted, draw, drawn_tokens, fit, greyed, paste, paste_full
from adanat_cli.jobs.sample.labelled_grid import labelled_grid
from adanat_cli.jobs.sample.pictures import Pixels, save_png
from adanat_cli.jobs.sample.sample_folder import (
    Run,
    add_to_record,
    check_folder,
    claim_grid,
    class_ids,
    first_free,
    is_numbered,
    model_name,
    start_record,
)
from adanat_cli.jobs.sample.sampler import Sampler
from adanat_cli.jobs.sample.trace import TRACE_SUFFIXES, Trace, telling, write_trace

_MAX_GRID, _MAX_COLUMNS, _MAX_TRACED, _MAX_LISTED = 100, 16, 8, 100_000


def edit(request: EditRequest, reporter: Reporter) -> dict[str, Any]:
    """Edit images; returns what was written.

    Raises:
        AdaNATError: if the request does not fit the images or the model, or the folder cannot be written.
    """
    edits = edits_of(request)
    edits.check_files()
    for line in passed_over(edits.files, request.image):
        reporter.warn(line)
    if request.output is None:
        settled = edits.request
        output = first_free(settled.output, edits.run, settled.overwrite)
        edits = Edits(replace(settled, output=output), edits.files)
    with output_held(edits.request.output):
        return edits.write(reporter)


def edits_of(request: EditRequest, sampler: Sampler | None = None) -> Edits:
    """Settle a request, and find its files.

    Args:
        request: what is asked for.
        sampler: the request's model, where it is at hand.

    Raises:
        AdaNATError: if files are missing, or the request cannot be.
    """
    files = find_files(request)
    texts = read_prompts(request.prompts, None)
    variations = request.variations or len(request.classes) or len(texts) or 1
    output = request.output or EditSettings.output
    settled = settled_as(EditSettings, request, prompts=texts, variations=variations, output=output)
    require(settled.batch_size >= 1, f"--batch-size is {settled.batch_size}; expected at least 1.")
    for path, what in ((settled.image, "images"), (settled.mask, "masks")):
        require(
            path is None or path.is_file() or output.resolve() != path.resolve(),
            f"--output {output} is the folder of the {what}; choose another, so that results are not taken for {what}.",
        )
    return Edits(settled, files, sampler)


@dataclass(frozen=True)
class Edits:
    """One run: every image is edited ``variations`` times, image by image.

    Attributes:
        request: settled.
        files: its images and masks.
        loaded: its model, where that is at hand.
    """

    request: EditSettings
    files: Sequence[EditFile]
    loaded: Sampler | None = None

    @property
    def num_images(self) -> int:
        """Number of results."""
        return len(self.files) * self.request.variations

    @cached_property
    def run(self) -> Run:
        """What the folder's record says of the run."""
        request, irrelevant = self.request, {"image", "mask", "output", "overwrite", "trace", "batch_size", "device"}
        values = {key: value for key, value in vars(request).items() if key not in irrelevant}
        values["classes"] = class_ids(request.model, request.classes)
        values["model"] = model_name(request.model)
        values["files"] = [(file.image.name, file.digest()) for file in self.files]
        digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
        edits = f"{self.num_images} {plural('edit', self.num_images)}"
        words = f"{edits} of {request.image.resolve().name}, seed {request.seed}"
        return Run(digest[:32], self.num_images, words)

    @cached_property
    def sampler(self) -> Sampler:
        """The model."""
        request = self.request
        if self.loaded is not None:
            return self.loaded
        model, device = resolve_model(request.model), pick_device(request.device)
        return Sampler(model, device, request.precision, request.text_encoder)

    def check_files(self) -> None:
        """Open every image and mask before anything is loaded, so that a mistake in the last shows at once."""
        folder, grid = self.sampler.folder, self.sampler.config.grid
        size = read_config(folder, "tokenizer", tokenizer_config).image_size
        for file in self.files:
            drawn_tokens(file.open(self.request), size, grid, str(file.image))

    def prepared(self, warn: Callable[[str], None]) -> EditRun:
        """Check the request against its model; no network is loaded yet.

        Raises:
            AdaNATError: if it does not fit.
        """
        request, sampler = self.request, self.sampler
        choice = choose_schedule(
            request.schedule,
            request.num_steps,
            request.sampling_temperature,
            request.remask_temperature,
            request.guidance_scale,
        )
        sampler.check_steps(choice.num_steps)
        if sampler.config.condition == "class":
            refuse_idle(request, f"model {sampler.folder.name}, which is conditioned on classes", CLASSES)
        for line in unused_conditions(request.classes, request.prompts, request.variations, "--variations"):
            warn(line)
        if request.classes or request.prompts:
            conditions = sampler.conditions(request.classes, request.prompts, request.seed, warn)
        else:
            conditions = sampler.no_conditions()
        choice, line = settle_schedule(choice, sampler.folder)
        return EditRun(self, conditions, choice, line)

    def write(self, reporter: Reporter) -> dict[str, Any]:
        """Check the request, edit the images, and return what was written."""
        request, sampler, run = self.request, self.sampler, self.prepared(reporter.warn)
        check_writable(request.output)
        check_folder(request.output, self.run, request.overwrite, run.writes)
        reporter.log(run.line)
        schedule = sampler.schedule(run.choice)
        sampler.load()
        start = time.perf_counter()
        written = run.write(schedule, reporter)
        seconds = time.perf_counter() - start
        return {
            "output": str(request.output),
            **written,
            "num_images": self.num_images,
            "variations": request.variations,
            "model": sampler.folder.name,
            **run.conditions.described(request.variations),
            "schedule": run.choice.kind,
            "num_steps": run.choice.num_steps,
            "seed": request.seed,
            "seconds": round(seconds, 3),
            "images_per_second": round(self.num_images / seconds, 3),
        }


@dataclass(frozen=True)
class EditRun:
    """Draws the results of a run and writes them.

    Attributes:
        edits: what is drawn.
        conditions: classes or prompts of the variations.
        choice: their schedule.
        line: the schedule in words.
    """

    edits: Edits
    conditions: Asked
    choice: ScheduleChoice
    line: str

    def stem(self, index: int) -> str:
        """The name of result ``index`` without its suffix."""
        request, (file, variation) = self.edits.request, self._place(index)
        words = (slugged(file.image.stem) or "image", self.conditions.slug(variation))
        return f"{index:05d}_{'_'.join(words)}_seed{request.seed}"

    def writes(self, name: str) -> bool:
        """Whether this run writes a file of this name."""
        return is_numbered(name, self.edits.num_images, self.stem)

    def write(self, schedule: Schedule, reporter: Reporter) -> dict[str, Any]:
        """Draw and write all batches; returns their paths, at most 100,000 of results."""
        request, total = self.edits.request, self.edits.num_images
        start_record(request.output, self.edits.run, request.overwrite)
        files: list[str] = []
        traces: list[str] = []
        shown: list[tuple[str, Pixels]] = []
        with reporter.task("Editing", total, "images") as task:
            for first in range(0, total, request.batch_size):
                indices = range(first, min(first + request.batch_size, total))
                trace = Trace(_MAX_TRACED - first) if request.trace and first < _MAX_TRACED else None
                fitted = self.fitted(indices)
                drawn = self._draw(schedule, indices, fitted, telling(task, self.choice.num_steps, trace))
                pictures = (fitted[self._place(index)[0]] for index in indices)
                pasted = [paste(*pair, self.edits.sampler.config.grid) for pair in zip(pictures, drawn, strict=True)]
                files += self.write_results(indices, fitted, drawn, pasted)[: max(0, _MAX_LISTED - first)]
                if first < _MAX_GRID:
                    shown += self.shown(indices, fitted, pasted)
                if trace:
                    traces += self.write_traces(indices[: trace.num_images], fitted, trace)
                task.advance(len(indices))
        return {"files": files, "grid": self.write_grid(shown[:_MAX_GRID]), "traces": traces}

    def _place(self, index: int) -> tuple[EditFile, int]:
        """The image and the number of the variation of a result."""
        number, variation = divmod(index, self.edits.request.variations)
        return self.edits.files[number], variation

    def fitted(self, indices: Sequence[int]) -> dict[EditFile, Fitted]:
        """The images of a batch as the model sees them."""
        return {file: self._fit(file) for file in dict.fromkeys(self._place(index)[0] for index in indices)}

    def _fit(self, file: EditFile) -> Fitted:
        return fit(self.edits.sampler, file.open(self.edits.request), str(file.image))

    def _draw(
        self, schedule: Schedule, indices: Sequence[int], fitted: dict[EditFile, Fitted], on_step: StepCallback
    ) -> Pixels:
        files, variations = zip(*map(self._place, indices), strict=True)
        pictures = [fitted[file] for file in files]
        seed = self.edits.request.seed
        return draw(self.edits.sampler, schedule, self.conditions, seed, pictures, variations, on_step)

    def write_results(
        self, indices: Sequence[int], fitted: dict[EditFile, Fitted], drawn: Pixels, pasted: Sequence[Pixels]
    ) -> list[str]:
        """Write the results of a batch; returns their paths.

        Args:
            indices: (B,) numbers of the results.
            fitted: their images as the model sees them.
            drawn: (B, S, S, 3), what was drawn.
            pasted: (B,) of (S, S, 3), what was drawn in the images.
        """
        request, grid = self.edits.request, self.edits.sampler.config.grid
        names = [f"{self.stem(index)}.png" for index in indices]
        add_to_record(request.output, names)
        opened: dict[EditFile, Canvas] = {}
        for row, (index, name) in enumerate(zip(indices, names, strict=True)):
            file, _ = self._place(index)
            result = pasted[row][fitted[file].window]
            if request.full_size:
                opened = opened if file in opened else {file: file.open(request)}  # one at a time: they may be large
                result = paste_full(opened[file], fitted[file], drawn[row], grid)
            save_png(request.output / name, result, self._png_facts(index))
        return [str(request.output / name) for name in names]

    def _facts(self, index: int) -> dict[str, Any]:
        """What is to be said of a result: which image, variation and condition it is of."""
        file, variation = self._place(index)
        facts = {"index": index, "image": file.image.name, "variation": variation}
        return {**facts, **self.conditions.facts(variation), "seed": self.edits.request.seed}

    def _png_facts(self, index: int) -> dict[str, Any]:
        """What the file of a result says of it."""
        facts = {"model": self.edits.sampler.folder.title, **self._facts(index)}
        facts |= {"schedule": self.choice.kind, "steps": self.choice.num_steps}
        return {key: value for key, value in facts.items() if value is not None}

    def shown(
        self, indices: Sequence[int], fitted: dict[EditFile, Fitted], pasted: Sequence[Pixels]
    ) -> Iterator[tuple[str, Pixels]]:
        """Yield labels and pictures of the grid: every image with grey where it may change, then its results."""
        for index, result in zip(indices, pasted, strict=True):
            file, variation = self._place(index)
            if variation == 0:
                yield file.image.name, greyed(fitted[file])
            yield self.conditions.name(variation), result

    def write_grid(self, shown: Sequence[tuple[str, Pixels]]) -> str:
        """Write the first images and results together, a row for each image unless it has many results."""
        grid, columns = claim_grid(self.edits.request.output), self.edits.request.variations + 1
        labels, pictures = zip(*shown, strict=True)
        save_png(grid, labelled_grid(np.stack(pictures), labels, columns if columns <= _MAX_COLUMNS else 0))
        return str(grid)

    def write_traces(self, indices: Sequence[int], fitted: dict[EditFile, Fitted], trace: Trace) -> list[str]:
        """Write the traces of the first results of a batch."""
        request, sampler = self.edits.request, self.edits.sampler
        names = [f"{self.stem(index)}_trace" for index in indices]
        add_to_record(request.output, [f"{name}{suffix}" for name in names for suffix in TRACE_SUFFIXES])
        schedule = f"{self.choice.kind}, {self.choice.num_steps} steps"
        paths = []
        for row, (index, name) in enumerate(zip(indices, names, strict=True)):
            file, variation = self._place(index)
            drawn = (fitted[file].given == sampler.config.mask_id).nonzero()[:, 0].tolist()
            facts = {**self._facts(index), "schedule": schedule, "drawn_positions": drawn}
            what = ", ".join(filter(None, (file.image.name, self.conditions.name(variation))))
            title = f"{what}, seed {request.seed}, variation {variation}: {schedule}"
            paths += write_trace(request.output / name, trace, row, sampler.tokenizer, title, facts)
        return [str(path) for path in paths]
