"""Images that a model generates, as a set to be measured: never written, never together in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from adanat_cli.core.checkpoints.folder import ModelFolder, policy_component
from adanat_cli.core.config import NATConfig, Precision
from adanat_cli.core.errors import require
from adanat_cli.core.generation.schedules import Schedule
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.runs.classes import assign_classes, find_classes
from adanat_cli.core.runs.devices import images_at_once, sampling_precision
from adanat_cli.core.runs.image_sets import ImageBatch
from adanat_cli.core.runs.models import load_nat, load_tokenizer
from adanat_cli.core.runs.sampling import sample_tokens
from adanat_cli.core.runs.schedule_choice import ScheduleChoice, build_schedule
from adanat_cli.core.tokenizer.base import Tokenizer


class Generator:
    """A model with its classes, ready to generate with any schedule.

    Attributes:
        folder: the model.
        config: of its NAT.
        label_of: class of image i.
        seed: image i depends on (seed, i) and its class only.
        batch_size: images at a time; changes no image.
        device: where to generate.
        precision: number format of the NAT.
    """

    def __init__(
        self,
        folder: ModelFolder,
        classes: tuple[str, ...],
        seed: int,
        batch_size: int,
        device: torch.device,
        precision: Precision = "auto",
    ) -> None:
        """Check the request; no weights are loaded yet.

        Args:
            folder: the model.
            classes: ids or names that take turns; empty for all that the model has seen, in a seeded order.
            seed: of the images.
            batch_size: images at a time.
            device: where to generate.
            precision: of the NAT.

        Raises:
            AdaNATError: if the model is conditioned on text, or does not know a class.
        """
        self.folder, self.seed, self.batch_size, self.device = folder, seed, batch_size, device
        self.config = NATConfig.from_dict(folder.config("nat"), str(folder.path / "nat" / "config.json"))
        require(
            self.config.condition == "class",
            f"Model {folder.path} is conditioned on text; evaluating one is not there yet, so sample from it and "
            "measure the images with --images FOLDER.",
        )
        self._classes = classes
        self.label_of: Callable[[int], int] = assign_classes(classes, folder.labels(), self.config.num_classes, seed)
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
        """Return what decides an image, as JSON values: networks, schedule, classes, seed and number format."""
        values: dict[str, Any] = {
            "nat": self.folder.fingerprint("nat"),
            "tokenizer": self.folder.fingerprint("tokenizer"),
            "classes": find_classes(self._classes, self.folder.labels(), self.config.num_classes) or "all",
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
        missing_labels: empty, for every image has the class that was asked for.
    """

    generator: Generator
    choice: ScheduleChoice
    num_images: int
    missing_labels: str = ""

    @property
    def origin(self) -> str:
        """The model folder."""
        return str(self.generator.folder.path)

    def batches(self, start: int, stop: int) -> Iterator[ImageBatch]:
        """Generate images start … stop - 1; their decoded values are not rounded to bytes."""
        made = self.generator
        for first in range(start, stop, made.batch_size):
            indices = torch.arange(first, min(first + made.batch_size, stop), device=made.device)
            labels = torch.tensor([made.label_of(int(index)) for index in indices], device=made.device)
            ids = self._token_ids(indices, labels)
            at_once = images_at_once(made.tokenizer.config.image_size, made.device)
            for part, some in zip(ids.split(at_once), labels.split(at_once), strict=True):
                yield ImageBatch(self._decode(part), some)

    def identity(self) -> dict[str, Any]:
        """Return what decides the images, as JSON values."""
        return self.generator.identity(self.choice)

    def tera_flops(self) -> float:
        """Floating-point operations of one image in units of 1e12, counted while image 0 is generated and decoded.

        Matrix products, convolutions and attention of the NAT (both halves of a guided step), the policy and the
        decoder count; a multiplication with its addition counts as 2.
        """
        index = torch.zeros(1, dtype=torch.int64, device=self.generator.device)
        # Fused attention hides its products from the counter on some devices.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            self._decode(self._token_ids(index, torch.full_like(index, self.generator.label_of(0))))
        return counter.get_total_flops() / 1e12

    def _token_ids(self, indices: Tensor, labels: Tensor) -> Tensor:
        made = self.generator
        return sample_tokens(made.nat, self._schedule, labels, made.seed, indices, precision=made.precision)

    @torch.no_grad()
    def _decode(self, token_ids: Tensor) -> Tensor:
        return self.generator.tokenizer.decode(token_ids).clamp(0, 1)

    @cached_property
    def _schedule(self) -> Schedule:
        made = self.generator
        return build_schedule(self.choice, made.folder, made.config.grid, made.device)
