"""The folder of a training run: its settings, its metrics, and the states from which it can resume."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adanat_cli.core.checkpoints.files import atomic_path, clear_litter, sync, write_json, writing
from adanat_cli.core.checkpoints.lock import is_empty
from adanat_cli.core.checkpoints.trees import check_tree, load_tree, save_tree
from adanat_cli.core.config.schema import conform
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.reading import json_text, parse_json, read_object
from adanat_cli.jobs.runtime.reporter import Reporter, SilentReporter
from adanat_cli.jobs.runtime.resume import Length, refuse_changes

_CHECKPOINT = re.compile(r"step-(\d{8,18})\.safetensors")
_NUM_LOGGED = "num_logged"


def recorded_settings(path: Path) -> dict[str, Any]:
    """The settings of a run that can be resumed; empty where there is nothing to resume.

    Raises:
        AdaNATError: if the file is damaged.
    """
    file = path / "config.json"
    has_states = any((path / "checkpoints").glob("step-*.safetensors"))
    return read_object(file) if file.exists() and has_states else {}


class RunFolder:
    """``config.json``, ``metrics.jsonl``, ``checkpoints/``, ``samples/``, ``plots/`` and ``model/``.

    One process writes: construct it on the main process only, or with ``write=False`` elsewhere.
    """

    def __init__(
        self,
        path: Path,
        config: dict[str, Any],
        write: bool = True,
        num_kept: int = 2,
        length: Length | None = None,
    ) -> None:
        """Create the folder, or open it to resume the same configuration, or the same but for a greater length.

        Raises:
            AdaNATError: if the folder holds a run with another configuration (the keys are named),
                or holds other files.
        """
        self.path, self._write, self._num_kept = path, write, num_kept
        self.samples, self.plots, self.model = path / "samples", path / "plots", path / "model"
        self._metrics = path / "metrics.jsonl"
        saved, config = path / "config.json", json.loads(json_text(config))
        if write:
            clear_litter(path)
        if self._steps():
            before = read_object(saved)
            refuse_changes(before, config, path, "a run", length)
            if write and before != config:
                write_json(saved, config)
        elif write:
            # A run that saved no state yet has nothing to lose: it may start over with other settings.
            if not saved.exists() and path.is_dir() and not is_empty(path):
                raise AdaNATError(f"{path} holds other files and no run; choose a new or empty --output folder.")
            write_json(saved, config)

    def log(self, step: int, **values: Any) -> None:
        """Append one line to ``metrics.jsonl``."""
        if self._write:
            with writing(self._metrics), self._metrics.open("a", encoding="utf-8") as file:
                file.write(json_text({"step": step, **values}) + "\n")

    def num_logged(self) -> int:
        """Lines that were logged so far."""
        return self._metrics.read_bytes().count(b"\n") if self._metrics.exists() else 0

    def save(self, step: int, tree: dict[str, Any], num_logged: int | None = None) -> None:
        """Write the training state after update ``step`` and drop the oldest ones.

        Args:
            step: number of updates done.
            tree: the state.
            num_logged: lines that a resumed run finds logged, where these are not all.
        """
        if not self._write:
            return
        if self._metrics.exists():
            with writing(self._metrics):
                sync(self._metrics)
        logged = self.num_logged() if num_logged is None else num_logged
        save_tree(self._checkpoint(step), {"step": step, _NUM_LOGGED: logged, **tree})
        self._drop_states_before(step)
        for damaged in (other for other in self._steps() if other > step):  # or the run would have begun there
            self._checkpoint(damaged).unlink()

    def latest(self, reporter: Reporter | None = None) -> dict[str, Any] | None:
        """Return the last whole training state, or None if none was saved; metrics logged after it are dropped.

        Raises:
            AdaNATError: if there are states, and all are damaged.
        """
        state, steps, reasons = None, self._steps(), []
        while steps and state is None:
            try:
                state = self._load(steps[-1])
            except AdaNATError as error:
                reasons.append(str(error))
                steps.pop()
        if reasons and state is None:
            raise AdaNATError(
                f"No saved state of {self.path} is intact: {' '.join(reasons)} Restore one from a copy, remove "
                f"{self.path / 'checkpoints'} to start over, or choose another --output."
            )
        for reason in reasons:
            (reporter or SilentReporter()).warn(f"{reason} Resuming from the state before, update {steps[-1]}.")
        if self._write and self._metrics.exists():
            self._drop_metrics_after(state)
        if self._write and state is not None:
            self._drop_states_before(steps[-1])
        return state

    @contextmanager
    def taking(self, state: Mapping[str, Any], like: Mapping[str, Any]) -> Iterator[None]:
        """Take over what ``latest`` has read within the block.

        Args:
            state: state that ``latest`` has read.
            like: current state, whose form it must have; it may hold more.

        Raises:
            AdaNATError: if it is not one of this run.
        """
        try:
            check_tree(state, like)
            yield
        except (AdaNATError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise AdaNATError(
                f"The saved state of {self.path} after update {state['step']} does not belong to this run: "
                f"{' '.join(str(error).split())}. Choose another --output."
            ) from error

    def _load(self, step: int) -> dict[str, Any]:
        file = self._checkpoint(step)
        state = load_tree(file)
        if state.get("step") != step:
            raise AdaNATError(f"{file} is damaged: it is not the state after update {step}.")
        return state

    def _checkpoint(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step-{step:08d}.safetensors"

    def _steps(self) -> list[int]:
        found = (_CHECKPOINT.fullmatch(file.name) for file in (self.path / "checkpoints").glob("step-*.safetensors"))
        return sorted(int(match[1]) for match in found if match)

    def _drop_states_before(self, step: int) -> None:
        """Keep the last ``num_kept`` states up to this one."""
        for old in [other for other in self._steps() if other <= step][: -self._num_kept]:
            self._checkpoint(old).unlink()

    def _drop_metrics_after(self, state: dict[str, Any] | None) -> None:
        """Forget what the resumed run is about to measure again, and a half-written last line."""
        lines = self._metrics.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        if state is None:
            lines = []
        elif _NUM_LOGGED in state:
            lines = lines[: conform(state[_NUM_LOGGED], int, "the state's number of logged lines")]
        else:  # a state of an edition that did not note how much was logged
            lines = [line for line in lines if line.endswith("\n") and _step_of(line) <= state["step"]]
        with atomic_path(self._metrics) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")


def _step_of(line: str) -> float:
    """The update of a line that was logged; of one that no run writes, later than all."""
    try:
        return float(conform(parse_json(line, "it"), Mapping[str, Any], "it").get("step", math.inf))
    except (AdaNATError, TypeError, ValueError):
        return math.inf
