"""Files are written while the next batch is generated, in order and without loss."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from adanat_cli.jobs.sample.behind import Behind


def test_a_job_runs_while_the_caller_goes_on_and_the_next_waits_for_it() -> None:
    caller_went_on, done = threading.Event(), list[int]()

    def job(number: int) -> None:
        assert number or caller_went_on.wait(20)
        done.append(number)

    with Behind() as behind:
        behind.do(job, 0)
        assert done == []  # it waits for the line below
        caller_went_on.set()
        behind.do(job, 1)
        assert done[0] == 0
        behind.wait()
        assert done == [0, 1]
        behind.do(job, 2)
    assert done == [0, 1, 2]


def fail(*_: Any) -> None:
    raise OSError("the disk is full")


def two_jobs(second: Any) -> None:
    with Behind() as behind:
        behind.do(fail)
        second(behind)


def interrupt(_: Behind) -> None:
    raise KeyboardInterrupt


def test_what_a_job_raises_is_raised_at_the_next_call_or_on_leaving() -> None:
    later = list[str]()
    with pytest.raises(OSError, match="full"):
        two_jobs(lambda behind: behind.do(later.append, "went on"))
    assert later == []
    with pytest.raises(OSError, match="full"):
        two_jobs(lambda _: None)


def test_an_error_of_the_caller_is_not_hidden_by_the_jobs() -> None:
    with pytest.raises(KeyboardInterrupt):
        two_jobs(interrupt)
