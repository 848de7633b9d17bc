"""One pass of a feature network over many images: shared by processes, interruptible, resumable."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adanat_cli.core.data.parts import Parts
from adanat_cli.core.errors import require
from adanat_cli.core.metrics.extraction import Extractor
from adanat_cli.jobs.evaluate.clip_scorer import ClipScorer
from adanat_cli.jobs.evaluate.feature_store import FeatureStore
from adanat_cli.jobs.evaluate.image_sets import ImageBatch, ImagePart
from adanat_cli.jobs.runtime.devices import Processes
from adanat_cli.jobs.runtime.interrupts import Interrupt, deferred_interrupts
from adanat_cli.jobs.runtime.reporter import Reporter, Task

_RESIZED_AT_ONCE, _RESIZED_AT_ONCE_ON_GPU = 8, 128
"""Images in a pass of a network that sees them at 224 to 518 pixels; on a CPU more make it no faster, only larger."""
_NOT_FINITE = "The {} of some images by {} are not finite numbers; check the network's weights and the images."


def open_store(folder: Path, settings: dict[str, Any], processes: Processes, reporter: Reporter) -> FeatureStore:
    """Open the same store on every process, and log what an earlier run has left in it."""
    with processes.state.main_process_first():
        store = FeatureStore(folder, settings, write=processes.is_main)
    if store.num_found:
        reporter.log(f"{folder} holds {store.num_found} finished part(s); resuming after them.")
    return store


def progress(reporter: Reporter, description: str, parts: Parts, store: FeatureStore) -> Task:
    """Open the progress bar of this process's images."""
    return reporter.task(description, parts.num_mine(), "images", parts.num_mine(store.has) or 0)


def extract_features(
    parts: Iterator[ImagePart],
    store: FeatureStore,
    extractor: Extractor,
    processes: Processes,
    task: Task,
    scorer: ClipScorer | None = None,
) -> float | None:
    """Write the features of this process's parts.

    The features of an image depend neither on the number of processes nor on where an earlier run was interrupted:
    parts are fixed ranges, and batches start anew with every part.

    Args:
        parts: parts that this process measures, without those that the store has.
        store: to write to.
        extractor: feature network.
        processes: processes that extract together.
        task: progress bar of this process.
        scorer: compares images with their prompts, where they have some; None leaves that out.

    Returns:
        Images of this run per second, on all processes together; None where earlier runs had done all.

    Raises:
        AdaNATError: if images cannot be read, or the disk is full.
        KeyboardInterrupt: after Ctrl-C; parts that are whole are kept.
        SystemExit: after SIGTERM or SIGHUP, as well.
    """
    start, num_rows = time.perf_counter(), 0
    with deferred_interrupts() as interrupt:
        for part in parts:
            columns, skipped = _extract_part(part, extractor, scorer, processes.device, task, interrupt)
            columns = columns or {"features": torch.empty(0, extractor.feature_width)}
            num_rows += len(columns["features"])
            store.add(part.number, columns, skipped)
    processes.state.wait_for_everyone()
    seconds = time.perf_counter() - start
    return processes.sum(num_rows) / seconds or None


def _extract_part(
    part: ImagePart,
    extractor: Extractor,
    scorer: ClipScorer | None,
    device: torch.device,
    task: Task,
    interrupt: Interrupt,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Columns of one part on the CPU, empty if it has no images; and what could not be read."""
    pieces: dict[str, list[Tensor]] = {}
    skipped: dict[str, str] = {}
    for batch in part.batches:
        skipped.update(batch.skipped)
        task.advance(len(batch.skipped))
        for some in _passes(batch, extractor.protocol != "small" or scorer is not None, device):
            columns = {**extractor(some.images)._asdict(), "labels": some.labels, "errors": some.errors}
            if scorer is not None and some.prompts is not None:
                columns["clip"] = scorer(some.images, some.prompts)
            for name, column in columns.items():
                if column is not None:
                    require(bool(column.isfinite().all()), _NOT_FINITE.format(name, extractor.name))
                    pieces.setdefault(name, []).append(column.cpu())
            task.advance(len(some.images))
            if interrupt.raised:
                raise interrupt.end()
    return {name: torch.cat(column) for name, column in pieces.items()}, skipped


def _passes(batch: ImageBatch, resized: bool, device: torch.device) -> Iterator[ImageBatch]:
    """Cut a batch into what the networks take at a time; ``resized`` if one of them sees images at its own size."""
    size = max(1, len(batch.images))  # as many as were decoded or generated together
    if resized:
        size = _RESIZED_AT_ONCE if device.type == "cpu" else _RESIZED_AT_ONCE_ON_GPU
    for start in range(0, len(batch.images), size):
        rows = slice(start, start + size)
        labels = None if batch.labels is None else batch.labels[rows]
        prompts = None if batch.prompts is None else batch.prompts[rows]
        errors = None if batch.errors is None else batch.errors[rows]
        yield ImageBatch(batch.images[rows], labels, prompts=prompts, errors=errors)
