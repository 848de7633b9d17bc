"""Published figures of a benchmark, measured again with the authors' files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adanat_cli.core.checkpoints.hub import fetch_file
from adanat_cli.core.config import BENCHMARKS
from adanat_cli.core.config.published import PUBLISHED
from adanat_cli.core.config.reproduce import ReproduceRequest
from adanat_cli.core.config.requests import EvaluateRequest
from adanat_cli.core.config.share_requests import PullRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.hub import HubId
from adanat_cli.jobs.evaluate.evaluate import evaluate
from adanat_cli.jobs.evaluate.gallery import Gallery
from adanat_cli.jobs.reproduce.compare import Expected, compare
from adanat_cli.jobs.reproduce.needs import Need, model_folder, reference_file
from adanat_cli.jobs.runtime.reporter import Reporter
from adanat_cli.jobs.share.benchmarks import list_captions
from adanat_cli.jobs.share.pull import pull


def steps_of(request: ReproduceRequest) -> tuple[int, ...]:
    """Numbers of steps to measure: the given ones, those of published figures, or those of published policies."""
    published = tuple(dict.fromkeys(figure.num_steps for figure in PUBLISHED[request.name].figures))
    return request.steps or published or BENCHMARKS[request.name].policy_steps


def fetch(request: ReproduceRequest, output: Path, needs: list[Need], reporter: Reporter) -> None:
    """Fetch what is missing and can be fetched.

    Raises:
        AdaNATError: if a transfer fails; what is whole is kept, and the same call goes on after it.
    """
    missing = {need.part for need in needs if not need.here}
    networks = [need.part for need in needs if need.part in missing and need.advice.startswith("adanat pull")]
    given = request.tokenizer_file is not None and not _has(request, "tokenizer")
    if networks or given:
        parts = (*networks, *(["tokenizer"] if given else []))
        pull(PullRequest(request.name, components=parts, tokenizer_file=request.tokenizer_file), reporter)
    place = PUBLISHED[request.name].reference
    if "reference" in missing and place.repo:
        reporter.log(f"Fetching {place.file} from {place.repo}.")
        fetch_file(HubId(place.repo), place.file)
    captions = _captions(request, output)
    if BENCHMARKS[request.name].condition == "text" and not captions.is_file():
        list_captions(request.name, captions, request.num_samples, data_dir=str(request.data_dir or ""))


def measure_published(
    request: ReproduceRequest, output: Path, shown: list[Gallery], reporter: Reporter
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Measure the figures of a benchmark, all of whose files are here; ``shown`` takes the first images.

    Returns:
        The rows of the evaluation, and the comparisons; empty on processes other than the main one.

    Raises:
        AdaNATError: if the reference is missing, or a file does not fit.
    """
    benchmark, reference = BENCHMARKS[request.name], reference_file(request)
    if reference is None:
        raise AdaNATError(f"The reference of {request.name} is missing; `adanat reproduce {request.name} --dry-run`.")
    made = evaluate(
        EvaluateRequest(
            reference=reference,
            model=request.model or str(model_folder(request).path),
            output=output / "evaluation",
            protocol=request.protocol or benchmark.protocol,
            inception=request.inception,
            num_samples=request.num_samples or benchmark.eval_images,
            prompts_file=_captions(request, output) if benchmark.condition == "text" else None,
            steps=steps_of(request),
            schedules=("learned",),
            seed=request.seed or 0,
            precision=request.precision or "auto",
            batch_size=request.batch_size,
            device=request.device,
            workers=request.workers,
            part_size=request.part_size,
            spread=("fid",),
        ),
        reporter,
        shown,
    )
    rows: list[dict[str, Any]] = made.get("results", [])
    by_steps = {row["settings"]["num_steps"]: row for row in rows}
    comparisons = [
        compare(
            Expected(figure.metric, figure.value, benchmark.eval_images, figure.source, 0.5 * 10**-figure.decimals),
            by_steps[figure.num_steps],
        )
        for figure in PUBLISHED[request.name].figures
        if figure.num_steps in by_steps
    ]
    return rows, comparisons


def _captions(request: ReproduceRequest, output: Path) -> Path:
    """The captions to draw: a given file, or where the benchmark's own are written."""
    return request.prompts_file or output / "captions.txt"


def _has(request: ReproduceRequest, part: str) -> bool:
    folder = model_folder(request)
    return folder.exists() and folder.has(part)
