"""Record which run of `adanat sample` or `edit` wrote which file: nothing is overwritten, and the last is measured."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from adanat_cli.core.checkpoints.files import atomic_path, writing
from adanat_cli.core.config.schema import conform
from adanat_cli.core.data.source_files import IMAGE_SUFFIXES
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.jobs.resolve.classes import find_classes
from adanat_cli.jobs.resolve.models import nat_config, resolve_model

if TYPE_CHECKING:
    from adanat_cli.core.config.settings import SampleSettings

RECORD = "samples.jsonl"
"""A line for each run, then a line of file names for each of its batches."""
NPZ = "samples.npz"

_IRRELEVANT = {
    "output",
    "num_images",
    "prompts_file",
    "grid",
    "trace",
    "batch_size",
    "device",
    "overwrite",
    "compiled",
}
"""Fields of a request that do not change image i."""
_SHOWN = 60
_GRID = re.compile(r"grid(-[1-9]\d{0,8})?\.png", re.ASCII)
_MAX_DIGITS = 18


@dataclasses.dataclass(frozen=True)
class Run:
    """The line of a record that begins a run.

    Attributes:
        digest: hash of what decides an image.
        num_images: number of images of the whole run.
        words: description for people.
    """

    digest: str
    num_images: int
    words: str


def first_free(folder: Path, asked: Run, overwrite: bool) -> Path:
    """Return the first of ``folder``, ``folder-2``, ``folder-3``, … that holds no images but this run's."""
    number, free = 1, folder
    while not overwrite and not _is_of(free, asked):
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free


def check_folder(folder: Path, asked: Run, overwrite: bool, writes: Callable[[str], bool]) -> None:
    """Refuse to overwrite files of other runs; other images in the folder stay.

    Args:
        folder: where the run writes.
        asked: the run.
        overwrite: whether it may replace what earlier runs recorded.
        writes: whether it writes a file of this name.

    Raises:
        AdaNATError: naming the file and what to do.
    """
    owners = _owners(folder)
    for name in filter(writes, _images(folder)):
        run = owners.get(name)
        if run is None:
            raise AdaNATError(
                f"{folder / name} is in the way, and no recorded run wrote it; choose another --output or move it."
            )
        require(
            overwrite or run.digest == asked.digest,
            f"{folder / name} belongs to another run ({run.words}); choose another --output, or add --overwrite to "
            "remove what earlier runs wrote.",
        )


def start_record(folder: Path, asked: Run, overwrite: bool) -> None:
    """Record this run after the folder's earlier ones; with ``overwrite`` remove those and their files first."""
    kept = []
    for run, names in _read_runs(folder):
        repeated = run is not None and run.digest == asked.digest and run.num_images <= asked.num_images
        if not (overwrite or repeated):
            kept.append((run, names))
            continue
        for name in names:
            # The same run replaces its .npz only once the new one is whole.
            if overwrite or name != NPZ:
                with suppress(OSError):
                    (folder / name).unlink()
    with atomic_path(folder / RECORD) as temporary, temporary.open("w", encoding="utf-8") as file:
        for run, names in [*kept, (asked, [])]:
            if run is not None:
                file.write(json.dumps(dataclasses.asdict(run)) + "\n")
                file.writelines(json.dumps([name]) + "\n" for name in names)


def add_to_record(folder: Path, names: Sequence[str]) -> None:
    """Record files that are about to be written, so that no file is without an owner even if the run is killed.

    Raises:
        AdaNATError: if the record cannot be written.
    """
    with writing(folder / RECORD), (folder / RECORD).open("a", encoding="utf-8") as file:
        file.write(json.dumps(list(names)) + "\n")


def of_last_run(folder: Path, names: Sequence[str]) -> tuple[list[str], str]:
    """Choose the images of a folder's last run.

    Args:
        folder: folder to be measured.
        names: paths of the folder's images, relative to it.

    Returns:
        The run's images, or all if no run is recorded; and a sentence on what is left out or missing, or "".
    """
    runs = _read_runs(folder)
    run, recorded = runs[-1] if runs else (None, [])
    if run is None:
        return list(names), ""
    wanted = set(recorded)
    own = [name for name in names if name in wanted]
    notes = []
    if left := len(names) - len(own):
        others = "1 other image is" if left == 1 else f"{left:,} other images are"
        notes.append(f"{others} not part of the last run written into {folder}, and left out")
    if own and len(own) < run.num_images:
        notes.append(
            f"{folder} holds {len(own):,} of the {run.num_images:,} images of its run, which the same command completes"
        )
    return own, "; ".join(notes)


def is_picture(name: str) -> bool:
    """Whether a file name is that of a picture beside the images: the grid or a trace."""
    return bool(_GRID.fullmatch(name)) or name.endswith(("_trace.png", "_trace.gif"))


def claim_grid(folder: Path) -> Path:
    """Record the first of grid.png, grid-2.png, … that is free, once ``start_record`` has removed the run's earlier."""
    names = (f"grid{f'-{number}' if number > 1 else ''}.png" for number in itertools.count(1))
    name = next(name for name in names if not (folder / name).exists())
    add_to_record(folder, [name])
    return folder / name


def _is_of(folder: Path, asked: Run) -> bool:
    """Whether a folder holds only images of this run."""
    owners = _owners(folder)
    runs = (owners.get(name) for name in _images(folder))
    return all(run is not None and run.digest == asked.digest for run in runs)


def _owners(folder: Path) -> dict[str, Run | None]:
    """File name -> the run that wrote it last."""
    return {name: run for run, names in _read_runs(folder) for name in names}


def is_numbered(name: str, num_images: int, stem: Callable[[int], str]) -> bool:
    """Whether a name is that of the PNG of one of n images, of which ``stem`` gives the names without suffix."""
    number = name.partition("_")[0]
    if not (number.isascii() and number.isdecimal() and len(number) <= _MAX_DIGITS):
        return False
    return int(number) < num_images and name == f"{stem(int(number))}.png"


def _images(folder: Path) -> Iterator[str]:
    """Names of a folder's images that would be measured, and of its .npz."""
    with suppress(OSError):
        for file in folder.iterdir():
            is_image = file.name.lower().endswith(IMAGE_SUFFIXES) and not file.name.startswith(".")
            if file.name == NPZ or (is_image and not is_picture(file.name)):
                yield file.name


def run_of(request: SampleSettings) -> Run:
    """Describe a run of ``adanat sample``."""
    values = {key: value for key, value in vars(request).items() if key not in _IRRELEVANT}
    values["classes"] = class_ids(request.model, request.classes)
    # Under the names that older records were made with.
    sampling, remasking = values.pop("sampling_temperature"), values.pop("remask_temperature")
    values["guidance"] = values.pop("guidance_scale")
    values["temperature"] = sampling if request.schedule == "halton" else remasking
    if sampling is not None and request.schedule != "halton":
        values["sampling_temperature"] = sampling
    values["model"] = model_name(request.model)
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
    asked = ", ".join([*request.classes, *request.prompts])
    of = f" of {textwrap.shorten(asked, _SHOWN, placeholder=' …')}" if asked else ""
    return Run(digest[:32], request.num_images, f"{request.num_images}{of}, seed {request.seed}")


def model_name(model: str) -> str:
    """A model as a record identifies it: the whole path of a folder, or its name as it was typed."""
    return str(Path(model).resolve()) if model and Path(model).exists() else model


def class_ids(model: str, classes: Sequence[str]) -> list[int]:
    """The labels of classes of a model, however they are spelt."""
    folder = resolve_model(model)
    nat = nat_config(folder)
    if not classes or nat.condition != "class":
        return []
    return find_classes(classes, folder.labels(), nat.num_classes)


def _read_runs(folder: Path) -> list[tuple[Run | None, list[str]]]:
    """The runs of a folder's record in order, each with its file names; None for a damaged line."""
    runs: list[tuple[Run | None, list[str]]] = []
    for values in _lines(folder):
        if not isinstance(values, list):
            run = None
            with suppress(AdaNATError):
                run = conform(values, Run, RECORD)
            runs.append((run, []))
        elif runs:
            # Only files of this folder.
            runs[-1][1].extend(name for name in values if isinstance(name, str) and name == Path(name).name)
    return runs


def _lines(folder: Path) -> Iterator[object]:
    """Yield the readable lines of a record."""
    with suppress(OSError), (folder / RECORD).open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with suppress(ValueError, RecursionError):
                yield json.loads(line)
