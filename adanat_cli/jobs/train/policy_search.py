"""Fixed schedules at their best against the same distance: a small grid, or one searched table."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from adanat_cli.core.checkpoints.files import atomic_path
from adanat_cli.core.checkpoints.folder import policy_component
from adanat_cli.core.config import PolicyConfig
from adanat_cli.core.config.settings import PolicySettings
from adanat_cli.core.generation.schedules import AutoNATSchedule, Schedule, TableSchedule
from adanat_cli.core.generation.search import TableSearch, grid
from adanat_cli.core.generation.tables import write_table
from adanat_cli.core.policy import build_policy
from adanat_cli.core.policy.schedule import base_schedule
from adanat_cli.jobs.runtime.reporter import Task
from adanat_cli.jobs.runtime.seeding import Stream, stream_seed
from adanat_cli.jobs.train.loop import Run, Trainer, TrainingLoop
from adanat_cli.jobs.train.policy_distance import Evaluator
from adanat_cli.jobs.train.policy_setup import Setup, export_policy

Distance = Callable[[Schedule], float]
"""Distance of a schedule's images to the training images, over the same images for all candidates."""


def search(request: PolicySettings, run: Run, setup: Setup, shape: PolicyConfig) -> dict[str, Any]:
    """Find a table; ``training.trajectories`` images measure each candidate, always the same ones.

    Returns:
        Where it is and its distance to images that it was not searched with.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
    """
    training = request.training
    evaluator = Evaluator(setup.model, setup.conditions, setup.features, setup.reference, training.batch_size)

    def distance(schedule: Schedule) -> float:
        return evaluator.distance(schedule, stream_seed(Stream.TABLE_SEARCH, training.seed), training.trajectories)

    trainer: Search = GridSearch(request.num_steps, distance)
    if request.kind == "search":
        trainer = EvolutionSearch(base_schedule(shape), training.seed, training.updates, distance)
    return SearchLoop(run, trainer, request, setup, shape).train()


class Search(Trainer):
    """A search for a table, one or several candidates at a time.

    Attributes:
        name, unit: names of the search and of one update, on the progress bar.
        num_updates: length of the whole search.
    """

    name: str
    unit: str
    num_updates: int

    @abstractmethod
    def update(self) -> dict[str, float]:
        """Measure further candidates; returns their mean distance and the lowest so far."""

    @abstractmethod
    def found(self) -> tuple[TableSchedule, dict[str, Any]]:
        """The best table, and how it was found."""


class GridSearch(Search):
    """Every combination of a few factors on the cosine schedule."""

    name, unit = "Measuring schedules", "schedules"
    saved = ("distances",)

    def __init__(self, num_steps: int, distance: Distance) -> None:
        """Start with no combination measured."""
        self._combinations, self._distance = list(grid(num_steps)), distance
        self.num_updates = len(self._combinations)
        self.distances: Tensor | None = None  # (step,) float64

    def update(self) -> dict[str, float]:
        """Measure one combination."""
        measured = torch.tensor([self._distance(self._combinations[self.step][1])], dtype=torch.float64)
        self.distances = measured if self.distances is None else torch.cat([self.distances, measured])
        self.step += 1
        return {"distance": float(measured), "best_distance": float(self.distances.min())}

    def found(self) -> tuple[TableSchedule, dict[str, Any]]:
        """The best combination."""
        assert self.distances is not None
        distances = self.distances.tolist()
        factors, schedule = self._combinations[distances.index(min(distances))]
        return schedule, {"factors": factors, "training_distance": min(distances)}


class EvolutionSearch(Search):
    """Generations of an evolution strategy."""

    name, unit = "Searching", "generations"
    saved = ("search", "best_distance", "best")

    def __init__(self, start: TableSchedule, seed: int, num_updates: int, distance: Distance) -> None:
        """Start at a schedule."""
        self.num_updates, self._start, self._distance = num_updates, start, distance
        self.search = TableSearch(start, seed)
        self.best_distance, self.best = math.inf, start.table

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        super().load_state_dict(state)
        self.search.generation = self.step

    def update(self) -> dict[str, float]:
        """Measure one generation."""
        if self.step == 0:
            self.best_distance = self._distance(self._start)
        points = self.search.candidates()
        tables = [self.search.table(point) for point in points]
        distances = torch.tensor([self._distance(table) for table in tables], dtype=torch.float64)
        if float(distances.min()) < self.best_distance:
            self.best_distance, self.best = float(distances.min()), tables[int(distances.argmin())].table
        self.search.tell(points, distances)
        self.step += 1
        return {"distance": float(distances.mean()), "best_distance": self.best_distance}

    def found(self) -> tuple[TableSchedule, dict[str, Any]]:
        """The best table of all generations."""
        return self.search.schedule(self.best), {"generations": self.step, "training_distance": self.best_distance}


class SearchLoop(TrainingLoop):
    """A search that saves its state after every update."""

    trainer: Search
    exports_with_states = False
    repeats_updates = True

    def __init__(self, run: Run, trainer: Search, request: PolicySettings, setup: Setup, shape: PolicyConfig) -> None:
        """Connect the parts."""
        super().__init__(run, trainer, trainer.num_updates, save_every=1)
        self.name, self.unit = trainer.name, trainer.unit
        self.request, self.setup, self.shape = request, setup, shape

    def update(self) -> None:
        """Measure further candidates."""
        self._stats = self.trainer.update()

    def log(self, task: Task) -> None:
        """Log the distances, and advance the progress bar."""
        self.run.log(self.trainer.step, **self._stats)
        task.advance(1, distance=self._stats["distance"], best=self._stats["best_distance"])

    def export(self) -> None:
        """Measure the table and the base schedule on held-out images, and write the table as a policy and a file."""
        request, setup, training = self.request, self.setup, self.request.training
        held_out = Evaluator(
            setup.model, setup.held_out_conditions, setup.features, setup.held_out_reference, training.batch_size
        )
        table, facts = self.trainer.found()
        seed = stream_seed(Stream.POLICY_EVALUATION, training.seed)
        with self.reporter.task("Measuring the table and the base", 2 * training.eval_images, "img") as task:
            reached, fixed = (
                held_out.distance(schedule, seed, training.eval_images, task)
                for schedule in (table, base_schedule(self.shape))
            )
        found = self.shape.replace(
            kind="table",
            schedule="autonat" if isinstance(table, AutoNATSchedule) else "table",
            schedule_table=tuple(map(tuple, table.table.tolist())),
        )
        facts = {"command": "train-policy", "kind": request.kind, **facts, "distance": reached, "fixed_distance": fixed}
        facts |= {"measured_on": self.setup.measured_on}
        export_policy(request, self.setup, build_policy(found), facts)
        file = request.output / "table.yaml"
        with atomic_path(file) as temporary:
            write_table(temporary, table)
        self._result = {
            "model": str(self.folder.model),
            "policy": policy_component(request.num_steps),
            "table": str(file),
            "schedule": f"{found.schedule}:{file}",
            "distance": reached,
            "fixed_distance": fixed,
            "num_images": training.eval_images,
            **{key: value for key, value in facts.items() if key in ("factors", "generations", "measured_on")},
        }

    def result(self) -> dict[str, Any]:
        """Where the table is, and its distance to images that it was not searched with."""
        return self._result
