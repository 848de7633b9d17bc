"""Where the numbers of a training also go: TensorBoard wherever it is installed, and any tracker of accelerate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

from adanat_cli.core.errors import AdaNATError, not_known, require
from adanat_cli.jobs.runtime.reporter import Reporter

_TENSORBOARD, _PROJECT = "tensorboard", "adanat"
_PACKAGES = {"comet_ml": "comet-ml"}
"""Package of a tracker, where it has another name."""


def chosen_trackers(asked: Sequence[str]) -> list[str]:
    """Names of the trackers to use: TensorBoard where it is installed, and those that were asked for.

    Raises:
        AdaNATError: if one is not known, or not installed.
    """
    there = {str(name) for name in get_available_trackers()}
    for name in asked:
        known = sorted(LOGGER_TYPE_TO_CLASS)
        require(name in known, not_known(f"--track {name}", name, known, ", ".join(known)))
        package = _PACKAGES.get(name, name)
        require(name in there, f"--track {name} needs {package}, which is not installed: pip install {package}")
    return list(dict.fromkeys([*([_TENSORBOARD] if _TENSORBOARD in there else []), *asked]))


class Trackers:
    """Trackers that are open, on the main process."""

    def __init__(
        self, asked: Sequence[str], folder: Path, settings: Mapping[str, Any], first: int, reporter: Reporter
    ) -> None:
        """Open them.

        Args:
            asked: names, as typed.
            folder: run folder, after which the run is called; TensorBoard's log and others' files lie there.
            settings: everything that decides the result.
            first: number of the first update that will be logged; what TensorBoard's log holds from there on, which a
                run that was broken off left, is not shown.
            reporter: receives a line where TensorBoard's log, which nobody asked for, cannot be opened.

        Raises:
            AdaNATError: if one is not known, not installed or cannot be opened.
        """
        self._open: list[GeneralTracker] = []
        for name in chosen_trackers(asked):
            try:
                self._open.append(_started(name, folder, settings, first))
            except Exception as error:  # each library raises its own
                reason = " ".join(str(error).split()) or type(error).__name__
                if name not in asked:
                    reporter.warn(f"No log of {name}: {reason}.")
                    continue
                self.close()
                raise AdaNATError(f"--track {name} cannot be started ({reason}); leave it out.") from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of one update; those that are not finite are left out, as few trackers draw them."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        for tracker in self._open:
            tracker.log(finite, step=step)

    def close(self) -> None:
        """Send what is left."""
        for tracker in self._open:
            tracker.finish()
        self._open.clear()


def _started(name: str, folder: Path, settings: Mapping[str, Any], first: int) -> GeneralTracker:
    kind, run = LOGGER_TYPE_TO_CLASS[name], folder.resolve().name
    options: dict[str, dict[str, Any]] = {
        _TENSORBOARD: {"purge_step": first},
        "wandb": {"name": run, "dir": str(folder)},
        "trackio": {"name": run},
        "mlflow": {"run_name": run},
        "swanlab": {"experiment_name": run, "logdir": str(folder / "swanlog")},
        "dvclive": {"dir": str(folder / "dvclive"), "resume": first > 1, "save_dvc_exp": False},
    }
    project = _TENSORBOARD if name == _TENSORBOARD else _PROJECT
    places = [str(folder)] if kind.requires_logging_directory else []
    tracker = kind(project, *places, **options.get(name, {}))
    tracker.start()
    if name != _TENSORBOARD:  # it would open a second log for them; config.json has them
        tracker.store_init_configuration(_plain(settings))
    return tracker


def _plain(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings under dotted names, with lists as text, which is all that some trackers take."""
    plain: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            plain |= _plain(value, f"{prefix}{key}.")
        else:
            plain[prefix + key] = value if isinstance(value, bool | int | float | str) else str(value)
    return plain
