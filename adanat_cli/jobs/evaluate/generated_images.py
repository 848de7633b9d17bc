"""Images of a model as a set to be measured, generated as they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from adanat_cli.core.generation.schedules import Schedule
from adanat_cli.jobs.evaluate.image_sets import ImageBatch
from adanat_cli.jobs.resolve.classes import numbered_as_imagenet
from adanat_cli.jobs.resolve.schedules import ScheduleChoice
from adanat_cli.jobs.runtime.devices import images_at_once
from adanat_cli.jobs.runtime.operations import operations
from adanat_cli.jobs.sample.conditions import Asked, Conditions
from adanat_cli.jobs.sample.predictor import ConditionedNAT
from adanat_cli.jobs.sample.sampler import Sampler, decode_parts, sample_tokens


@dataclass
class GeneratedImages:
    """The images of one schedule, as an ``ImageSet``.

    Attributes:
        conditions: classes or prompts of the images.
        choice: the settled schedule.
        batch_size: images at a time; changes no image but by rounding, and none on a CPU.
    """

    sampler: Sampler
    conditions: Asked
    choice: ScheduleChoice
    num_images: int
    seed: int
    batch_size: int
    missing_labels: str = field(init=False)
    missing_prompts: str = field(init=False)

    def __post_init__(self) -> None:
        text = self._of_text
        self.missing_labels = "prompts are none of the classes that a classifier names" if text else ""
        if not text and self.sampler.config.num_classes == 1:
            self.missing_labels = "the model knows one class, which a classifier takes for no other"
        self.missing_prompts = "" if text else "the images are of classes, not of prompts"

    @property
    def _of_text(self) -> bool:
        return self.sampler.config.condition == "text"

    @property
    def numbered_as_imagenet(self) -> bool:
        """Whether the classes of the images have ImageNet's numbers."""
        folder = self.sampler.folder
        return not self._of_text and numbered_as_imagenet(folder.labels(), self.sampler.config.num_classes)

    @property
    def origin(self) -> str:
        """The model's name."""
        return self.sampler.folder.title

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.sampler.folder.index.image_size

    def batches(self, start: int, stop: int) -> Iterator[ImageBatch]:
        """Generate images start … stop - 1; their decoded values are not rounded to bytes."""
        tokenizer = self.sampler.tokenizer
        at_once = images_at_once(tokenizer.config.image_size, self.sampler.device)
        for first in range(start, stop, self.batch_size):
            indices = range(first, min(first + self.batch_size, stop))
            ids = self._token_ids(indices)
            for offset in range(0, len(ids), at_once):
                images = torch.cat([*decode_parts(tokenizer, ids[offset : offset + at_once])]).clamp(0, 1)
                yield self._described(images, indices[offset : offset + at_once])

    def classes(self, num_images: int) -> set[int] | None:
        """Class ids of the first images; None for prompts."""
        return None if self._of_text else set(self.conditions.turns[:num_images].tolist())

    def identity(self) -> dict[str, Any]:
        """Return what decides the images, as JSON values."""
        return self.sampler.identity(self.choice, self.conditions, self.seed)

    def tera_flops(self) -> float:
        """Floating-point operations of one image in units of 1e12, as one process spends them on average.

        Matrix products, convolutions and attention of the NAT (both halves of a guided step, logits of masked tokens),
        the policy and the decoder count, while image 0 is generated and decoded; a multiplication with its addition
        counts as 2. Of the first step's forwards, each class or prompt has one and all images share that of the null
        condition. A text encoder, which runs once an image whatever the schedule, does not count.
        """
        nat = ConditionedNAT(self.sampler.nat, _Encoded.first(self.conditions), self.sampler.precision)
        total, own = (self._operations(nat) for _ in range(2))
        conditions = self.conditions.numbers(range(self.num_images)).unique()
        shared = (total - own) / nat.num_kept * (nat.num_kept - 1 + len(conditions))
        return (own + shared / self.num_images) / 1e12

    def _operations(self, nat: ConditionedNAT) -> int:
        """Operations of image 0, without those of features that the NAT has kept."""
        return operations(lambda: self._decode(sample_tokens(nat, self._schedule, self.seed, [0])))

    def _token_ids(self, indices: Sequence[int]) -> Tensor:
        return self.sampler.token_ids(self._schedule, self.conditions, self.seed, indices)

    def _described(self, images: Tensor, indices: Sequence[int]) -> ImageBatch:
        """Images with what was asked for."""
        if self._of_text:
            return ImageBatch(images, prompts=[self.conditions.name(index) for index in indices])
        return ImageBatch(images, self.conditions.numbers(indices))

    @torch.no_grad()
    def _decode(self, token_ids: Tensor) -> Tensor:
        return self.sampler.tokenizer.decode(token_ids).clamp(0, 1)

    @cached_property
    def _schedule(self) -> Schedule:
        return self.sampler.schedule(self.choice)


@dataclass(frozen=True)
class _Encoded(Conditions):
    """The condition of image 0, encoded once.

    Attributes:
        condition: what the NAT reads.
        empty: (L, D) text states of the empty prompt; None for classes.
    """

    condition: Tensor
    empty: Tensor | None

    @classmethod
    def first(cls, conditions: Conditions) -> _Encoded:
        """Encode the condition of image 0."""
        return cls(conditions.turns[:1], conditions.encode(conditions.numbers([0])), conditions.null)

    @property
    def null(self) -> Tensor | None:
        """The empty prompt."""
        return self.empty

    def encode(self, numbers: Tensor) -> Tensor:
        """The condition that is known."""
        return self.condition
