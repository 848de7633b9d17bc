"""Fixed schedules at their best against the same distance: a small grid, or one searched table."""

from __future__ import annotations

from typing import Any

import torch

from adanat_cli.core.checkpoints.files import atomic_path
from adanat_cli.core.checkpoints.folder import policy_component
from adanat_cli.core.config import PolicyConfig
from adanat_cli.core.config.settings import PolicySettings
from adanat_cli.core.data.held_out import measured_on
from adanat_cli.core.generation.schedules import AutoNATSchedule, Schedule, TableSchedule
from adanat_cli.core.generation.search import TableSearch, grid
from adanat_cli.core.generation.tables import write_table
from adanat_cli.core.policy import build_policy
from adanat_cli.core.policy.schedule import base_schedule
from adanat_cli.jobs.runtime.interrupts import deferred_interrupts
from adanat_cli.jobs.runtime.reporter import Reporter
from adanat_cli.jobs.runtime.seeding import Stream, stream_seed
from adanat_cli.jobs.train.policy_distance import Evaluator
from adanat_cli.jobs.train.policy_setup import Setup, export_policy
from adanat_cli.jobs.train.run_folder import RunFolder


def search(
    request: PolicySettings,
    setup: Setup,
    shape: PolicyConfig,
    folder: RunFolder,
    state: dict[str, Any] | None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Find a table; ``training.trajectories`` images judge each candidate, always the same ones.

    Returns:
        Where it is and its distance to images that it was not searched with.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
    """
    training = request.training
    seen = Evaluator(setup.model, setup.conditions, setup.features, setup.reference, training.batch_size)
    held_out = Evaluator(
        setup.model, setup.held_out_conditions, setup.features, setup.held_out_reference, training.batch_size
    )

    def distance(schedule: Schedule) -> float:
        return seen.distance(schedule, stream_seed(Stream.TABLE_SEARCH, training.seed), training.trajectories)

    start = base_schedule(shape)
    if request.kind == "tuned":
        table, facts = _best_of_grid(request.num_steps, folder, state, distance, reporter)
    else:
        table, facts = _searched(request, folder, state, start, distance, reporter)
    seed = stream_seed(Stream.POLICY_EVALUATION, training.seed)
    reached, fixed = (held_out.distance(schedule, seed, training.eval_images) for schedule in (table, start))
    found = shape.replace(
        kind="table",
        schedule="autonat" if isinstance(table, AutoNATSchedule) else "table",
        schedule_table=tuple(map(tuple, table.table.tolist())),
    )
    facts = {"command": "train-policy", "kind": request.kind, **facts, "distance": reached, "fixed_distance": fixed}
    facts |= {"measured_on": measured_on(setup.held_out)}
    export_policy(request, setup, build_policy(found), facts)
    file = request.output / "table.yaml"
    with atomic_path(file) as temporary:
        write_table(temporary, table)
    return {
        "model": str(folder.model),
        "policy": policy_component(request.num_steps),
        "table": str(file),
        "schedule": f"{found.schedule}:{file}",
        "distance": reached,
        "fixed_distance": fixed,
        "num_images": training.eval_images,
        **{key: value for key, value in facts.items() if key in ("factors", "generations", "measured_on")},
    }


def _best_of_grid(
    num_steps: int, folder: RunFolder, state: dict[str, Any] | None, distance: Any, reporter: Reporter
) -> tuple[TableSchedule, dict[str, Any]]:
    """Measure every combination of a few factors on the cosine schedule, resumably."""
    combinations = list(grid(num_steps))
    measured: list[float] = state["distances"].tolist() if state else []
    with (
        deferred_interrupts() as interrupt,
        reporter.task("Measuring schedules", len(combinations), "schedules", len(measured)) as task,
    ):
        for _, schedule in combinations[len(measured) :]:
            with interrupt.at_once():  # a measurement that is broken off is taken again
                measured.append(distance(schedule))
            folder.log(len(measured), distance=measured[-1], best_distance=min(measured))
            with interrupt.saving():
                folder.save(len(measured), {"distances": torch.tensor(measured, dtype=torch.float64)})
            task.advance(1, best=min(measured))
            if interrupt.raised:
                raise interrupt.end()
    best = min(range(len(measured)), key=measured.__getitem__)
    factors, schedule = combinations[best]
    return schedule, {"factors": factors, "training_distance": measured[best]}


def _searched(
    request: PolicySettings,
    folder: RunFolder,
    state: dict[str, Any] | None,
    start: TableSchedule,
    distance: Any,
    reporter: Reporter,
) -> tuple[TableSchedule, dict[str, Any]]:
    """Let the evolution strategy run for ``training.updates`` generations, resumably."""
    training = request.training
    optimizer = TableSearch(start, training.seed)
    best_distance, best = float("inf"), start.table
    if state is not None:
        with folder.taking(state, {"search": optimizer.state_dict(), "best": best}):
            optimizer.load_state_dict(state["search"], state["step"])
            best_distance, best = float(state["best_distance"]), state["best"]
    else:
        best_distance = distance(start)
    with (
        deferred_interrupts() as interrupt,
        reporter.task("Searching", training.updates, "generations", optimizer.generation) as task,
    ):
        while optimizer.generation < training.updates:
            points = optimizer.candidates()
            tables = [optimizer.table(point) for point in points]
            with interrupt.at_once():  # a generation that is not whole begins anew
                distances = torch.tensor([distance(table) for table in tables], dtype=torch.float64)
            if float(distances.min()) < best_distance:
                best_distance, best = float(distances.min()), tables[int(distances.argmin())].table
            optimizer.tell(points, distances)
            folder.log(optimizer.generation, distance=float(distances.mean()), best_distance=best_distance)
            with interrupt.saving():
                folder.save(
                    optimizer.generation,
                    {"search": optimizer.state_dict(), "best_distance": best_distance, "best": best},
                )
            task.advance(1, distance=float(distances.mean()), best=best_distance)
            if interrupt.raised:
                raise interrupt.end()
    return optimizer.schedule(best), {"generations": optimizer.generation, "training_distance": best_distance}
