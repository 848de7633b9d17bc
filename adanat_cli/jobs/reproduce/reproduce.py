"""``adanat reproduce``: published or recorded figures beside the same ones, measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adanat_cli.core.checkpoints.files import write_json
from adanat_cli.core.config import BENCHMARKS
from adanat_cli.core.config.published import PUBLISHED
from adanat_cli.core.config.reproduce import ReproduceRequest
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.metrics.inception import POOL_WIDTH, SPATIAL_WIDTH
from adanat_cli.jobs.evaluate.gallery import Gallery
from adanat_cli.jobs.reproduce.compare import derivation, outside
from adanat_cli.jobs.reproduce.needs import Need, needs_of, with_facts
from adanat_cli.jobs.reproduce.published import fetch, measure_published, steps_of
from adanat_cli.jobs.reproduce.recorded import Recorded, check_networks, measure_again, recorded_results
from adanat_cli.jobs.reproduce.report import write_report
from adanat_cli.jobs.resolve.models import nat_config, resolve_model
from adanat_cli.jobs.runtime.devices import Processes, start_processes
from adanat_cli.jobs.runtime.reporter import Reporter, SilentReporter, Task
from adanat_cli.jobs.share.benchmarks import describe_benchmark

_FORMAT_VERSION = 1
_FLOAT_BYTES, _CLASSES = 4, 1008


def reproduce(request: ReproduceRequest, reporter: Reporter) -> dict[str, Any]:
    """Measure the figures of a benchmark, or those that a model records of itself, again.

    Returns:
        What was compared and where the report is; for a benchmark whose files have to be downloaded by hand, only what
        is missing. Empty on processes other than the main one.

    Raises:
        AdaNATError: if there is nothing to measure, or a file cannot be fetched or does not fit.
        KeyboardInterrupt: after Ctrl-C; the same call goes on.
    """
    processes = start_processes(request.device)
    reporter = _Once(reporter if processes.is_main else SilentReporter())
    if request.name in BENCHMARKS:
        return _published(request, processes, reporter)
    folder, recorded, left = _recorded(request)
    check_networks(recorded)
    output = _output(request, folder.title)
    shown: list[Gallery] = []
    rows, comparisons = measure_again(folder.name, recorded, request, output, shown, reporter)
    return _finish(request, output, rows, comparisons, shown, left) if rows else {}


def plan(request: ReproduceRequest, reporter: Reporter) -> dict[str, Any]:  # noqa: ARG001 - as ``reproduce``
    """Return what is missing and what the measurement costs; nothing is fetched or generated.

    Raises:
        AdaNATError: if there is nothing to measure.
    """
    if request.name in BENCHMARKS:
        needs = with_facts(needs_of(request, steps_of(request)))
        return _planned(request, needs)
    folder, recorded, left = _recorded(request)
    nat = folder.header("nat").num_parameters
    return {
        "name": folder.name,
        "needs": [],
        "missing": [],
        "figures": sum(len(one.values) for one in recorded),
        "left_out": left,
        "cost": _cost(
            [(request.num_samples or one.num_images, one.num_steps) for one in recorded], nat, _tokens(folder)
        ),
    }


def _tokens(folder: Any) -> int:
    """Tokens of an image."""
    height, width = nat_config(folder).grid
    return height * width


def _recorded(request: ReproduceRequest) -> tuple[Any, list[Recorded], dict[str, str]]:
    """The model, its results that can be measured again, and why others cannot."""
    given = {
        "--model": request.model,
        "--tokenizer-file": request.tokenizer_file,
        "--ref": request.reference,
        "--inception": request.inception,
        "--prompts": request.prompts_file,
        "--data-dir": request.data_dir,
    }
    idle = [flag for flag, value in given.items() if value]
    require(
        not idle,
        f"{', '.join(idle)} is for published benchmarks ({', '.join(BENCHMARKS)}); {request.name} names a model, whose "
        "recorded results are measured with what it brings. Leave it out.",
    )
    try:
        folder = resolve_model(request.name)
    except AdaNATError as error:
        if Path(request.name).exists():
            raise
        raise AdaNATError(f"{error} Published benchmarks: {', '.join(BENCHMARKS)}.") from error
    return folder, *recorded_results(folder, request)


def _published(request: ReproduceRequest, processes: Processes, reporter: Reporter) -> dict[str, Any]:
    needs = needs_of(request, steps_of(request))
    processes.state.wait_for_everyone()  # all have looked before any fetches
    if any(need.by_hand and not need.here for need in needs):
        return _planned(request, with_facts(needs)) if processes.is_main else {}
    output = _output(request, request.name)
    with processes.state.main_process_first():
        if processes.is_main:
            fetch(request, output, needs, reporter)
    shown: list[Gallery] = []
    rows, comparisons = measure_published(request, output, shown, reporter)
    return _finish(request, output, rows, comparisons, shown, {}, needs) if rows else {}


def _planned(request: ReproduceRequest, needs: list[Need]) -> dict[str, Any]:
    benchmark, steps = BENCHMARKS[request.name], steps_of(request)
    number = request.num_samples or benchmark.eval_images
    missing = [need for need in needs if not need.here]
    height, width = benchmark.grid
    nat = describe_benchmark(request.name)["parameters"]["nat"]
    return {
        "name": request.name,
        "needs": [need.to_json() for need in needs],
        "missing": [need.part for need in missing],
        "by_hand": [need.part for need in missing if need.by_hand],
        "figures": sum(figure.num_steps in steps for figure in PUBLISHED[request.name].figures),
        "left_out": {},
        "cost": _cost([(number, one) for one in steps], nat, height * width)
        | {"fetched_bytes": sum(need.num_bytes for need in missing)},
    }


def _cost(measured: Sequence[tuple[int, int]], num_parameters: int, num_tokens: int) -> dict[str, Any]:
    """What images and steps take: operations of the NAT alone, with two forwards a step, and the largest features."""
    each = 2 * num_parameters * num_tokens  # a multiply-add counts as 2
    forwards = sum(number * 2 * steps for number, steps in measured)
    most = max(number for number, _ in measured)
    return {
        "num_images": sum(number for number, _ in measured),
        "tera_flops": each * forwards / 1e12,
        "feature_bytes": most * (POOL_WIDTH + SPATIAL_WIDTH + _CLASSES) * _FLOAT_BYTES,
    }


def _output(request: ReproduceRequest, name: str) -> Path:
    return request.output or Path("reproductions") / name


def _finish(
    request: ReproduceRequest,
    output: Path,
    rows: list[dict[str, Any]],
    comparisons: list[dict[str, Any]],
    shown: Sequence[Gallery],
    left: dict[str, str],
    needs: Sequence[Need] = (),
) -> dict[str, Any]:
    """Write the report; returns what it says."""
    values = {
        "format_version": _FORMAT_VERSION,
        "name": request.name,
        "comparisons": comparisons,
        "outside": outside(comparisons),
        "derivation": derivation(comparisons),
        "left_out": left,
        "files": [need.to_json() for need in needs],
        "results": rows,
    }
    path = output / "reproduction.json"
    write_json(path, values)
    write_report(output / "report.html", values, shown)
    return values | {"missing": [], "reproduction": str(path), "report": str(output / "report.html")}


@dataclass
class _Once:
    """Passes every line on once: several evaluations would repeat their warnings."""

    reporter: Reporter
    said: set[str] = field(default_factory=set)

    def log(self, text: str) -> None:
        """Report one line."""
        if text not in self.said:
            self.said.add(text)
            self.reporter.log(text)

    def warn(self, text: str) -> None:
        """Report one line that the user should not miss."""
        if text not in self.said:
            self.said.add(text)
            self.reporter.warn(text)

    def task(self, description: str, total: int | None, unit: str = "it", done: int = 0) -> Task:
        """Open a progress bar."""
        return self.reporter.task(description, total, unit, done)
