"""Images that a model generates, as a set to be measured: never written, never together in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from adanat_cli.core.checkpoints.folder import ModelFolder, policy_component
from adanat_cli.core.config import Precision
from adanat_cli.core.generation.schedules import Schedule
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.tokenizer.base import Tokenizer
from adanat_cli.jobs.evaluate.image_sets import ImageBatch
from adanat_cli.jobs.resolve.models import load_nat, load_tokenizer, nat_config
from adanat_cli.jobs.resolve.schedules import ScheduleChoice, build_schedule
from adanat_cli.jobs.runtime.devices import images_at_once, sampling_precision
from adanat_cli.jobs.sample.conditions import Conditions
from adanat_cli.jobs.sample.sampler import decode_parts, sample_tokens


class Generator:
    """A model with its classes or prompts, ready to generate with any schedule.

    Attributes:
        folder: the model.
        config: of its NAT.
        conditions: class or prompt of image i.
        seed: image i depends on (seed, i) and its class or prompt only.
        batch_size: images at a time; changes no image but by rounding, and none on a CPU.
        device: where to generate.
        precision: number format of the NAT.
    """

    def __init__(
        self,
        folder: ModelFolder,
        conditions: Conditions,
        seed: int,
        batch_size: int,
        device: torch.device,
        precision: Precision = "auto",
    ) -> None:
        """Take a model and what its images are of; no weights of it are loaded yet.

        Args:
            folder: the model.
            conditions: of its kind, as ``make_conditions`` gives them.
            seed: of the images.
            batch_size: images at a time.
            device: where to generate.
            precision: of the NAT.
        """
        self.folder, self.conditions, self.seed = folder, conditions, seed
        self.batch_size, self.device = batch_size, device
        self.config = nat_config(folder)
        self.precision = sampling_precision(precision, device)

    @cached_property
    def nat(self) -> UViT:
        """Loaded on first use."""
        return load_nat(self.folder, self.device)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Loaded on first use."""
        return load_tokenizer(self.folder, self.device)

    def identity(self, choice: ScheduleChoice) -> dict[str, Any]:
        """Return what decides an image, as JSON values: networks, schedule, conditions, seed and number format."""
        values: dict[str, Any] = {
            "nat": self.folder.fingerprint("nat"),
            "tokenizer": self.folder.fingerprint("tokenizer"),
            **self.conditions.identity(),
            "seed": self.seed,
            "precision": str(self.precision).removeprefix("torch."),
            "schedule": choice.kind,
            "num_steps": choice.num_steps,
            "temperature": choice.temperature,
            "guidance": choice.guidance,
            "table": choice.table.table.tolist() if choice.table is not None else None,
            "policy": None,
        }
        if choice.kind == "learned":
            values["policy"] = self.folder.fingerprint(policy_component(choice.num_steps))
        return {key: value for key, value in values.items() if value is not None}


@dataclass
class GeneratedImages:
    """The images of one schedule.

    Attributes:
        generator: the model.
        choice: settled, the schedule.
        num_images: to generate.
        missing_labels: why there are no classes to compare with; "" where they were asked for.
        missing_prompts: why there are no prompts to compare with; "" where they were asked for.
    """

    generator: Generator
    choice: ScheduleChoice
    num_images: int
    missing_labels: str = field(init=False)
    missing_prompts: str = field(init=False)

    def __post_init__(self) -> None:
        text = self._of_text
        self.missing_labels = "prompts are none of the classes that a classifier names" if text else ""
        if not text and self.generator.config.num_classes == 1:
            self.missing_labels = "the model knows one class, which a classifier takes for no other"
        self.missing_prompts = "" if text else "the images are of classes, not of prompts"

    @property
    def _of_text(self) -> bool:
        return self.generator.config.condition == "text"

    @property
    def origin(self) -> str:
        """What the model is called."""
        return self.generator.folder.title

    @property
    def image_size(self) -> int:
        """What the model's index says."""
        return self.generator.folder.index.image_size

    def batches(self, start: int, stop: int) -> Iterator[ImageBatch]:
        """Generate images start … stop - 1; their decoded values are not rounded to bytes."""
        made = self.generator
        for first in range(start, stop, made.batch_size):
            indices = range(first, min(first + made.batch_size, stop))
            ids = self._token_ids(indices, made.conditions.batch(indices, made.device))
            at_once = images_at_once(made.tokenizer.config.image_size, made.device)
            for offset in range(0, len(ids), at_once):
                images = torch.cat([*decode_parts(made.tokenizer, ids[offset : offset + at_once])]).clamp(0, 1)
                yield self._described(images, indices[offset : offset + at_once])

    def classes(self, num_images: int) -> set[int] | None:
        """Class ids of the first images; None for prompts."""
        if self._of_text:
            return None
        conditions = self.generator.conditions
        turn = conditions.num_asked or self.generator.config.num_classes  # after so many they begin anew
        return {conditions.number(index) for index in range(min(num_images, turn))}

    def identity(self) -> dict[str, Any]:
        """Return what decides the images, as JSON values."""
        return self.generator.identity(self.choice)

    def tera_flops(self) -> float:
        """Floating-point operations of one image in units of 1e12, counted while image 0 is generated and decoded.

        Matrix products, convolutions and attention of the NAT (both halves of a guided step), the policy and the
        decoder count; a multiplication with its addition counts as 2. A text encoder, which runs once an image
        whatever the schedule, does not count.
        """
        condition = self.generator.conditions.batch([0], self.generator.device)
        # Fused attention hides its products from the counter on some devices.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            self._decode(self._token_ids([0], condition))
        return counter.get_total_flops() / 1e12

    def _token_ids(self, indices: Sequence[int], condition: Tensor) -> Tensor:
        made = self.generator
        numbers, null = torch.tensor(indices, device=made.device), made.conditions.null()
        return sample_tokens(made.nat, self._schedule, condition, made.seed, numbers, None, made.precision, null)

    def _described(self, images: Tensor, indices: Sequence[int]) -> ImageBatch:
        """Images with what was asked for."""
        conditions = self.generator.conditions
        if self._of_text:
            return ImageBatch(images, prompts=[conditions.name(index) for index in indices])
        return ImageBatch(images, torch.tensor([conditions.number(index) for index in indices]))

    @torch.no_grad()
    def _decode(self, token_ids: Tensor) -> Tensor:
        return self.generator.tokenizer.decode(token_ids).clamp(0, 1)

    @cached_property
    def _schedule(self) -> Schedule:
        made = self.generator
        return build_schedule(self.choice, made.folder, made.config.grid, made.device)
