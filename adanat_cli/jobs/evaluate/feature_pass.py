"""One pass of a feature network over many images: shared out, interruptible, resumable."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from adanat_cli.core.errors import require
from adanat_cli.core.metrics.extraction import Extractor
from adanat_cli.jobs.evaluate.clip_scorer import ClipScorer
from adanat_cli.jobs.evaluate.feature_store import FeatureStore
from adanat_cli.jobs.evaluate.image_sets import ImageBatch, Part
from adanat_cli.jobs.runtime.interrupts import Interrupt, deferred_interrupts
from adanat_cli.jobs.runtime.reporter import Task

_RESIZED_AT_ONCE, _RESIZED_AT_ONCE_ON_GPU = 8, 128
"""Images in a pass of a network that sees them at 224 to 518 pixels; on a CPU more make it no faster, only larger."""
_NOT_FINITE = "The {} of some images by {} are not finite numbers; check the network's weights and the images."


@dataclass(frozen=True)
class Speed:
    """How fast a pass went.

    Attributes:
        num_images: that this run made or read, on all processes; fewer than all where it went on from an earlier one.
        seconds: it took.
    """

    num_images: int
    seconds: float

    @property
    def images_per_second(self) -> float | None:
        """Images of all processes a second; None where an earlier run had done all."""
        return self.num_images / self.seconds if self.num_images else None


def open_store(folder: Path, settings: dict[str, Any], state: PartialState) -> FeatureStore:
    """Open the same store on every process."""
    with state.main_process_first():
        return FeatureStore(folder, settings, write=state.is_main_process)


def extract_features(
    parts: Iterator[Part],
    store: FeatureStore,
    extractor: Extractor,
    state: PartialState,
    task: Task,
    scorer: ClipScorer | None = None,
) -> Speed:
    """Write the features of every part that the store lacks; processes take the parts in turn.

    What an image's features are does not depend on how many processes there are, nor on where an earlier run broke
    off: parts are fixed ranges, and batches begin anew with every part.

    Args:
        parts: all of them, on every process.
        store: to write to.
        extractor: gives the features.
        state: the processes.
        task: shows this process's progress.
        scorer: compares images with their prompts, where they have some; None leaves that out.

    Raises:
        AdaNATError: if images cannot be read, or the disk is full.
        KeyboardInterrupt: after Ctrl-C; parts that are whole are kept.
        SystemExit: after SIGTERM or SIGHUP, as well.
    """
    start, num_rows = time.perf_counter(), 0
    with deferred_interrupts() as interrupt:
        for part in parts:
            if store.has(part.number) or part.number % state.num_processes != state.process_index:
                continue
            columns, skipped = _extract_part(part, extractor, scorer, state.device, task, interrupt)
            if columns:
                num_rows += len(columns["features"])
            store.add(part.number, columns or _no_rows(extractor), skipped)
    state.wait_for_everyone()
    seconds = time.perf_counter() - start
    return Speed(_sum(num_rows, state), seconds)


def _extract_part(
    part: Part,
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
            columns = {**extractor(some.images)._asdict(), "labels": some.labels}
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
        yield ImageBatch(batch.images[rows], labels, prompts=prompts)


def _no_rows(extractor: Extractor) -> dict[str, Tensor]:
    return {"features": torch.empty(0, extractor.feature_width)}


def _sum(number: int, state: PartialState) -> int:
    """Sum over processes."""
    if state.num_processes == 1:
        return number
    total = torch.tensor(number, device=state.device)
    torch.distributed.all_reduce(total)
    return int(total)
