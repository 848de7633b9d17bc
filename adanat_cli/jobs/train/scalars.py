"""Numbers over the updates: to metrics.jsonl, and to TensorBoard where it is installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from adanat_cli.jobs.train.run_folder import RunFolder


class Scalars:
    """Logs named numbers."""

    def __init__(self, folder: RunFolder, write: bool = True) -> None:
        """Open TensorBoard's log in the run folder if there is one."""
        self._folder = folder
        self._board: Any = None
        if write and find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder.path / "tensorboard"))

    def log(self, step: int, values: dict[str, float]) -> None:
        """Append values of one update."""
        self._folder.log(step, **values)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
