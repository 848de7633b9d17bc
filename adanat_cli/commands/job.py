"""What all commands have in common: the dry run, the job itself, the push of its result, and printing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from adanat_cli.commands import console
from adanat_cli.commands.options import Printing, RunOptions, TrainingOptions
from adanat_cli.commands.wording import lines_of
from adanat_cli.core.config.config_file import Command, as_config
from adanat_cli.core.errors import AdaNATError

if TYPE_CHECKING:
    from adanat_cli.jobs.runtime.reporter import Reporter

Request = TypeVar("Request")
Values = dict[str, Any]


def run(
    job: Callable[[Request, Reporter], Values],
    request: Request,
    printing: Printing,
    lines: Callable[[Values], Iterable[str]],
    plan: Callable[[Request], Values] | None = None,
    pushes: Literal["model", "tokens"] = "model",
    trains: Command | None = None,
) -> Values:
    """Run a job and print its result, which is empty on processes other than the main one; returns it.

    Args:
        job: does the work.
        request: what the job is asked for.
        printing: how to print; as ``RunOptions`` also whether to push the result, or to plan only.
        lines: turns the result into lines for people.
        plan: returns what the job would do.
        pushes: what to push: the result's "model", or its "output", a token set.
        trains: the training that it is, whose settings ``TrainingOptions`` can print.
    """
    repo, is_dry = (printing.push_to_hub, printing.dry_run) if isinstance(printing, RunOptions) else ("", False)
    if trains and plan and isinstance(printing, TrainingOptions) and printing.print_config:
        console.settings(as_config(plan(request), trains), printing.as_json)
        return {}
    if repo:
        _check_push(repo)
    if is_dry and plan is not None:
        values = plan(request)
        console.result(values, printing.as_json, lines_of(values))
        return values
    values = _pushed(job, request, repo, pushes) if repo else job(request, console.ConsoleReporter())
    if values:
        console.result(values, printing.as_json, lines(values))
    return values


def _check_push(repo: str) -> None:
    """Refuse what would keep the result from being pushed, before a run starts and in its dry run."""
    from adanat_cli.jobs.share.push import check_push

    check_push(repo)


def _pushed(
    job: Callable[[Request, Reporter], Values], request: Request, repo: str, kind: Literal["model", "tokens"]
) -> Values:
    """Run a job and push its result."""
    reporter = console.ConsoleReporter()
    values = job(request, reporter)
    if written := values.get("model" if kind == "model" else "output"):
        values |= {"pushed": _push(written, repo, kind, reporter)}
    return values


def _push(source: str, repo: str, kind: Literal["model", "tokens"], reporter: Reporter) -> Values:
    """Push what a run has written; returns where it went."""
    from adanat_cli.core.config.share_requests import PushRequest
    from adanat_cli.jobs.share.push import push

    try:
        pushed = push(PushRequest(source, repo, kind), reporter)
    except AdaNATError as error:
        flag = " --tokens" if kind == "tokens" else ""
        raise AdaNATError(
            f"The run is done and its result is in {source}. {error} Later: adanat push {source} {repo}{flag}"
        ) from error
    return {key: pushed[key] for key in ("url", "commit")}
