"""One folder, one run: what `adanat sample` wrote into a folder, so that another run's images are never mixed in."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from adanat_cli.core.checkpoints.files import atomic_path, writing
from adanat_cli.core.config.schema import conform
from adanat_cli.core.data.folders import IMAGE_SUFFIXES
from adanat_cli.core.errors import AdaNATError, require

if TYPE_CHECKING:
    from adanat_cli.core.runs.sample import SampleRequest

RECORD = "samples.jsonl"
"""First what the run is, then the names of its files, a list for each batch."""
NPZ = "samples.npz"

_NO_MATTER = {"output", "num_images", "grid", "trace", "batch_size", "device", "overwrite"}
"""Fields of a request that change no image: image i is the same in a longer run."""
_SHOWN = 60


@dataclasses.dataclass(frozen=True)
class _Run:
    """The first line of a record: a digest of what decides the images, their number, and both in words."""

    digest: str
    num_images: int
    words: str


def first_free(folder: Path, request: SampleRequest) -> Path:
    """Return the folder, or the first of ``folder-2``, ``folder-3``, … that this run can write into."""
    number, place = 1, folder
    while not request.overwrite and _obstacle(place, request):
        number += 1
        place = folder.with_name(f"{folder.name}-{number}")
    return place


def check_folder(request: SampleRequest) -> None:
    """Refuse a folder of other images.

    Raises:
        AdaNATError: naming the ways out.
    """
    obstacle = _obstacle(request.output, request)
    require(not obstacle, f"{request.output} already holds {obstacle}.")


def start_record(request: SampleRequest) -> None:
    """Remove what the earlier run of this folder recorded as its own, and record this run."""
    folder = request.output
    for name in _recorded_files(folder):
        # The same run writes its one file anew, which takes the old one's place when it is whole.
        if request.overwrite or name != NPZ:
            with suppress(OSError):
                (folder / name).unlink()
    with atomic_path(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(_run_of(request))) + "\n", encoding="utf-8")


def add_to_record(folder: Path, names: Sequence[str]) -> None:
    """Note files that are about to be written; a kill in between leaves no file that is not noted.

    Raises:
        AdaNATError: if that cannot be written.
    """
    with writing(folder / RECORD), (folder / RECORD).open("a", encoding="utf-8") as file:
        file.write(json.dumps(list(names)) + "\n")


def check_measured(folder: Path, names: Sequence[str]) -> str:
    """Refuse a run's folder that holds other images too.

    Args:
        folder: to be measured.
        names: of its images, relative to it.

    Returns:
        What the run lacks, in words; "" if it is whole, or the folder is not a run's.

    Raises:
        AdaNATError: naming an image that the run did not write.
    """
    run = _read_run(folder)
    if run is None:
        return ""
    recorded = set(_recorded_files(folder))
    foreign = next((name for name in names if name not in recorded), None)
    require(
        foreign is None,
        f"{folder} holds images of a run of `adanat sample`, and others such as {foreign}; move those away, or remove "
        f"{RECORD} if they belong together.",
    )
    if len(names) == run.num_images:
        return ""
    return (
        f"{folder} holds {len(names)} of the {run.num_images} images of its run; the same `adanat sample` command "
        "completes it."
    )


def is_picture(name: str) -> bool:
    """Whether a file of this name is one that stands beside the images: the grid, or a trace."""
    return name == "grid.png" or name.endswith("_trace.png")


def _obstacle(folder: Path, request: SampleRequest) -> str:
    """What stands in the way of a run, and the ways out; "" if nothing does."""
    here, asked = _read_run(folder), _run_of(request)
    if here is not None and not request.overwrite:
        if here.digest != asked.digest:
            return f"another run's images ({here.words}); choose another --output, or add --overwrite to remove them"
        if here.num_images > asked.num_images:
            return (
                f"{here.num_images} images of this run, and {asked.num_images} are asked for; choose another --output, "
                "or add --overwrite to remove them first"
            )
    recorded = set(_recorded_files(folder))
    foreign = [name for name in _images(folder) if name not in recorded]
    if foreign:
        return f"images that no run recorded as its own, such as {min(foreign)}; choose another --output, or move them"
    return ""


def _images(folder: Path) -> Iterator[str]:
    """Names of the images of a folder, as they would be measured."""
    with suppress(OSError):
        for file in folder.iterdir():
            if (
                file.name.lower().endswith(IMAGE_SUFFIXES)
                and not file.name.startswith(".")
                and not is_picture(file.name)
            ):
                yield file.name


def _run_of(request: SampleRequest) -> _Run:
    values = {key: value for key, value in vars(request).items() if key not in _NO_MATTER}
    model = Path(request.model)
    values["model"] = str(model.resolve()) if request.model and model.exists() else request.model
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
    asked = ", ".join([*request.classes, *request.prompts])
    of = f" of {textwrap.shorten(asked, _SHOWN, placeholder=' …')}" if asked else ""
    return _Run(digest[:32], request.num_images, f"{request.num_images}{of}, seed {request.seed}")


def _read_run(folder: Path) -> _Run | None:
    """What a folder's record says; None where there is none or it is damaged."""
    for values in _lines(folder):
        with suppress(AdaNATError):
            return conform(values, _Run, RECORD)
        break
    return None


def _recorded_files(folder: Path) -> Iterator[str]:
    """Names in a folder's record; nothing that lies elsewhere."""
    for names in _lines(folder):
        if isinstance(names, list):
            yield from (name for name in names if isinstance(name, str) and name == Path(name).name)


def _lines(folder: Path) -> Iterator[object]:
    """Whole lines of a record, one after the other."""
    with suppress(OSError), (folder / RECORD).open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with suppress(ValueError, RecursionError):
                yield json.loads(line)
