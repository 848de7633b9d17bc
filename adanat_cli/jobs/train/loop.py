"""The training loop: update, log, observe, save when it is due or a signal comes, and export at the end."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from PIL.Image import Image
from torch import Tensor

from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import NATTrainingConfig, TokenizerTrainingConfig
from adanat_cli.core.config.config_file import Record
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.reading import json_text
from adanat_cli.jobs.runtime.interrupts import Interrupt, deferred_interrupts
from adanat_cli.jobs.runtime.reporter import Reporter, SilentReporter, Task
from adanat_cli.jobs.runtime.resume import Length
from adanat_cli.jobs.sample.pictures import save_png
from adanat_cli.jobs.train.averages import Meter
from adanat_cli.jobs.train.run_folder import RunFolder
from adanat_cli.jobs.train.trackers import Trackers

_OBSERVED = "observed"


class Resumable:
    """An object whose state can be saved.

    Attributes:
        saved: names of the attributes to save: modules and optimizers by their own ``state_dict``, others as they are.
    """

    saved: ClassVar[tuple[str, ...]] = ()

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to continue exactly."""
        parts = {name: getattr(self, name) for name in self.saved}
        return {name: part.state_dict() if hasattr(part, "state_dict") else part for name, part in parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        for name in self.saved:
            part = getattr(self, name)
            if hasattr(part, "load_state_dict"):
                part.load_state_dict(state[name])
            else:
                setattr(self, name, state[name])


class Trainer(Resumable):
    """The networks and optimizers of a training, and its update.

    Attributes:
        step: number of updates done.
        is_sharded: whether each process has a part of the networks, so that all must take part in saving them.
    """

    step = 0
    is_sharded = False

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        super().load_state_dict(state)
        self.step = state["step"]

    def whole_state(self) -> dict[str, Any]:
        """The state to save; of a sharded trainer, all processes call it, and the main one gets it."""
        return self.state_dict()

    def gather(self) -> None:
        """Bring what is measured and exported together on the main process, where it is sharded; all call it."""


class Run:
    """A run folder that is open on every process.

    Attributes:
        folder: where the main process writes.
        accelerator: devices and processes.
        reporter: silent on processes other than the main one.
        settings: everything that decides the result.
    """

    def __init__(
        self,
        output: Path,
        settings: dict[str, Any],
        accelerator: Accelerator,
        reporter: Reporter,
        length: Length,
        note: str = "",
        record: Record | None = None,
        track: Sequence[str] = (),
    ) -> None:
        """Create the folder and log the note, or open it to resume.

        Args:
            output: run folder.
            settings: everything that decides the result.
            accelerator: devices and processes.
            reporter: to whom the main process reports.
            length: length of the training.
            note: a line for a new run.
            record: what a file of settings says of its run; a line says where this one is no repetition.
            track: trackers that the numbers are also sent to.

        Raises:
            AdaNATError: if it holds another run, every saved state is damaged, or a tracker cannot be opened.
        """
        main = accelerator.is_main_process
        self.settings, self.accelerator = settings, accelerator
        self.reporter = reporter if main else SilentReporter()
        with accelerator.main_process_first():
            self.folder = RunFolder(output, settings, write=main, length=length)
            self._state = self.folder.latest(self.reporter)
            if main:
                # A run whose exported model was damaged has lost nothing: it is written again from the state.
                ModelFolder(self.folder.model).drop_broken()
        if note and self.is_new:
            self.reporter.log(note)
        if record and (difference := record.difference(json.loads(json_text(settings)))):
            self.reporter.warn(difference)
        first = self._state["step"] + 1 if self._state else 0
        self._trackers = Trackers(track, output, settings, first, reporter) if main else None

    @property
    def is_new(self) -> bool:
        """Whether there is no saved state to resume from."""
        return self._state is None

    def log(self, step: int, **values: float) -> None:
        """Log numbers of an update to ``metrics.jsonl`` and the trackers."""
        self.folder.log(step, **values)
        if self._trackers:
            self._trackers.log(step, values)

    def close(self) -> None:
        """Close the trackers."""
        if self._trackers:
            self._trackers.close()

    def take_state(self) -> dict[str, Any] | None:
        """Hand over the last whole state, which is as large as the networks and optimizers together."""
        state, self._state = self._state, None
        return state


class TrainingLoop(Resumable, ABC):
    """One training; subclasses define its update, what to observe, and what to export.

    Attributes:
        run: where it writes, on which processes it runs, and to whom it reports.
        trainer: networks and optimizers.
        num_updates: length of the whole training.
        save_every: updates between two saved states.
        name, unit: names of the training and of one update, on the progress bar.
        exports_with_states: whether the model is written with every saved state, or at the end alone.
        task: progress of the training, while it runs.
        repeats_updates: whether a signal breaks an update off, which is then done again, or waits for its end.
    """

    name, unit = "Training", "updates"
    exports_with_states = True
    repeats_updates = False
    task: Task
    _observed = True

    def __init__(self, run: Run, trainer: Trainer, num_updates: int, save_every: int) -> None:
        """Connect the parts."""
        self.run, self.trainer = run, trainer
        self.num_updates, self.save_every = num_updates, save_every
        self.folder, self.accelerator, self.reporter = run.folder, run.accelerator, run.reporter

    @abstractmethod
    def update(self) -> None:
        """Take one update."""

    @abstractmethod
    def log(self, task: Task) -> None:
        """Log what the update measured, and advance the progress bar."""

    def observe(self, task: Task) -> None:
        """Measure and draw what is due after this update; changes no weights, and may be broken off and repeated."""

    def check(self) -> None:
        """Stop before anything that is not a number reaches the disk."""

    def gather(self) -> None:
        """Bring together what ``observe`` needs, where processes share it."""

    @abstractmethod
    def export(self) -> None:
        """Write the model as it is now."""

    @abstractmethod
    def result(self) -> dict[str, Any]:
        """Where the model is, and what was measured."""

    def untimed(self) -> AbstractContextManager[None]:
        """Exclude a block from the measured speed."""
        return nullcontext()

    def due(self, interval: int) -> bool:
        """Whether something that is done every ``interval`` updates, and at the end, is due now."""
        return self.trainer.step % interval == 0 or self.trainer.step == self.num_updates

    def start(self) -> None:
        """Resume from the last saved state, if there is one.

        Raises:
            AdaNATError: if the state is not one of this training.
        """
        if (state := self.run.take_state()) is None:
            return
        with self.folder.taking(state, self.trainer.state_dict()):
            self.trainer.load_state_dict(state)
            self.load_state_dict(state)
        self._observed = state.get(_OBSERVED, True)
        self.reporter.log(f"Resuming at {self._progress()}.")

    def train(self) -> dict[str, Any]:
        """Update until done.

        Returns:
            Where the model is and what was measured; empty on processes other than the main one.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once the state is saved.
            SystemExit: after SIGTERM or SIGHUP, once the state is saved; with 128 + the signal's number.
        """
        with closing(self.run):
            return self._train()

    def _train(self) -> dict[str, Any]:
        self.start()
        with (
            deferred_interrupts() as interrupt,
            self.reporter.task(self.name, self.num_updates, self.unit, self.trainer.step) as task,
        ):
            self.task = task
            if not self._observed:
                self._observe_and_save(task, interrupt)
            while self.trainer.step < self.num_updates:
                with interrupt.at_once() if self.repeats_updates else nullcontext():
                    self.update()
                self.log(task)
                with self.untimed():
                    self._observe_and_save(task, interrupt)
        self._export()
        self.accelerator.wait_for_everyone()
        return self.result() if self.accelerator.is_main_process else {}

    def _observe_and_save(self, task: Task, interrupt: Interrupt) -> None:
        """Observe; save if it is due or a signal came, and then leave."""
        main, num_logged, observed = self.accelerator.is_main_process, self.folder.num_logged(), True
        self.gather()
        try:
            # The other processes continue until the main process, which alone saves, has left.
            with interrupt.at_once() if main else nullcontext():
                self.observe(task)
        except BaseException:  # libraries that are not written in Python turn the end into errors of their own
            if not interrupt.raised:
                raise
            observed = False
        if self.trainer.is_sharded:
            interrupt.number = self._agreed(interrupt.number)
        is_asked = interrupt.raised and (main or self.trainer.is_sharded)
        if not is_asked and not self.due(self.save_every):
            return
        self.check()
        if not main and not self.trainer.is_sharded:
            return
        with interrupt.saving():
            state = {**self.trainer.whole_state(), **self.state_dict(), _OBSERVED: observed}
            if main:
                self.folder.save(self.trainer.step, state, None if observed else num_logged)
        if is_asked:
            self.reporter.log(f"Saved at {self._progress()}.")
        if self.exports_with_states and (is_asked or self.trainer.step < self.num_updates):
            self._export()  # after the last update ``train`` does
        if is_asked:
            raise interrupt.end()

    def _export(self) -> None:
        """Write the model as it is now, on the main process."""
        self.trainer.gather()
        if self.accelerator.is_main_process:
            self.export()

    def _agreed(self, number: int) -> int:
        """The signal that any process has got; 0 for none."""
        signals = torch.tensor(number, device=self.accelerator.device)
        torch.distributed.all_reduce(signals, op=torch.distributed.ReduceOp.MAX)
        return int(signals)

    def _progress(self) -> str:
        return f"{self.unit.removesuffix('s')} {self.trainer.step} of {self.num_updates}"


class MeteredLoop(TrainingLoop):
    """A training whose updates are measured by a ``Meter``, and which observes its averaged weights.

    Attributes:
        config: settings of the training.
        meter: means of what the updates measured since the last log.
        measured: what the averaged weights, which are exported, reached last.
        shown: names of the means on the progress bar.
        advice: what to try after a divergence.
    """

    saved = ("measured", "meter")
    shown: ClassVar[tuple[str, ...]] = ()
    advice: ClassVar[str]

    def __init__(
        self, run: Run, trainer: Trainer, config: TokenizerTrainingConfig | NATTrainingConfig, stats: tuple[str, ...]
    ) -> None:
        """Connect the parts; ``stats`` names the statistics of an update."""
        super().__init__(run, trainer, config.steps, config.save_every)
        self.config, self.measured = config, dict[str, float]()
        self.meter = Meter(stats, config.batch_size, run.accelerator)

    @abstractmethod
    def learn(self) -> Tensor:
        """Take one update; returns (S,) statistics on the device, so that nothing waits for them."""

    @abstractmethod
    def show(self) -> tuple[dict[str, float], Image]:
        """Measure the averaged weights into ``measured``; returns what of it is logged, and a picture."""

    def gather(self) -> None:
        """Bring the averaged weights together where they are due to be measured."""
        if self.due(self.config.sample_every):
            self.trainer.gather()

    def means(self) -> dict[str, float]:
        """What was measured since the last log."""
        return self.meter.read()

    def update(self) -> None:
        """Take one update."""
        self.meter.add(self.learn())

    def log(self, task: Task) -> None:
        """Log the means since the last log if they are due, and advance the progress bar."""
        fields: dict[str, float] = {}
        if self.due(self.config.log_every):
            self.check()
            step, values = self.trainer.step, self.means()
            self.run.log(step, **values, learning_rate=self.config.learning_rate_at(step - 1))
            fields = {name: values[name] for name in self.shown} | {"img/s": values["images_per_second"]}
        task.advance(1, **fields)

    def observe(self, task: Task) -> None:
        """Measure the averaged weights and save a picture of what they do."""
        if self.accelerator.is_main_process and self.due(self.config.sample_every):
            values, picture = self.show()
            self.run.log(self.trainer.step, **values)
            save_png(self.folder.samples / f"step-{self.trainer.step:08d}.png", picture)

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

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state; one of an earlier version has no meter."""
        super().load_state_dict({"meter": self.meter.state_dict(), **state})

    def result(self) -> dict[str, Any]:
        """Where the model is, and what was measured last."""
        return {"model": str(self.folder.model), "steps": self.trainer.step, **self.measured}


def training_length(config: TokenizerTrainingConfig | NATTrainingConfig) -> Length:
    """How long a training of a tokenizer or NAT is, and whether it may become longer."""
    cosine = (
        "with a learning rate that falls in a cosine to the last update (--decay cosine), another length changes the "
        "rates from the first update on, so the length of a run cannot change"
    )
    return Length("training.steps", cosine if config.decay == "cosine" else "")
