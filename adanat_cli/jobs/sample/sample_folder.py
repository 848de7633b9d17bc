"""What each run of `adanat sample` wrote into a folder, so that none is written over and only the last is measured."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
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
"""For each run: what it is, then the names of its files, a list for each batch."""
NPZ = "samples.npz"

_NO_MATTER = {"output", "num_images", "grid", "trace", "batch_size", "device", "overwrite"}
"""Fields of a request that change no image: image i is the same in a longer run."""
_SHOWN = 60
_MAX_DIGITS = 18


@dataclasses.dataclass(frozen=True)
class _Run:
    """The line of a record that a run begins with: a digest of what decides its images, their number, and in words."""

    digest: str
    num_images: int
    words: str


def first_free(folder: Path, request: SampleSettings) -> Path:
    """Return the folder, or the first of ``folder-2``, ``folder-3``, … that holds nothing but this run's images."""
    number, place, asked = 1, folder, _run_of(request)
    while not request.overwrite and not _is_of(place, asked):
        number += 1
        place = folder.with_name(f"{folder.name}-{number}")
    return place


def check_folder(request: SampleSettings, stem: Callable[[int], str]) -> None:
    """Refuse to write over what is not this run's; other images stay beside, and are no part of it.

    Args:
        request: its ``overwrite`` gives up what earlier runs recorded as their own.
        stem: the name of image i, without its ending.

    Raises:
        AdaNATError: naming the file and the ways out.
    """
    folder, asked, owners = request.output, _run_of(request), _owners(request.output)
    for name in filter(partial(writes, request, stem), _images(folder)):
        run = owners.get(name)
        if run is None:
            raise AdaNATError(
                f"{folder / name} is in the way, and no run recorded it as its own; choose another --output or move it."
            )
        require(
            request.overwrite or run.digest == asked.digest,
            f"{folder / name} is of another run ({run.words}); choose another --output, or add --overwrite to remove "
            "what earlier runs wrote.",
        )


def start_record(request: SampleSettings) -> None:
    """Record this run after the earlier ones of the folder, or, where they are given up, instead of them."""
    folder, asked = request.output, _run_of(request)
    kept = []
    for run, names in _read_runs(folder):
        repeated = run is not None and run.digest == asked.digest and run.num_images <= asked.num_images
        if not (request.overwrite or repeated):
            kept.append((run, names))
            continue
        for name in names:
            # The same run writes its one file anew, which takes the old one's place when it is whole.
            if request.overwrite or name != NPZ:
                with suppress(OSError):
                    (folder / name).unlink()
    with atomic_path(folder / RECORD) as temporary, temporary.open("w", encoding="utf-8") as file:
        for run, names in [*kept, (asked, [])]:
            if run is not None:
                file.write(json.dumps(dataclasses.asdict(run)) + "\n")
                file.writelines(json.dumps([name]) + "\n" for name in names)


def add_to_record(folder: Path, names: Sequence[str]) -> None:
    """Note files that are about to be written; a kill in between leaves no file that is not noted.

    Raises:
        AdaNATError: if that cannot be written.
    """
    with writing(folder / RECORD), (folder / RECORD).open("a", encoding="utf-8") as file:
        file.write(json.dumps(list(names)) + "\n")


def of_last_run(folder: Path, names: Sequence[str]) -> tuple[list[str], str]:
    """Choose the images of the run that was written into a folder last.

    Args:
        folder: to be measured.
        names: of its images, relative to it.

    Returns:
        Its images, or all where no run is recorded; and in words what is left out or missing, "" if nothing is.
    """
    runs = _read_runs(folder)
    run, recorded = runs[-1] if runs else (None, [])
    if run is None:
        return list(names), ""
    wanted = set(recorded)
    own = [name for name in names if name in wanted]
    told = []
    if left := len(names) - len(own):
        others = "1 other image is" if left == 1 else f"{left:,} other images are"
        told.append(f"{others} no part of the run that was written into {folder} last, and left out")
    if own and len(own) < run.num_images:
        told.append(
            f"{folder} holds {len(own):,} of the {run.num_images:,} images of its run, which the same `adanat sample` "
            "command completes"
        )
    return own, "; ".join(told)


def is_picture(name: str) -> bool:
    """Whether a file of this name is one that stands beside the images: the grid, or a trace."""
    return name == "grid.png" or name.endswith("_trace.png")


def _is_of(folder: Path, asked: _Run) -> bool:
    """Whether a folder holds no images but those of one run."""
    owners = _owners(folder)
    runs = (owners.get(name) for name in _images(folder))
    return all(run is not None and run.digest == asked.digest for run in runs)


def _owners(folder: Path) -> dict[str, _Run | None]:
    """The run that wrote a file last, by the file's name."""
    return {name: run for run, names in _read_runs(folder) for name in names}


def writes(request: SampleSettings, stem: Callable[[int], str], name: str) -> bool:
    """Whether a run writes a file of this name."""
    if request.image_format == "npz":
        return name == NPZ
    number = name.partition("_")[0]
    if not (number.isascii() and number.isdecimal() and len(number) <= _MAX_DIGITS):
        return False
    return int(number) < request.num_images and name == f"{stem(int(number))}.png"


def _images(folder: Path) -> Iterator[str]:
    """Names of a folder's images, as they would be measured, and of its one file of many."""
    with suppress(OSError):
        for file in folder.iterdir():
            is_image = file.name.lower().endswith(IMAGE_SUFFIXES) and not file.name.startswith(".")
            if file.name == NPZ or (is_image and not is_picture(file.name)):
                yield file.name


def _run_of(request: SampleSettings) -> _Run:
    values = {key: value for key, value in vars(request).items() if key not in _NO_MATTER}
    values["classes"] = _class_ids(request)
    model = Path(request.model)
    values["model"] = str(model.resolve()) if request.model and model.exists() else request.model
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
    asked = ", ".join([*request.classes, *request.prompts])
    of = f" of {textwrap.shorten(asked, _SHOWN, placeholder=' …')}" if asked else ""
    return _Run(digest[:32], request.num_images, f"{request.num_images}{of}, seed {request.seed}")


def _class_ids(request: SampleSettings) -> list[int]:
    """The classes that are asked for, however they are spelt."""
    folder = resolve_model(request.model)
    nat = nat_config(folder)
    if not request.classes or nat.condition != "class":
        return []
    return find_classes(request.classes, folder.labels(), nat.num_classes)


def _read_runs(folder: Path) -> list[tuple[_Run | None, list[str]]]:
    """What a folder's record says: runs in order, each with the names of its files; None where a line is damaged."""
    runs: list[tuple[_Run | None, list[str]]] = []
    for values in _lines(folder):
        if not isinstance(values, list):
            run = None
            with suppress(AdaNATError):
                run = conform(values, _Run, RECORD)
            runs.append((run, []))
        elif runs:
            # Nothing that lies elsewhere.
            runs[-1][1].extend(name for name in values if isinstance(name, str) and name == Path(name).name)
    return runs


def _lines(folder: Path) -> Iterator[object]:
    """Whole lines of a record, one after the other."""
    with suppress(OSError), (folder / RECORD).open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with suppress(ValueError, RecursionError):
                yield json.loads(line)
