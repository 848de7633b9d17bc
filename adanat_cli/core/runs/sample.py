"""Generate images from a model and write them, batch by batch."""

from __future__ import annotations

import re
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from adanat_cli.core.checkpoints.files import atomic_path, check_writable
from adanat_cli.core.config import NATConfig, Precision
from adanat_cli.core.errors import require
from adanat_cli.core.generation.schedules import Schedule
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.runs.classes import assign_classes, short_name
from adanat_cli.core.runs.devices import pick_device, sampling_precision
from adanat_cli.core.runs.models import load_nat, load_tokenizer, resolve_model
from adanat_cli.core.runs.pictures import Pixels, image_grid, save_png
from adanat_cli.core.runs.reporter import Reporter
from adanat_cli.core.runs.sampling import decode_tokens, sample_tokens
from adanat_cli.core.runs.schedule_choice import build_schedule, choose_schedule, settle_schedule
from adanat_cli.core.runs.trace import Tracer, write_trace
from adanat_cli.core.tokenizer.base import Tokenizer

_MAX_GRID, _MAX_COLUMNS, _MAX_TRACED = 100, 16, 8


@dataclass(frozen=True)
class SampleRequest:
    """What one run of ``adanat sample`` is asked for.

    Attributes:
        output: folder to write to.
        model: folder or name.
        classes: ids or names, in turn over the images; empty draws evenly from all that the model has seen.
        num_images: in the whole run.
        num_steps: T; None for 8, or what a schedule file says.
        schedule: "learned", "cosine", "halton", "autonat:FILE", "table:FILE"; "" is learned if possible, else cosine.
        temperature: factor on the schedule's re-masking temperature (sampling temperature of "halton").
        guidance: factor on the schedule's guidance scale.
        seed: image i depends on (seed, i) and its class only.
        image_format: "png" writes a file per image, "npz" one ``samples.npz`` with arr_0 and arr_1.
        grid: picture of the first 100 images; None writes ``grid.png`` into the folder.
        trace: whether to write how the first 8 images came about.
        batch_size: images at a time.
    """

    output: Path
    model: str = ""
    classes: tuple[str, ...] = ()
    num_images: int = 16
    num_steps: int | None = None
    schedule: str = ""
    temperature: float | None = None
    guidance: float | None = None
    seed: int = 0
    image_format: Literal["png", "npz"] = "png"
    grid: Path | None = None
    trace: bool = False
    batch_size: int = 64
    device: str = ""
    precision: Precision = "auto"


@dataclass(frozen=True)
class _Sampler:
    """Everything that a batch needs."""

    nat: UViT
    tokenizer: Tokenizer
    schedule: Schedule
    seed: int
    device: torch.device
    precision: torch.dtype

    def __call__(self, labels: Sequence[int], first: int, tracer: Tracer | None) -> Pixels:
        """Return images first, first + 1, ... of the run as (B, H, W, 3) bytes."""
        condition = torch.tensor(labels, device=self.device)
        indices = torch.arange(first, first + len(labels), device=self.device)
        ids = sample_tokens(self.nat, self.schedule, condition, self.seed, indices, tracer, self.precision)
        return decode_tokens(self.tokenizer, ids)


def sample(request: SampleRequest, reporter: Reporter) -> dict[str, Any]:
    """Generate images; returns what was written.

    Raises:
        AdaNATError: if the request does not fit the model, or the folder cannot be written.
    """
    require(request.num_images >= 1, f"--num-images is {request.num_images}; expected at least 1.")
    require(request.batch_size >= 1, f"--batch-size is {request.batch_size}; expected at least 1.")
    choice = choose_schedule(request.schedule, request.num_steps, request.temperature, request.guidance)
    folder = resolve_model(request.model)
    config = NATConfig.from_dict(folder.config("nat"), str(folder.path / "nat" / "config.json"))
    require(
        config.condition == "class",
        f"Model {folder.path} is conditioned on text; `adanat sample` needs one that is conditioned on classes.",
    )
    require(
        choice.num_steps <= config.num_tokens,
        f"--steps is {choice.num_steps}, but images of this model have {config.num_tokens} tokens; expected 1 to "
        f"{config.num_tokens}.",
    )
    names = folder.labels()
    label_of = assign_classes(request.classes, names, config.num_classes, request.seed)
    choice, line = settle_schedule(choice, folder)
    device = pick_device(request.device)
    check_writable(request.output)
    if request.grid is not None:
        require(not request.grid.is_dir(), f"--grid {request.grid} is a folder; expected a file such as grid.png.")
        check_writable(request.grid.parent)
    reporter.log(line)
    schedule = build_schedule(choice, folder, config.grid, device)
    sampler = _Sampler(
        load_nat(folder, device),
        load_tokenizer(folder, device),
        schedule,
        request.seed,
        device,
        sampling_precision(request.precision, device),
    )
    start = time.perf_counter()
    written = _write_images(request, sampler, names, label_of, f"{choice.kind}, {choice.num_steps} steps", reporter)
    seconds = time.perf_counter() - start
    used = sorted({label_of(index) for index in range(request.num_images)})
    return {
        "output": str(request.output),
        **written,
        "num_images": request.num_images,
        "model": str(folder.path),
        "classes": {str(label): names.get(label, "") for label in used},
        "schedule": choice.kind,
        "num_steps": choice.num_steps,
        "seed": request.seed,
        "seconds": round(seconds, 3),
        "images_per_second": round(request.num_images / seconds, 3),
    }


def _write_images(
    request: SampleRequest,
    sampler: _Sampler,
    names: Mapping[int, str],
    label_of: Callable[[int], int],
    schedule: str,
    reporter: Reporter,
) -> dict[str, Any]:
    """Generate and write all batches; returns the paths."""
    size, total, files = sampler.tokenizer.config.image_size, request.num_images, []
    shown: list[Pixels] = []
    traces: list[str] = []
    with (
        _npz_writer(request.output / "samples.npz", request, size, label_of) as append,
        reporter.task("Sampling", total, "images") as task,
    ):
        for first in range(0, total, request.batch_size):
            labels = [label_of(index) for index in range(first, min(first + request.batch_size, total))]
            stems = [file_stem(label, names, request.seed, first + row) for row, label in enumerate(labels)]
            tracer = Tracer(_MAX_TRACED - first) if request.trace and first < _MAX_TRACED else None
            images = sampler(labels, first, tracer)
            if append is not None:
                append(images)
            else:
                for stem, image in zip(stems, images, strict=True):
                    save_png(request.output / f"{stem}.png", image)
                    files.append(str(request.output / f"{stem}.png"))
            shown.append(images[: max(0, _MAX_GRID - first)].copy())
            if tracer is not None:
                traces += _write_traces(request, sampler, tracer, names, labels, stems, first, schedule)
            task.advance(len(labels))
    grid = request.grid or request.output / "grid.png"
    # Classes take turns: with as many columns as classes, each has its own.
    columns = len(request.classes) if 2 <= len(request.classes) <= _MAX_COLUMNS else 0
    save_png(grid, image_grid(np.concatenate(shown), columns))
    images_at = [str(request.output / "samples.npz")] if request.image_format == "npz" else files
    return {"files": images_at, "grid": str(grid), "traces": traces}


def _write_traces(
    request: SampleRequest,
    sampler: _Sampler,
    tracer: Tracer,
    names: Mapping[int, str],
    labels: Sequence[int],
    stems: Sequence[str],
    first: int,
    schedule: str,
) -> list[str]:
    """Write the traces of one batch."""
    paths = []
    for row in range(min(tracer.num_images, len(labels))):
        label, index = labels[row], first + row
        name = short_name(names.get(label, "")) or f"class {label}"
        facts = {"index": index, "class": label, "name": name, "seed": request.seed, "schedule": schedule}
        title = f"{name} ({label}), seed {request.seed}, image {index}: {schedule}"
        stem = request.output / f"{stems[row]}_trace"
        paths += write_trace(stem, tracer.steps, row, sampler.tokenizer, title, facts)
    return [str(path) for path in paths]


def file_stem(label: int, names: Mapping[int, str], seed: int, index: int) -> str:
    """Name an image so that its number, class and seed can be read."""
    slug = re.sub(r"[\W_]+", "-", short_name(names.get(label, "")).casefold()).strip("-")
    return "_".join(part for part in (f"{index:05d}", f"class{label}", slug, f"seed{seed}") if part)


@contextmanager
def _npz_writer(
    path: Path, request: SampleRequest, size: int, label_of: Callable[[int], int]
) -> Iterator[Callable[[Pixels], None] | None]:
    """Yield a function that appends images to an .npz as guided-diffusion's evaluator reads it; None for PNGs.

    The file holds arr_0 uint8 (n, H, W, 3) and arr_1 int64 (n,) and appears when it is whole; images go to
    disk as they come.
    """
    if request.image_format != "npz":
        yield None
        return
    total = request.num_images
    labels = np.array([label_of(index) for index in range(total)], np.int64)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": (total, size, size, 3)}
            np.lib.format.write_array_header_1_0(member, header)

            def append(images: Pixels) -> None:
                member.write(np.ascontiguousarray(images).tobytes())

            yield append
        with archive.open("arr_1.npy", "w") as member:
            np.lib.format.write_array(member, labels)
