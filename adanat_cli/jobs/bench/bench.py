"""Measure speed, operations and memory of a model, or of a size of NAT with random weights, on this machine."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from adanat_cli.core.config.bench import BenchRequest
from adanat_cli.jobs.bench.clock import PeakMemory, ProductRate
from adanat_cli.jobs.bench.sampling import Sampling
from adanat_cli.jobs.bench.subject import Subject, load_subject
from adanat_cli.jobs.bench.training import measure_policy, measure_tokenizing, measure_training
from adanat_cli.jobs.runtime.devices import pick_device
from adanat_cli.jobs.runtime.reporter import Reporter
from adanat_cli.jobs.train.nat_cost import count_parameters

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Row = dict[str, Any]


def bench(request: BenchRequest, reporter: Reporter) -> dict[str, Any]:
    """Measure what was asked for; returns the rows and the speed of a matrix product.

    Raises:
        AdaNATError: if there is no such model or device.
    """
    device = pick_device(request.device)
    before = PeakMemory(device).bytes()
    subject = load_subject(request, device)
    rates = {name: ProductRate(_DTYPES[name], device) for name in dict.fromkeys(("fp32", *request.formats))}
    jobs = _jobs(request, subject, device, reporter.log)
    rows = []
    with reporter.task("Measuring", len(jobs), "rows") as task:
        for facts, job in jobs:
            rows.append({**facts, **job()})
            rates[facts["precision"]].measure()
            task.advance()
    for row in rows:
        if row["measured"] != "policy" or row["precision"] == "fp32":  # other updates are in two formats
            row["share_of_product"] = 1e12 * row["tera_flops_per_second"] / rates[row["precision"]].best
    return {
        "model": subject.name,
        "num_parameters": count_parameters(subject.nat.config),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "num_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "repetitions": request.repetitions,
        "product_tera_flops_per_second": {name: rate.best / 1e12 for name, rate in rates.items()},
        "bytes_before": before,
        "rows": rows,
    }


def _jobs(
    request: BenchRequest, subject: Subject, device: torch.device, tell: Callable[[str], None]
) -> list[tuple[Row, Callable[[], Row]]]:
    """What to measure, each with the facts that tell it from others."""
    jobs: list[tuple[Row, Callable[[], Row]]] = []
    repetitions = request.repetitions
    if "sample" in request.measured:
        ways = itertools.product(
            request.num_steps, request.batch_sizes, request.formats, (False, True) if request.compiled else (False,)
        )
        for steps, batch, precision, compiled in ways:
            total = request.num_images or batch
            way = Sampling(subject, steps, batch, total, _DTYPES[precision], compiled, request.seed, device)
            facts = {"measured": "sample", "num_steps": steps, "batch_size": batch, "precision": precision}
            against = request.against == "plain"
            job = partial(way.measure, repetitions, against, tell)
            jobs.append(({**facts, "compiled": compiled, "num_images": total}, job))
    for batch in request.batch_sizes:
        facts = {"batch_size": batch}
        if "tokenize" in request.measured:
            job = partial(measure_tokenizing, subject, batch, device, repetitions)
            jobs.append(({"measured": "tokenize", **facts, "precision": "fp32"}, job))
        for precision in request.formats:
            facts = {"batch_size": batch, "precision": precision}
            if "train" in request.measured:
                job = partial(measure_training, subject, batch, precision, device, repetitions)
                jobs.append(({"measured": "train", **facts}, job))
            if "policy" in request.measured:
                steps = max(min(request.num_steps), 2)
                job = partial(measure_policy, subject, steps, batch, _DTYPES[precision], device, repetitions)
                jobs.append(({"measured": "policy", "num_steps": steps, **facts}, job))
    return jobs
