"""Jobs that write into an output hold it while they run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

from adanat_cli.core.checkpoints.files import clear_litter
from adanat_cli.core.checkpoints.lock import locked
from adanat_cli.jobs.runtime.group import is_main_process
from adanat_cli.jobs.runtime.reporter import Reporter


class _Request(Protocol):
    @property
    def output(self) -> Path | None: ...


Asked = TypeVar("Asked", bound=_Request)
Job = Callable[[Asked, Reporter], dict[str, Any]]


@contextmanager
def output_held(folder: Path, name: str = "") -> Iterator[None]:
    """Hold a folder, or one file of it, inside a block; what killed runs have left half-written there is removed.

    Of several processes the main one holds it; the others end with it where it is refused. See ``locked``.
    """
    if not is_main_process():
        yield
        return
    with locked(folder, name):
        clear_litter(folder, name)
        yield


def holds_output(job: Job[Asked]) -> Job[Asked]:
    """Let a job run only while nobody else writes into its request's output folder, if it names one."""

    @functools.wraps(job)
    def run(request: Asked, reporter: Reporter) -> dict[str, Any]:
        with nullcontext() if request.output is None else output_held(request.output):
            return job(request, reporter)

    return run
