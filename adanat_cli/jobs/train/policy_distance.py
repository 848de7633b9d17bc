"""How far a schedule's images are from real ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from adanat_cli.core.generation.schedules import Schedule
from adanat_cli.core.metrics.features import FeatureNetwork
from adanat_cli.core.metrics.frechet import FrechetReference
from adanat_cli.jobs.runtime.devices import images_at_once
from adanat_cli.jobs.sample.conditions import Conditions
from adanat_cli.jobs.sample.sampler import Sampler


@dataclass(frozen=True)
class Generated:
    """Features of generated images.

    Attributes:
        features: (n, D).
        logits: (n, C), of the feature network's own classifier.
        labels: (n,), classes that were asked for, or numbers of prompts.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor

    @property
    def accuracy(self) -> float:
        """Share of images that the classifier takes for the class that was asked for."""
        return float((self.logits.argmax(-1) == self.labels).float().mean())


@dataclass(frozen=True)
class Evaluator:
    """Generates images with a schedule and compares their features with a reference.

    Attributes:
        model: generates the images.
        conditions: classes or prompts that take turns.
        features: feature network, which takes no part in the training.
        reference: moments of real images.
        batch_size: images at a time.
        accelerator: shares the images out over processes; None for this one alone.
    """

    model: Sampler
    conditions: Conditions
    features: FeatureNetwork
    reference: FrechetReference
    batch_size: int
    accelerator: Accelerator | None = None

    def distance(self, schedule: Schedule, seed: int, num_images: int) -> float:
        """Compute the Fréchet distance of ``num_images`` images, which are the same on any number of processes."""
        return self.reference.distance(self.generate(schedule, seed, num_images).features)

    @torch.no_grad()
    def generate(self, schedule: Schedule, seed: int, num_images: int) -> Generated:
        """Generate images (seed, 0 … num_images - 1) and return their features, in order, on every process."""
        world = self.accelerator.num_processes if self.accelerator else 1
        rank = self.accelerator.process_index if self.accelerator else 0
        share = -(-num_images // world)
        indices = torch.arange(rank * share, (rank + 1) * share)
        parts = [self._one(schedule, seed, part) for part in indices.split(self.batch_size)]
        labels = self.conditions.numbers(indices).to(self.model.device)
        features, logits = (torch.cat(columns) for columns in zip(*parts, strict=True))
        if self.accelerator:
            features, logits, labels = self.accelerator.gather((features, logits, labels))
        return Generated(features[:num_images], logits[:num_images], labels[:num_images])

    def _one(self, schedule: Schedule, seed: int, indices: Tensor) -> tuple[Tensor, Tensor]:
        ids = self.model.token_ids(schedule, self.conditions, seed, indices)
        outputs = [self.features(images) for images in self._decoded(ids)]
        features, logits = (torch.cat(columns) for columns in zip(*outputs, strict=True))
        return features, logits

    def _decoded(self, ids: Tensor) -> Iterator[Tensor]:
        tokenizer = self.model.tokenizer
        for part in ids.split(images_at_once(tokenizer.config.image_size, ids.device)):
            # Bytes, as images are saved: 1/255 steps.
            yield tokenizer.decode(part).mul(255).round().div(255)
