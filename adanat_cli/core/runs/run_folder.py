"""The folder of one training run: what it was asked, what it measured, and where it can go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adanat_cli.core.checkpoints.files import atomic_path, clear_litter, read_json, write_json
from adanat_cli.core.checkpoints.lock import is_empty
from adanat_cli.core.checkpoints.trees import load_tree, save_tree
from adanat_cli.core.errors import AdaNATError


class RunFolder:
    """``config.json``, ``metrics.jsonl``, ``checkpoints/``, ``samples/``, ``plots/`` and ``model/``.

    One process writes: construct it on the main process only, or with ``write=False`` elsewhere.
    """

    def __init__(self, path: Path, config: dict[str, Any], write: bool = True, num_kept: int = 2) -> None:
        """Create the folder, or open it to resume the same configuration.

        Raises:
            AdaNATError: if the folder holds a run with another configuration (the keys are named),
                or holds other files.
        """
        self.path, self._write, self._num_kept = path, write, num_kept
        self.samples, self.plots, self.model = path / "samples", path / "plots", path / "model"
        saved = path / "config.json"
        if write:
            clear_litter(path)
        if self._steps():
            refuse_changes(read_json(saved), json.loads(json.dumps(config)), path)
        elif write:
            # A run that saved no state yet has nothing to lose: it may start over with other settings.
            if not saved.exists() and path.is_dir() and not is_empty(path):
                raise AdaNATError(f"{path} holds other files and no run; choose a new or empty --output folder.")
            write_json(saved, config)

    def log(self, step: int, **values: Any) -> None:
        """Append one line to ``metrics.jsonl``."""
        if self._write:
            with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")

    def save(self, step: int, tree: dict[str, Any]) -> None:
        """Write the training state after update ``step`` and drop the oldest ones."""
        if self._write:
            save_tree(self._checkpoint(step), {"step": step, **tree})
            for old in self._steps()[: -self._num_kept]:
                self._checkpoint(old).unlink()

    def latest(self) -> dict[str, Any] | None:
        """Return the last training state, or None; metrics logged after it are dropped."""
        steps = self._steps()
        if self._write and (self.path / "metrics.jsonl").exists():
            self._drop_metrics_after(steps[-1] if steps else 0)
        return load_tree(self._checkpoint(steps[-1])) if steps else None

    def _checkpoint(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step-{step:08d}.safetensors"

    def _steps(self) -> list[int]:
        return sorted(int(file.stem[5:]) for file in (self.path / "checkpoints").glob("step-*.safetensors"))

    def _drop_metrics_after(self, step: int) -> None:
        """Forget what the resumed run is about to measure again, and a half-written last line."""
        metrics, kept = self.path / "metrics.jsonl", []
        for line in metrics.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except ValueError:
                continue
        with atomic_path(metrics) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")


def refuse_changes(saved: dict[str, Any], asked: dict[str, Any], path: Path) -> None:
    """Raise if a resumed run is asked for with other settings than it was started with.

    Settings that an earlier version did not have yet are not compared.
    """
    before, now = _flatten(saved), _flatten(asked)
    keys = [key for key in sorted(before) if before[key] != now.get(key)]
    if keys:
        changes = ", ".join(f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in keys)
        raise AdaNATError(
            f"{path} holds a run with other settings: {changes}; repeat its settings to resume, "
            "or choose another --output."
        )


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested settings into dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
