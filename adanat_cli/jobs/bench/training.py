"""Speed of tokenizing, of NAT training and of policy updates."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from adanat_cli.core.config import DiscriminatorConfig, NATTrainingConfig, PolicyConfig, PolicyTrainingConfig, PPOConfig
from adanat_cli.jobs.bench.clock import PeakMemory
from adanat_cli.jobs.bench.subject import Subject
from adanat_cli.jobs.runtime.devices import images_at_once, seconds_of
from adanat_cli.jobs.runtime.operations import operations
from adanat_cli.jobs.train.nat_batches import Indices, UpdateSource
from adanat_cli.jobs.train.nat_update import NATTrainer
from adanat_cli.jobs.train.policy_rewards import LabelledImages
from adanat_cli.jobs.train.policy_update import PolicyTrainer


def measure_tokenizing(subject: Subject, batch_size: int, device: torch.device, repetitions: int) -> dict[str, Any]:
    """Encode random images."""
    size = subject.tokenizer.config.image_size
    images = torch.rand(batch_size, 3, size, size, device=device)
    parts = images.split(images_at_once(size, device))

    @torch.no_grad()
    def encode() -> None:
        for part in parts:
            subject.tokenizer.encode(part)

    return _measured(encode, batch_size, device, repetitions)


class _RandomRows:
    """Rows of a token set that hold random ids."""

    def __init__(self, subject: Subject) -> None:
        self._shape, self._codes = subject.nat.config.num_tokens, subject.nat.config.codebook_size
        self._conditions = subject.conditions

    def batch(self, indices: Indices, flipped: Any, draws: Any = None) -> tuple[Any, Any]:
        """Random ids, and the numbers of conditions in turn."""
        ids = np.random.default_rng(int(indices[0])).integers(0, self._codes, (len(indices), self._shape))
        return ids, self._conditions.numbers(torch.from_numpy(indices)).numpy()


def measure_training(
    subject: Subject, batch_size: int, precision: str, device: torch.device, repetitions: int
) -> dict[str, Any]:
    """Take updates of the NAT on random tokens."""
    shape = subject.nat.config
    config = NATTrainingConfig(batch_size=batch_size, precision="bf16" if precision == "bf16" else "fp32")
    null = shape.num_classes if shape.condition == "class" else -1
    source = UpdateSource(_RandomRows(subject), np.arange(batch_size), config, shape.num_tokens, null, False)
    trainer = NATTrainer(shape, config, _accelerator(device), condition=subject.conditions.encode)
    return _measured(lambda: trainer.update(source.update(trainer.step), 1e-4), batch_size, device, repetitions)


class _Brightness:
    """A reward that costs nothing, so that an update's own speed shows."""

    def score(self, images: Iterable[LabelledImages], generator: torch.Generator) -> Tensor:
        """Return the mean of each image, (B,)."""
        return torch.cat([batch.mean((1, 2, 3)) for batch, _ in images])

    def learn(self, pairs: Any, generator: torch.Generator) -> dict[str, float]:
        """Learn nothing."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Nothing is kept."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is restored."""


class _Networks:
    """The part of a sampler that a policy training reads, around networks without a folder.

    Attributes:
        nat, tokenizer: the networks.
        precision: number format of the NAT.
    """

    def __init__(self, subject: Subject, precision: torch.dtype) -> None:
        self.nat, self.tokenizer, self.precision = subject.nat, subject.tokenizer, precision


def measure_policy(
    subject: Subject, num_steps: int, batch_size: int, precision: torch.dtype, device: torch.device, repetitions: int
) -> dict[str, Any]:
    """Take PPO updates of an adaptive policy: rollout, decoding and epochs, under a reward that costs nothing."""
    shape = subject.nat.config
    policy = PolicyConfig(feature_width=shape.width, grid=shape.grid, num_steps=num_steps)
    training = PolicyTrainingConfig(trajectories=batch_size, batch_size=batch_size)
    trainer = PolicyTrainer(
        _Networks(subject, precision),  # type: ignore[arg-type]
        subject.conditions,  # type: ignore[arg-type]
        policy,
        training,
        PPOConfig(baseline="none"),
        DiscriminatorConfig(backbone="pyramid"),
        _Brightness(),
        lambda _: iter(()),
        _accelerator(device),
    )
    values = _measured(trainer.update, batch_size, device, repetitions)
    return values | {"rollout_bytes": trainer.rollout_bytes}


def _accelerator(device: torch.device) -> Accelerator:
    return Accelerator(cpu=device.type == "cpu", mixed_precision="no")


def _measured(job: Callable[[], object], num_images: int, device: torch.device, repetitions: int) -> dict[str, Any]:
    """Count a job's operations, which warms it up, then time it."""
    counted = operations(job)
    memory = PeakMemory(device)
    seconds = statistics.median(seconds_of(job, device) for _ in range(repetitions))
    return {
        "images_per_second": num_images / seconds,
        "tera_flops_per_image": counted / num_images / 1e12,
        "tera_flops_per_second": counted / seconds / 1e12,
        "peak_bytes": memory.bytes(),
    }
