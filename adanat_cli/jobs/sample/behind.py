"""Work that is done behind the caller's back, in order: files of one batch are written while the next is generated."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self


class Behind:
    """A thread for one job at a time; a second waits for the first, so that at most one batch is held beside the next.

    Leaving the block waits for the last job. What a job raises is raised at the next call, or on leaving.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._job: Future[Any] | None = None

    def do(self, job: Callable[..., object], *arguments: Any) -> None:
        """Start a job, once the one before is done."""
        self.wait()
        self._job = self._thread.submit(job, *arguments)

    def wait(self) -> None:
        """Wait until nothing is left to do."""
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._thread.shutdown()  # after the job that has begun, so that no file is cut off
        if kind is None:
            self.wait()
