"""The loop that the trainings share: update, look at the result, save when it is due or a signal comes, export."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator

from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import NATTrainingConfig, TokenizerTrainingConfig
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.runtime.interrupts import Interrupt, deferred_interrupts
from adanat_cli.jobs.runtime.reporter import Reporter, Task
from adanat_cli.jobs.runtime.resume import Length
from adanat_cli.jobs.train.averages import Meter
from adanat_cli.jobs.train.run_folder import RunFolder

_OBSERVED = "observed"


class Trainer(Protocol):
    """The networks and optimizers of a training.

    Attributes:
        step: number of updates done.
    """

    step: int

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to go on exactly."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""


def open_run(
    path: Path, settings: dict[str, Any], accelerator: Accelerator, reporter: Reporter, length: Length
) -> tuple[RunFolder, dict[str, Any] | None]:
    """Open a run folder on every process, with the last whole state if there is one.

    Raises:
        AdaNATError: if it holds another run, or no state of it is whole.
    """
    main = accelerator.is_main_process
    with accelerator.main_process_first():
        folder = RunFolder(path, settings, write=main, length=length)
        state = folder.latest(reporter if main else None)
        if main:
            # A run whose exported model was damaged has lost nothing: it is written again from the state.
            ModelFolder(folder.model).drop_broken()
    return folder, state


class TrainingLoop(ABC):
    """One training; subclasses say what an update is, what to look at, and what to export.

    Attributes:
        folder, accelerator, reporter: where it writes, on which processes it runs, and whom it tells.
        trainer: what changes.
        num_updates, save_every: of the whole run, and between two saved states.
        exports_with_states: whether the model is written with every saved state, or at the end alone.
    """

    folder: RunFolder
    accelerator: Accelerator
    reporter: Reporter
    trainer: Trainer
    num_updates: int
    save_every: int
    exports_with_states = True
    _unseen = False

    @abstractmethod
    def update(self, task: Task) -> None:
        """Take one update and note what it measured."""

    @abstractmethod
    def observe(self, task: Task) -> None:
        """Measure and draw what is due after this update; changes no weights, and may be broken off and done again."""

    @abstractmethod
    def check(self) -> None:
        """Stop before anything that is not a number reaches the disk."""

    @abstractmethod
    def export(self) -> None:
        """Write the model as it is now."""

    def notes(self) -> dict[str, Any]:
        """What is saved beside the networks, for ``recall``."""
        return {}

    def recall(self, state: dict[str, Any]) -> None:  # noqa: B027 — not everyone has notes
        """Take ``notes`` back from a saved state."""

    def untimed(self) -> AbstractContextManager[None]:
        """Leave what happens inside out of the measured speed."""
        return nullcontext()

    def due(self, every: int) -> bool:
        """Whether something that is done every so many updates, and at the end, is to be done now."""
        return self.trainer.step % every == 0 or self.trainer.step == self.num_updates

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            AdaNATError: if it is not one of this training.
        """
        trainer = self.trainer
        with self.folder.taking(state, trainer.state_dict()):
            trainer.load_state_dict(state)
            self.recall(state)
        self._unseen = not state.get(_OBSERVED, True)
        self.reporter.log(f"Resuming at update {trainer.step} of {self.num_updates}.")

    def train(self) -> None:
        """Update until done.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once the state is saved.
            SystemExit: after SIGTERM or SIGHUP, once the state is saved; with 128 + the signal's number.
        """
        exported = False
        with (
            deferred_interrupts() as interrupt,
            self.reporter.task("Training", self.num_updates, "updates", self.trainer.step) as task,
        ):
            if self._unseen:
                exported = self._finish_update(interrupt, task)
            while self.trainer.step < self.num_updates:
                self.update(task)
                with self.untimed():
                    exported = self._finish_update(interrupt, task)
        if self.accelerator.is_main_process and not exported:
            self.export()

    def _finish_update(self, interrupt: Interrupt, task: Task) -> bool:
        """Observe, save, and leave if a signal asked for it; returns whether the model was exported."""
        main, num_logged, seen = self.accelerator.is_main_process, self.folder.num_logged(), True
        try:
            # Others go on until the main process, which alone saves, has left.
            with interrupt.at_once() if main else nullcontext():
                self.observe(task)
        except (KeyboardInterrupt, SystemExit):
            if not interrupt.raised:
                raise
            seen = False
        stop = interrupt.raised and main
        if not stop and not self.due(self.save_every):
            return False
        self.check()
        if not main:
            return False
        with interrupt.saving():
            state = {**self.trainer.state_dict(), **self.notes(), _OBSERVED: seen}
            self.folder.save(self.trainer.step, state, None if seen else num_logged)
        if interrupt.raised:
            self.reporter.log(f"Saved at update {self.trainer.step} of {self.num_updates}.")
        if self.exports_with_states:
            self.export()
        if interrupt.raised:
            raise interrupt.end()
        return self.exports_with_states


class MeteredLoop(TrainingLoop):
    """A training whose updates are measured by a ``Meter``, and whose result says what the exported weights reach."""

    meter: Meter
    measured: dict[str, float]
    advice: str
    """What to try after a divergence."""

    def untimed(self) -> AbstractContextManager[None]:
        """Stop the meter's clock."""
        return self.meter.paused()

    def check(self) -> None:
        """Stop before anything that is not a number reaches the disk."""
        if not self.meter.is_finite():
            raise AdaNATError(
                f"Training diverged before update {self.trainer.step}: a loss or gradient is not a number. The last "
                f"saved state in {self.folder.path} is kept; try {self.advice} with another --output."
            )

    def notes(self) -> dict[str, Any]:
        """What was measured last, and since then."""
        return {"measured": self.measured, "meter": self.meter.state_dict()}

    def recall(self, state: dict[str, Any]) -> None:
        """Take both back."""
        self.measured = dict(state["measured"])
        if "meter" in state:  # a state of an earlier edition has none
            self.meter.load_state_dict(state["meter"])


def training_length(config: TokenizerTrainingConfig | NATTrainingConfig) -> Length:
    """How long a training of a tokenizer or NAT is, and whether it may become longer."""
    cosine = (
        "with a learning rate that falls in a cosine to the last update (--decay cosine), other lengths have other "
        "rates from the first update on, so that of a run cannot change"
    )
    return Length("training.steps", cosine if config.decay == "cosine" else "")
