"""Generate images from a model and write them, batch by batch."""

from __future__ import annotations

import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adanat_cli.core.checkpoints.files import atomic_path, check_picture, check_writable
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import NATConfig, Precision, tokenizer_config
from adanat_cli.core.config.acting import CLASSES, refuse_idle
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.config.settings import SampleSettings
from adanat_cli.core.errors import require
from adanat_cli.core.generation.schedules import Schedule
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.tokenizer.base import Tokenizer
from adanat_cli.jobs.evaluate.sample_file import OF_PROMPTS
from adanat_cli.jobs.resolve.models import load_nat, load_tokenizer, nat_config, read_config, resolve_model
from adanat_cli.jobs.resolve.schedules import ScheduleChoice, build_schedule, choose_schedule, settle_schedule
from adanat_cli.jobs.runtime.devices import pick_device, sampling_precision
from adanat_cli.jobs.runtime.output_lock import output_held
from adanat_cli.jobs.runtime.reporter import Reporter
from adanat_cli.jobs.sample.conditions import Conditions, make_conditions, read_prompts
from adanat_cli.jobs.sample.pictures import Pixels, image_grid, save_png
from adanat_cli.jobs.sample.sample_folder import NPZ, add_to_record, check_folder, first_free, start_record, writes
from adanat_cli.jobs.sample.sampler import decode_tokens, sample_tokens
from adanat_cli.jobs.sample.trace import Tracer, write_trace

_MAX_GRID, _MAX_COLUMNS, _MAX_TRACED = 100, 16, 8
_LABELS_AT_ONCE, _MAX_LISTED = 2**16, 100_000


@dataclass(frozen=True)
class Sampler:
    """Everything that a batch needs."""

    nat: UViT
    tokenizer: Tokenizer
    schedule: Schedule
    seed: int
    device: torch.device
    precision: torch.dtype
    null: Tensor | None = None

    def __call__(self, condition: Sequence[int] | Tensor, first: int, tracer: Tracer | None) -> Pixels:
        """Return images first, first + 1, ... of the run as (B, H, W, 3) bytes; of labels, or of (B, L, D) states."""
        condition = torch.as_tensor(condition, device=self.device)
        indices = torch.arange(first, first + len(condition), device=self.device)
        ids = sample_tokens(self.nat, self.schedule, condition, self.seed, indices, tracer, self.precision, self.null)
        return decode_tokens(self.tokenizer, ids)


def check_model(folder: ModelFolder, choice: ScheduleChoice) -> NATConfig:
    """Return the NAT's configuration, if images can be made with it in so many steps.

    Raises:
        AdaNATError: if not.
    """
    config = nat_config(folder)
    require(
        choice.num_steps <= config.num_tokens,
        f"--steps is {choice.num_steps}, but images of this model have {config.num_tokens} tokens; expected 1 to "
        f"{config.num_tokens}.",
    )
    return config


def build_sampler(
    folder: ModelFolder,
    choice: ScheduleChoice,
    config: NATConfig,
    seed: int,
    device: torch.device,
    precision: Precision = "auto",
    null: Tensor | None = None,
) -> Sampler:
    """Load what a settled choice of a schedule needs; of a model on the Hub, nothing else is fetched.

    ``null`` are the (L, D) states of the empty prompt, for a text-conditional NAT.

    Raises:
        AdaNATError: if a component is missing, damaged, or does not belong to the others.
    """
    schedule = build_schedule(choice, folder, config.grid, device)
    nat, tokenizer = load_nat(folder, device), load_tokenizer(folder, device)
    return Sampler(nat, tokenizer, schedule, seed, device, sampling_precision(precision, device), null)


def sample(request: SampleRequest, reporter: Reporter) -> dict[str, Any]:
    """Generate images; returns what was written.

    Raises:
        AdaNATError: if the request does not fit the model, or the folder cannot be written.
    """
    settled = _settle(request)
    with output_held(settled.output):
        return _sample(settled, reporter)


def _settle(request: SampleRequest) -> SampleSettings:
    """Read prompts from their file, and fill in where to write and how many images."""
    texts, number = read_prompts(request.prompts, request.prompts_file), request.num_images
    if number is None:
        number = len(texts) if request.prompts_file else SampleSettings.num_images
    given = {field.name: getattr(request, field.name) for field in fields(request)}
    output = request.output or SampleSettings.output
    settled = SampleSettings(**{**given, "prompts": texts, "num_images": number, "output": output})
    return settled if request.output else replace(settled, output=first_free(settled.output, settled))


def _sample(request: SampleSettings, reporter: Reporter) -> dict[str, Any]:
    """Generate the images of a settled request."""
    require(request.num_images >= 1, f"--num-images is {request.num_images}; expected at least 1.")
    require(request.batch_size >= 1, f"--batch-size is {request.batch_size}; expected at least 1.")
    choice = choose_schedule(request.schedule, request.num_steps, request.temperature, request.guidance)
    folder = resolve_model(request.model)
    config = check_model(folder, choice)
    if config.condition == "class":
        refuse_idle(request, f"model {folder.name}, which is conditioned on classes", CLASSES)
    device = pick_device(request.device)
    conditions = make_conditions(
        folder,
        config,
        request.classes,
        request.prompts,
        request.text_encoder,
        request.seed,
        device,
        warn=reporter.warn,
    )
    choice, line = settle_schedule(choice, folder)
    check_writable(request.output)
    stem = partial(_stem, request, conditions)
    check_folder(request, stem)
    _check_room(request, read_config(folder, "tokenizer", tokenizer_config).image_size)
    if request.grid is not None:
        check_picture(request.grid, "--grid")
        require(
            request.grid.resolve().parent != request.output.resolve() or not writes(request, stem, request.grid.name),
            f"--grid {request.grid} is the name of one of the images; choose another, such as grid.png.",
        )
        check_writable(request.grid.parent, "choose another --grid")
    reporter.log(line)
    sampler = build_sampler(folder, choice, config, request.seed, device, request.precision, conditions.null())
    start = time.perf_counter()
    written = _write_images(request, sampler, conditions, f"{choice.kind}, {choice.num_steps} steps", reporter)
    seconds = time.perf_counter() - start
    return {
        "output": str(request.output),
        **written,
        "num_images": request.num_images,
        "model": folder.name,
        **conditions.described(request.num_images),
        "schedule": choice.kind,
        "num_steps": choice.num_steps,
        "seed": request.seed,
        "seconds": round(seconds, 3),
        "images_per_second": round(request.num_images / seconds, 3),
    }


def _write_images(
    request: SampleSettings,
    sampler: Sampler,
    conditions: Conditions,
    schedule: str,
    reporter: Reporter,
) -> dict[str, Any]:
    """Generate and write all batches; returns the paths, of many images the first 100,000: all are in the record."""
    size, total, files = sampler.tokenizer.config.image_size, request.num_images, []
    shown: list[Pixels] = []
    traces: list[str] = []
    start_record(request)
    with (
        _npz_writer(request.output / NPZ, request, size, conditions) as append,
        reporter.task("Sampling", total, "images") as task,
    ):
        for first in range(0, total, request.batch_size):
            indices = range(first, min(first + request.batch_size, total))
            stems = [_stem(request, conditions, index) for index in indices]
            tracer = Tracer(_MAX_TRACED - first) if request.trace and first < _MAX_TRACED else None
            images = sampler(conditions.batch(indices, sampler.device), first, tracer)
            if append is not None:
                append(images)
            else:
                add_to_record(request.output, [f"{stem}.png" for stem in stems])
                for stem, image in zip(stems, images, strict=True):
                    save_png(request.output / f"{stem}.png", image)
                files += [str(request.output / f"{stem}.png") for stem in stems[: max(0, _MAX_LISTED - first)]]
            if first < _MAX_GRID:
                shown.append(images[: _MAX_GRID - first].copy())
            if tracer is not None:
                traces += _write_traces(request, sampler, tracer, conditions, indices, stems, schedule)
            task.advance(len(indices))
    grid = request.grid or request.output / "grid.png"
    add_to_record(request.output, ["grid.png"])
    # Classes and prompts take turns: with as many columns, each has its own.
    columns = conditions.num_asked if 2 <= conditions.num_asked <= _MAX_COLUMNS else 0
    save_png(grid, image_grid(np.concatenate(shown), columns))
    images_at = [str(request.output / NPZ)] if request.image_format == "npz" else files
    return {"files": images_at, "grid": str(grid), "traces": traces}


def _stem(request: SampleSettings, conditions: Conditions, index: int) -> str:
    """The name of image ``index``, without its ending."""
    return f"{index:05d}_{conditions.slug(index)}_seed{request.seed}"


def _write_traces(
    request: SampleSettings,
    sampler: Sampler,
    tracer: Tracer,
    conditions: Conditions,
    indices: Sequence[int],
    stems: Sequence[str],
    schedule: str,
) -> list[str]:
    """Write the traces of one batch."""
    paths = []
    names = [f"{stem}_trace" for stem in stems[: tracer.num_images]]
    add_to_record(request.output, [f"{name}{ending}" for name in names for ending in (".png", ".json")])
    for row, index in enumerate(indices[: tracer.num_images]):
        facts = {"index": index, **conditions.facts(index), "seed": request.seed, "schedule": schedule}
        title = f"{conditions.name(index)}, seed {request.seed}, image {index}: {schedule}"
        paths += write_trace(request.output / names[row], tracer.steps, row, sampler.tokenizer, title, facts)
    return [str(path) for path in paths]


@contextmanager
def _npz_writer(
    path: Path, request: SampleSettings, size: int, conditions: Conditions
) -> Iterator[Callable[[Pixels], None] | None]:
    """Yield a function that appends images to an .npz as guided-diffusion's evaluator reads it; None for PNGs.

    The file holds arr_0 uint8 (n, H, W, 3) and arr_1 int64 (n,), class ids or numbers of prompts; the latter is told by
    a third array, ``of_prompts``. It appears when it is whole; images go to disk as they come.
    """
    if request.image_format != "npz":
        yield None
        return
    total = request.num_images
    add_to_record(path.parent, [path.name])
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": (total, size, size, 3)}
            np.lib.format.write_array_header_1_0(member, header)

            def append(images: Pixels) -> None:
                member.write(np.ascontiguousarray(images).tobytes())

            yield append
        if conditions.null() is not None:
            with archive.open(f"{OF_PROMPTS}.npy", "w") as member:
                np.lib.format.write_array(member, np.array(True))
        with archive.open("arr_1.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, {"descr": "<i8", "fortran_order": False, "shape": (total,)})
            for first in range(0, total, _LABELS_AT_ONCE):
                indices = range(first, min(first + _LABELS_AT_ONCE, total))
                member.write(np.array([conditions.number(index) for index in indices], "<i8").tobytes())


def _check_room(request: SampleSettings, image_size: int) -> None:
    """Find out now, and not after hours, that an .npz does not fit on the disk."""
    size = request.num_images * (3 * image_size**2 + 8)
    free = shutil.disk_usage(request.output).free
    require(
        request.image_format != "npz" or size <= free,
        f"{request.num_images:,} images of {image_size} pixels take {size / 1e9:,.3g} GB, and {request.output} has "
        f"{free / 1e9:,.3g} GB left; ask for fewer (-n), or choose another --output.",
    )
