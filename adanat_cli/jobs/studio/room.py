"""What all tabs of the page share: loaded models, folders of drawings, and downloads."""

from __future__ import annotations

import itertools
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from adanat_cli.core.checkpoints.files import atomic_path
from adanat_cli.core.config.edit import EditRequest
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.errors import hide_secrets
from adanat_cli.jobs.sample.sample_folder import RECORD
from adanat_cli.jobs.sample.trace import TRACE_SUFFIXES
from adanat_cli.jobs.studio.command_line import command_line
from adanat_cli.jobs.studio.drawing import Drawing
from adanat_cli.jobs.studio.models import Models
from adanat_cli.jobs.studio.ways import BY_HAND, Rows, rounded

_MOST_SHOWN = 32
"""Images with a line of their own in the plots."""
_COMMAND_FILE = "command.sh"


class Room:
    """One server.

    Attributes:
        models: loaded.
        root: folder of everything that is written; it goes when the server does.
        device, text_encoder: as typed for ``adanat studio``; commands that draw the same name them.
        num_images: drawn so far.
    """

    def __init__(self, models: Models, root: Path, device: str = "", text_encoder: str = "") -> None:
        """Keep what the server was started with."""
        self.models, self.root, self.device, self.text_encoder = models, root, device, text_encoder
        self.num_images = 0
        self._numbers = itertools.count(1)

    def folder(self) -> Path:
        """A new folder."""
        folder = self.root / f"drawing-{next(self._numbers)}"
        folder.mkdir(parents=True)
        return folder

    def settled(self, request: Any, by_prompt: bool) -> Any:
        """A request with what the server was started with."""
        encoder = self.text_encoder if by_prompt else ""
        return replace(request, device=self.device, text_encoder=encoder)


@dataclass(frozen=True)
class Kept:
    """A finished drawing of a session.

    Attributes:
        drawings: one, or one for each way that was compared.
        heads: their ways.
        folder: where their files are.
    """

    drawings: Sequence[Drawing]
    heads: Sequence[str]
    folder: Path

    def forget(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def commands(self) -> str:
        """The command lines that draw the same, one a line."""
        return "\n".join(self._command(drawing) for drawing in self.drawings)

    def zipped(self) -> Path:
        """A file of the images, and of the command lines that draw them."""
        return self._zip("images", False)

    def zipped_traces(self) -> Iterator[float | Path]:
        """Write the traces; yields the share that is done, and at last a file of them."""
        for place, drawing in enumerate(self.drawings):
            for share in drawing.write_traces():
                yield (place + share) / len(self.drawings)
        yield self._zip("traces", True)

    def _zip(self, name: str, traces: bool) -> Path:
        path = self.folder / f"adanat-{name}.zip"
        with atomic_path(path, durable=False) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for drawing in self.drawings:
                for file in sorted(drawing.folder.iterdir()):
                    is_trace = file.stem.endswith("_trace") and file.suffix in TRACE_SUFFIXES
                    if file.is_file() and file.name != RECORD and file != path and is_trace is traces:
                        archive.write(file, self._name(drawing, file))
            for file in self._inputs():
                archive.write(file, file.name)
            archive.writestr(_COMMAND_FILE, f"{self.commands}\n")
        return path

    def _name(self, drawing: Drawing, file: Path) -> str:
        """The name of a drawing's file in an archive; that of a schedule is the one in the command line."""
        if len(self.drawings) == 1 or file.suffix == ".yaml":
            return file.name if len(self.drawings) == 1 else self._schedule_name(drawing)
        return f"{self.heads[self.drawings.index(drawing)].replace(' ', '-')}/{file.name}"

    def _schedule_name(self, drawing: Drawing) -> str:
        if len(self.drawings) == 1:
            return "schedule.yaml"
        return f"{self.heads[self.drawings.index(drawing)].replace(' ', '-')}.yaml"

    def _inputs(self) -> Iterable[Path]:
        """Files that the commands read, other than schedules."""
        requests = [drawing.request for drawing in self.drawings if isinstance(drawing.request, EditRequest)]
        return [file for request in requests for file in (request.image, request.mask) if file is not None]

    def _command(self, drawing: Drawing) -> str:
        request = drawing.request
        names = {drawing.folder / "schedule.yaml": self._schedule_name(drawing)}
        if isinstance(request, EditRequest):
            names |= {file: file.name for file in self._inputs()}
        kind = EditRequest if isinstance(request, EditRequest) else SampleRequest
        fields = {name: getattr(request, name) for name in kind.__dataclass_fields__}
        several = len(self.drawings) > 1
        fields["output"] = Path(self.heads[self.drawings.index(drawing)].replace(" ", "-")) if several else None
        return command_line("edit" if kind is EditRequest else "sample", kind(**fields), names)


def plain(problem: Exception, folder: Path) -> str:
    """A message without the folder that the studio keeps files in."""
    return hide_secrets(str(problem).replace(f"{folder}/", ""))


def curves_of(drawing: Drawing, way: str) -> dict[str, Any]:
    """What the plots show of a finished drawing: its values can be changed by hand."""
    actions = drawing.actions
    series = _series(way, actions)
    series["labels"] = list(map(drawing.label, range(len(series["samples"]))))
    if way == BY_HAND:
        note = "The values by hand, the same for all images. Drag a point to change them further."
    elif series["samples"]:
        note = (
            "Thin lines: the values of each image. Drag a point of the thick line, and all images follow it, with your "
            "change."
        )
    else:
        note = "The same values for all images. Drag a point to change them."
    return {"series": [series], "editable": True, "edited": way == BY_HAND, "note": note}


def curves_of_all(drawings: Sequence[Drawing], ways: Sequence[str]) -> dict[str, Any]:
    """What the plots show of several drawings."""
    series = [_series(way, drawing.actions) for way, drawing in zip(ways, drawings, strict=True)]
    vary = any(one["samples"] for one in series)
    note = "Thin lines: the values of each image; thick: their mean." if vary else "The same values for all images."
    return {"series": series, "editable": False, "note": note}


def curves_of_table(way: str, rows: Rows) -> dict[str, Any]:
    """What the plots show of a table that is the same for all images."""
    if not rows:
        return {
            "series": [],
            "editable": False,
            "note": "The policy chooses the values of each image; draw to see them.",
        }
    note = "The same values for all images. Drag a point to change them."
    series = {"name": way, "samples": [], "table": [list(row) for row in rows]}
    return {"series": [series], "editable": True, "edited": way == BY_HAND, "note": note}


def rows_of(curves: Any) -> list[list[float]]:
    """The table that the plots hold; empty if they hold none."""
    series = (curves or {}).get("series") or [{}]
    return [[float(value) for value in row] for row in series[0].get("table") or []]


def _series(way: str, actions: np.ndarray[Any, Any]) -> dict[str, Any]:
    """One way's values (T, n, 4): the mean of all images, and each image's where they differ."""
    vary = bool((np.ptp(actions, axis=1) > 1e-6).any())
    samples = [rounded(actions[:, index]) for index in range(min(actions.shape[1], _MOST_SHOWN))] if vary else []
    return {"name": way, "samples": samples, "table": rounded(actions.mean(axis=1))}
