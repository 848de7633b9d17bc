"""Speed of sampling by stage, and beside a plain loop."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adanat_cli.core.generation.noise import SeededNoise
from adanat_cli.core.generation.schedules import CosineSchedule
from adanat_cli.core.generation.state import DecodingState
from adanat_cli.core.generation.step import Prediction, Predictor, decide
from adanat_cli.core.nat.uvit import NATOutput, UViT
from adanat_cli.jobs.bench.clock import PeakMemory, Stopwatch
from adanat_cli.jobs.bench.subject import Subject
from adanat_cli.jobs.runtime.operations import operations
from adanat_cli.jobs.sample.compiled import Body, CompiledBody
from adanat_cli.jobs.sample.conditions import Conditions
from adanat_cli.jobs.sample.pictures import save_png, to_uint8
from adanat_cli.jobs.sample.predictor import ConditionedNAT
from adanat_cli.jobs.sample.sampler import decode_parts, sample_tokens

STAGES = ("network", "decoding process", "pixels", "writing")
Generate = Callable[[range], Tensor]
"""Makes the token ids (B, N) of some images."""


class TimedNAT(ConditionedNAT):
    """A conditioned NAT whose calls are a stage of their own."""

    def __init__(self, nat: UViT, conditions: Conditions, precision: torch.dtype, body: Body, watch: Stopwatch) -> None:
        """Take a NAT, as ``ConditionedNAT``, and what to time its calls with."""
        super().__init__(nat, conditions, precision, body)
        self._watch = watch

    def predictor(self, numbers: Tensor) -> Predictor:
        """Return the predictor of B images, given the numbers (B,) of their conditions."""
        predict = super().predictor(numbers)

        def timed(state: DecodingState, guided: Tensor) -> Prediction:
            with self._watch.stage("network"):
                return predict(state, guided)

        return timed


@dataclass(frozen=True)
class Sampling:
    """One way of sampling.

    Attributes:
        subject: networks.
        num_steps: T of the cosine schedule.
        batch_size, num_images: images at a time and in all.
        precision: number format of the NAT.
        compiled: whether the NAT's body is compiled, as ``adanat sample --compile`` does.
        seed: random seed of the images.
        device: where the networks are.
    """

    subject: Subject
    num_steps: int
    batch_size: int
    num_images: int
    precision: torch.dtype
    compiled: bool
    seed: int
    device: torch.device

    def measure(self, repetitions: int, against_plain: bool, tell: Callable[[str], None]) -> dict[str, Any]:
        """Time some runs, in turn with plain ones; the first of each, which is counted and warms up, is not timed.

        Args:
            repetitions: timed runs.
            against_plain: whether to run the plain loop as well.
            tell: called with a line before a compilation.

        Raises:
            AdaNATError: if the NAT cannot be compiled on this machine.
        """
        nat = self.subject.nat
        body = CompiledBody(nat, tell) if self.compiled else nat.features
        network = operations(lambda: self._tokens(nat.features))
        drawn = self._tokens(body)
        pixels = operations(
            lambda: [[*decode_parts(self.subject.tokenizer, ids)] for ids in drawn.split(self.batch_size)]
        )
        values: dict[str, Any] = {}
        if against_plain:
            values["plain_tera_flops_per_image"] = operations(self._plain_tokens) / self.num_images / 1e12
        runs, plain, peaks = [], [], []
        for _ in range(repetitions):
            memory = PeakMemory(self.device)
            runs.append(self._run(partial(self._timed, body)))
            peaks.append(memory.bytes())
            if against_plain:
                plain.append(self._run(lambda _: self._plain))
        seconds = statistics.median(run.total for run in runs)
        stages = {stage: statistics.median(run.seconds[stage] for run in runs) for stage in STAGES}
        values |= {
            "images_per_second": self.num_images / seconds,
            "seconds_to_first_image": statistics.median(run.first for run in runs),
            "shares": {stage: part / sum(stages.values()) for stage, part in stages.items()},
            "tera_flops_per_image": (network + pixels) / self.num_images / 1e12,
            "tera_flops_per_second": network / stages["network"] / 1e12,
            "peak_bytes": max(peaks),
        }
        if against_plain:
            values["plain_tera_flops_per_image"] += pixels / self.num_images / 1e12
            values["plain_images_per_second"] = self.num_images / statistics.median(run.total for run in plain)
            values["ratios"] = [other.total / own.total for own, other in zip(runs, plain, strict=True)]
            values["median_ratio"] = statistics.median(values["ratios"])
        return values

    def _batches(self) -> list[range]:
        starts = range(0, self.num_images, self.batch_size)
        return [range(first, min(first + self.batch_size, self.num_images)) for first in starts]

    def _tokens(self, body: Body) -> Tensor:
        conditioned = ConditionedNAT(self.subject.nat, self.subject.conditions, self.precision, body)
        schedule = CosineSchedule(self.num_steps)
        return torch.cat([sample_tokens(conditioned, schedule, self.seed, batch) for batch in self._batches()])

    def _plain_tokens(self) -> Tensor:
        return torch.cat([self._plain(batch) for batch in self._batches()])

    def _plain(self, batch: range) -> Tensor:
        schedule = CosineSchedule(self.num_steps)
        return plain_tokens(self.subject.nat, self.subject.conditions, schedule, self.seed, batch, self.precision)

    def _timed(self, body: Body, watch: Stopwatch) -> Generate:
        """How a run makes the tokens of its batches, which share a conditioned NAT."""
        conditioned = TimedNAT(self.subject.nat, self.subject.conditions, self.precision, body, watch)
        return lambda batch: sample_tokens(conditioned, CosineSchedule(self.num_steps), self.seed, batch)

    def _run(self, make: Callable[[Stopwatch], Generate]) -> _Timed:
        """Generate all images, decode them and write them."""
        watch = Stopwatch(self.device)
        generate = make(watch)
        start, first = time.perf_counter(), 0.0
        with tempfile.TemporaryDirectory() as folder:
            for batch in self._batches():
                with watch.stage("decoding process"):
                    ids = generate(batch)
                parts = decode_parts(self.subject.tokenizer, ids)
                number = batch.start
                while number < batch.stop:
                    with watch.stage("pixels"):
                        images = to_uint8(next(parts))
                    with watch.stage("writing"):
                        for image in images:
                            save_png(Path(folder) / f"{number}.png", image)
                            number += 1
                            first = first or time.perf_counter() - start
        return _Timed(time.perf_counter() - start, first, watch.seconds)


@dataclass(frozen=True)
class _Timed:
    """Seconds of one run.

    Attributes:
        total: of all.
        first: until the first image was written.
        seconds: by stage.
    """

    total: float
    first: float
    seconds: dict[str, float]


@torch.no_grad()
def plain_tokens(
    nat: UViT, conditions: Conditions, schedule: CosineSchedule, seed: int, indices: range, precision: torch.dtype
) -> Tensor:
    """Generate as the authors' code does: a null and a conditional forward a step, whole, and one before all.

    The last of its 2 T + 1 forwards is of the finished image and serves nothing.

    Returns:
        (B, N) int64 ids, those of ``sample_tokens``.
    """
    config, device = nat.config, next(nat.parameters()).device
    numbers = conditions.numbers(indices).to(device)
    condition, empty = conditions.encode(numbers), conditions.null
    null = torch.full_like(condition, config.num_classes) if empty is None else empty.expand_as(condition)
    state = DecodingState.start(len(indices), config.num_tokens, config.mask_id, schedule.num_steps, device)
    noise = SeededNoise(seed, torch.as_tensor(indices, device=device), config.num_tokens)

    def forward(given: Tensor) -> NATOutput:
        with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
            output: NATOutput = nat(state.token_ids, given)
        return output

    output = forward(condition)
    while not state.finished:
        other = forward(null)
        action = schedule(state, None)
        prediction = Prediction(output.logits[state.masked], other.logits[state.masked], output.features)
        state = decide(state, action, prediction, noise)
        output = forward(condition)
    return state.sampled_ids
