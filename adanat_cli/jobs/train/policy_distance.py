"""How far a schedule's images are from real ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from adanat_cli.core.generation.schedules import Schedule
from adanat_cli.core.metrics.extraction import Pooled
from adanat_cli.core.metrics.frechet import FrechetReference
from adanat_cli.jobs.runtime.devices import images_at_once
from adanat_cli.jobs.runtime.reporter import Task
from adanat_cli.jobs.sample.conditions import Conditions
from adanat_cli.jobs.sample.sampler import Sampler


@dataclass(frozen=True)
class Evaluator:
    """Generates images with a schedule and compares their features with a reference.

    Attributes:
        model: generates the images.
        conditions: classes or prompts, cycled through.
        features: feature network, which takes no part in the training.
        reference: moments of real images.
        batch_size: images at a time.
        accelerator: shares the images out over processes; None for this one alone.
    """

    model: Sampler
    conditions: Conditions
    features: Pooled
    reference: FrechetReference
    batch_size: int
    accelerator: Accelerator | None = None

    def distance(self, schedule: Schedule, seed: int, num_images: int, task: Task | None = None) -> float:
        """Compute the Fréchet distance of ``num_images`` images, which are the same on any number of processes.

        Args:
            schedule: chooses the actions.
            seed: random seed of the images.
            num_images: number of images.
            task: is told the images as they are done; None tells nobody.
        """
        return self.reference.distance(self._features(schedule, seed, num_images, task))

    @torch.no_grad()
    def _features(self, schedule: Schedule, seed: int, num_images: int, task: Task | None) -> Tensor:
        """Generate images (seed, 0 … num_images - 1); returns their features (n, D), in order, on every process."""
        world = self.accelerator.num_processes if self.accelerator else 1
        rank = self.accelerator.process_index if self.accelerator else 0
        share = -(-num_images // world)
        indices = torch.arange(rank * share, (rank + 1) * share)
        tokenizer = self.model.tokenizer
        at_once = images_at_once(tokenizer.config.image_size, self.model.device)
        parts = []
        for batch in indices.split(self.batch_size):
            for ids in self.model.token_ids(schedule, self.conditions, seed, batch).split(at_once):
                images = tokenizer.decode(ids).mul(255).round().div(255)  # bytes, as images are saved
                parts.append(self.features.features(images))
                if task:
                    task.advance(world * len(ids))
        features = torch.cat(parts)
        return (self.accelerator.gather(features) if self.accelerator else features)[:num_images]
