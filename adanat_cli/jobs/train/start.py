"""The model whose weights a training starts from (``--from``): found, recorded, and kept when the run is resumed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adanat_cli.core.checkpoints.files import write_json
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config.schema import conform
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.reading import read_object
from adanat_cli.jobs.resolve.models import resolve_model
from adanat_cli.jobs.runtime.resume import refuse_changes
from adanat_cli.jobs.train.run_folder import RunFolder, recorded_settings

_KEY = "from"
_FILE = "from.json"
"""File of a run folder that says where the model is. It stays there: nobody else's business, unlike the settings."""


@dataclass(frozen=True)
class Start:
    """Where a training that does not start from random weights takes them.

    Attributes:
        model: name or Hub id, of a folder its last name.
        weights: fingerprint of the component's weights.
        folder: the model; of a resumed run that does not name it again, the run's own, which continues it, or else
            the one that it named.
        place: name, Hub id or absolute path of the folder.
        saved: settings of the run that is resumed, in whose saved state the weights are; empty for a new one.
    """

    model: str
    weights: str
    folder: ModelFolder
    place: str
    saved: Mapping[str, Any]

    @property
    def is_resumed(self) -> bool:
        """Whether the run has a saved state, so that the weights are in there."""
        return bool(self.saved)

    def recorded(self) -> dict[str, Any]:
        """What a run's settings and the provenance of its model say of the start."""
        return {_KEY: {"model": self.model, "weights": self.weights}}

    def remember(self, run: RunFolder) -> None:
        """Note in the run folder where the model is, so that a resumed run need not be told again."""
        if not self.is_resumed:
            write_json(run.path / _FILE, {"model": self.place})


def find_start(asked: str, component: str, output: Path) -> Start | None:
    """The start that was asked for, or that of the run which is resumed; None for random weights.

    Only headers of weights are read.

    Args:
        asked: model folder, name or Hub id; "" for none, or for that of the run.
        component: name of the part that is trained, such as "nat".
        output: run folder.

    Raises:
        AdaNATError: if the model or its component is missing, or the run in the folder started from other weights.
    """
    saved = recorded_settings(output)
    before = conform(saved.get(_KEY, {}), Mapping[str, str], f"{output / 'config.json'}: {_KEY}")
    if saved and not asked:
        return _of_run(before, saved, component, output) if before else None
    asked = asked or remembered_start(output)
    if not asked:
        return None
    folder = resolve_model(asked)
    there = ", ".join(folder.index.components) or "an empty index"
    require(
        folder.has(component),
        f"--from {asked} has no {component} to start from, only {there}; choose another model.",
    )
    # A local path is private and means nothing elsewhere.
    is_path = Path(asked).is_dir()
    name, place = (folder.title, os.path.abspath(asked)) if is_path else (asked, asked)
    start = Start(name, folder.fingerprint(component), folder, place, saved)
    if not saved:
        return start
    if before.get("weights") == start.weights:
        return Start(before.get("model", ""), start.weights, folder, place, saved)
    refuse_changes({_KEY: before or {"model": "", "weights": ""}}, start.recorded(), output, "a run")
    return start


def _of_run(before: Mapping[str, str], saved: Mapping[str, Any], component: str, output: Path) -> Start:
    """The start of a run that is resumed: with its own model, or with the one that it named if that is still there."""
    folder, place = ModelFolder(output / "model"), str(output / "model")
    if not folder.exists() and (remembered := remembered_start(output)):
        with suppress(AdaNATError):  # where it is needed, it is missed there
            found = resolve_model(remembered)
            if found.fingerprint(component) == before.get("weights"):
                folder, place = found, remembered
    return Start(before.get("model", ""), before.get("weights", ""), folder, place, saved)


def remembered_start(output: Path) -> str:
    """Where the model was when the run in a folder began; "" if it did not start from one."""
    file = output / _FILE
    return conform(read_object(file).get("model", ""), str, f"{file}: model") if file.exists() else ""
