"""The model whose weights a training starts from (``--from``): found, recorded, and kept when the run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config.schema import conform
from adanat_cli.core.errors import require
from adanat_cli.jobs.resolve.models import resolve_model
from adanat_cli.jobs.runtime.resume import refuse_changes
from adanat_cli.jobs.train.run_folder import recorded_settings

_KEY = "from"


@dataclass(frozen=True)
class Start:
    """Where a training that does not start from random weights takes them.

    Attributes:
        model: name or Hub id, of a folder its last name.
        weights: fingerprint of the component's weights.
        folder: the model; of a resumed run that does not name it again, the run's own, which continues it.
        is_resumed: whether the run has a saved state, so that the weights are in there.
    """

    model: str
    weights: str
    folder: ModelFolder
    is_resumed: bool = False

    def recorded(self) -> dict[str, Any]:
        """What a run's settings and the provenance of its model say of the start."""
        return {_KEY: {"model": self.model, "weights": self.weights}}


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
    if not asked:
        run = ModelFolder(output / "model")
        return Start(before.get("model", ""), before.get("weights", ""), run, True) if before else None
    folder = resolve_model(asked)
    there = ", ".join(folder.index.components) or "an empty index"
    require(
        folder.has(component),
        f"--from {asked} has no {component} to start from, only {there}; choose another model.",
    )
    # A local path is private and means nothing elsewhere.
    start = Start(folder.title if Path(asked).is_dir() else asked, folder.fingerprint(component), folder, bool(saved))
    if not saved:
        return start
    if before.get("weights") == start.weights:
        return Start(before.get("model", ""), start.weights, folder, True)
    refuse_changes({_KEY: before or {"model": "", "weights": ""}}, start.recorded(), output, "a run")
    return start
