"""Jobs hold their output while they write into it."""

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
    """Hold a folder, or one file in it, within a block; files that killed runs left half-written there are removed.

    Of several processes, the main one holds it; the others end with it if that is refused. See ``locked``.
    """
    if not is_main_process():
        yield
        return
    with locked(folder, name):
        clear_litter(folder, name)
        yield


def holds_output(job: Job[Asked]) -> Job[Asked]:
    """Run a job only while no other run writes into the output folder of its request, if it names one."""

    @functools.wraps(job)
    def run(request: Asked, reporter: Reporter) -> dict[str, Any]:
        with nullcontext() if request.output is None else output_held(request.output):
            return job(request, reporter)

    return run
