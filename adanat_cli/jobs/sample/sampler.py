"""A model ready to generate: from conditions to token ids and images, for sampling, training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adanat_cli.core.checkpoints.folder import ModelFolder, policy_component
from adanat_cli.core.config import Precision
from adanat_cli.core.errors import require
from adanat_cli.core.generation.actions import Action
from adanat_cli.core.generation.noise import SeededNoise
from adanat_cli.core.generation.schedules import Schedule
from adanat_cli.core.generation.state import DecodingState
from adanat_cli.core.generation.step import StepCallback, take_steps
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.text.encoder import TextEncoder
from adanat_cli.core.tokenizer.base import Tokenizer
from adanat_cli.jobs.resolve.classes import classes_in_turn
from adanat_cli.jobs.resolve.models import load_nat, load_tokenizer, nat_config
from adanat_cli.jobs.resolve.schedules import ScheduleChoice, build_schedule
from adanat_cli.jobs.resolve.text_encoders import encoder_of
from adanat_cli.jobs.runtime.devices import images_at_once, sampling_precision
from adanat_cli.jobs.sample.compiled import CompiledBody
from adanat_cli.jobs.sample.conditions import (
    Asked,
    ClassConditions,
    Conditions,
    NoClass,
    PromptConditions,
    warn_of_cut_prompts,
)
from adanat_cli.jobs.sample.pictures import Pixels, to_uint8
from adanat_cli.jobs.sample.predictor import ConditionedNAT

_TRIAL_ROWS = 128
"""Of the forward that is timed: both halves of the usual 64 images."""
_DECODED_AT_ONCE = {"cpu": 2}
_DECODED_AT_ONCE_ON_GPU = 16
"""Images in a pass of the tokenizer: as few as keep the device busy, since the last pass of a batch is padded."""


class Sampler:
    """A model ready to generate under any conditions with any schedule; networks are loaded on first use.

    Attributes:
        folder: the model.
        config: configuration of its NAT.
        device: where its networks are.
        precision: number format of the NAT.
    """

    def __init__(
        self, folder: ModelFolder, device: torch.device, precision: Precision = "auto", text_encoder: str = ""
    ) -> None:
        """Check a model; nothing of it is loaded yet, but a NAT whose number format is to be measured on a GPU.

        Args:
            folder: the model.
            device: where to generate.
            precision: number format of the NAT.
            text_encoder: instead of the model's own; "" for that.

        Raises:
            AdaNATError: if the NAT is missing, or does not belong to the tokenizer.
        """
        self.folder, self.device, self._encoder_name = folder, device, text_encoder
        self.config = nat_config(folder)
        self.precision = sampling_precision(precision, device, self._forward)
        self._conditioned: ConditionedNAT | None = None
        self._tell_compiling: Callable[[str], None] | None = None

    @cached_property
    def nat(self) -> UViT:
        """The NAT in evaluation mode."""
        return load_nat(self.folder, self.device)

    def _forward(self, precision: torch.dtype) -> None:
        """Run the NAT once on a usual batch in a number format, to be timed."""
        ids = torch.full((_TRIAL_ROWS, self.config.num_tokens), self.config.mask_id, device=self.device)
        condition = torch.zeros(_TRIAL_ROWS, dtype=torch.int64, device=self.device)
        if self.config.condition == "text":
            condition = torch.zeros(_TRIAL_ROWS, self.config.text_length, self.config.text_width, device=self.device)
        half = precision != torch.float32
        with torch.no_grad(), torch.autocast(self.device.type, dtype=precision, enabled=half):
            self.nat.features(ids, condition)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer in evaluation mode."""
        return load_tokenizer(self.folder, self.device)

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """The encoder of a text-conditional model; replaceable (``adanat_cli.core.text.encoder``)."""
        return encoder_of(self.folder, self.config, self._encoder_name, self.device)

    def load(self) -> None:
        """Load NAT and tokenizer now, so that what is wrong with them is known before the work begins."""
        _ = self.nat, self.tokenizer

    def compile(self, tell: Callable[[str], None]) -> None:
        """Run the NAT through torch.compile from now on; images may differ by rounding.

        Args:
            tell: called with a line before each compilation: of the first batch, and of a larger one.
        """
        self._tell_compiling, self._conditioned = tell, None

    @cached_property
    def _compiled(self) -> CompiledBody | None:
        return None if self._tell_compiling is None else CompiledBody(self.nat, self._tell_compiling)

    def check_steps(self, num_steps: int) -> None:
        """Refuse more generation steps than an image has tokens.

        Raises:
            AdaNATError: saying how many there may be.
        """
        most = self.config.num_tokens
        require(
            num_steps <= most,
            f"--steps is {num_steps}, but images of this model have {most} tokens; expected 1 to {most}.",
        )

    def conditions(
        self, classes: Sequence[str], prompts: Sequence[str], seed: int, warn: Callable[[str], None] | None = None
    ) -> Asked:
        """The requested classes or prompts, checked.

        Args:
            classes: ids or names; empty for all that a class-conditional model has seen.
            prompts: texts.
            seed: random seed of the order of classes if none is named.
            warn: called with a warning about prompts longer than the encoder reads.

        Raises:
            AdaNATError: if they do not fit the model, or its text encoder cannot be had.
        """
        name = self.folder.name
        if self.config.condition == "class":
            require(not prompts, f"Model {name} is conditioned on classes; give --class instead of a prompt.")
            names = self.folder.labels()
            turns = torch.tensor(classes_in_turn(classes, names, self.config.num_classes, seed))
            return ClassConditions(turns, names, bool(classes))
        require(not classes, f"Model {name} is conditioned on text; give --prompt instead of --class.")
        require(bool(prompts), f'Model {name} is conditioned on text; say what to draw: --prompt "a red bus".')
        if warn is not None:
            warn_of_cut_prompts(prompts, self.text_encoder, warn)
        return PromptConditions.of(prompts, self.text_encoder)

    def no_conditions(self) -> Asked:
        """No class, or the empty prompt: nothing is asked for, and the tokens that are kept decide alone."""
        if self.config.condition == "class":
            return NoClass(torch.tensor([self.config.num_classes]), self.folder.labels())
        return PromptConditions.of([""], self.text_encoder)

    def schedule(self, choice: ScheduleChoice) -> Schedule:
        """Build what a settled choice stands for; a learned policy is loaded."""
        return build_schedule(choice, self.folder, self.config.grid, self.device)

    def token_ids(
        self,
        schedule: Schedule,
        conditions: Conditions,
        seed: int,
        indices: Sequence[int] | Tensor,
        on_step: StepCallback | None = None,
        given: Tensor | None = None,
    ) -> Tensor:
        """Generate a batch of images as token ids (B, N); the arguments are those of ``sample_tokens``."""
        return sample_tokens(self.conditioned(conditions), schedule, seed, indices, on_step, given)

    def steps(
        self,
        schedule: Schedule,
        conditions: Conditions,
        seed: int,
        indices: Sequence[int] | Tensor,
        given: Tensor | None = None,
    ) -> Iterator[tuple[DecodingState, Action]]:
        """Generate a batch of images step by step; the arguments are those of ``sample_steps``."""
        return sample_steps(self.conditioned(conditions), schedule, seed, indices, given)

    def conditioned(self, conditions: Conditions) -> ConditionedNAT:
        """The NAT under some conditions; batches of the same conditions share what is the same in all."""
        if self._conditioned is None or self._conditioned.conditions is not conditions:
            self._conditioned = ConditionedNAT(self.nat, conditions, self.precision, self._compiled)
        return self._conditioned

    def images(
        self,
        schedule: Schedule,
        conditions: Conditions,
        seed: int,
        indices: Sequence[int] | Tensor,
        on_step: StepCallback | None = None,
    ) -> Pixels:
        """Generate a batch of images as bytes (B, H, W, 3)."""
        return decode_tokens(self.tokenizer, self.token_ids(schedule, conditions, seed, indices, on_step))

    def identity(self, choice: ScheduleChoice, conditions: Asked, seed: int) -> dict[str, Any]:
        """Return what decides an image, as JSON values: networks, conditions, seed, number format and schedule."""
        learned = choice.kind == "learned"
        # Halton decoding has one temperature only; results are recorded under the words that earlier versions used.
        halton = choice.kind == "halton"
        values: dict[str, Any] = {
            "nat": self.folder.fingerprint("nat"),
            "tokenizer": self.folder.fingerprint("tokenizer"),
            **conditions.identity(),
            "seed": seed,
            "precision": str(self.precision).removeprefix("torch."),
            "schedule": choice.kind,
            "num_steps": choice.num_steps,
            "temperature": choice.sampling_temperature if halton else choice.remask_temperature,
            "guidance": choice.guidance_scale,
            "sampling_temperature": None if halton else choice.sampling_temperature,
            "table": choice.table.table.tolist() if choice.table is not None else None,
            "policy": self.folder.fingerprint(policy_component(choice.num_steps)) if learned else None,
        }
        return {key: value for key, value in values.items() if value is not None}


def sample_tokens(
    nat: ConditionedNAT,
    schedule: Schedule,
    seed: int,
    indices: Sequence[int] | Tensor,
    on_step: StepCallback | None = None,
    given: Tensor | None = None,
) -> Tensor:
    """Generate a batch of images as token ids (B, N) int64 in [0, K); ``on_step`` is called after every step."""
    for state, action in sample_steps(nat, schedule, seed, indices, given):
        if on_step is not None:
            on_step(state, action)
    return state.sampled_ids


@torch.no_grad()
def sample_steps(
    nat: ConditionedNAT,
    schedule: Schedule,
    seed: int,
    indices: Sequence[int] | Tensor,
    given: Tensor | None = None,
) -> Iterator[tuple[DecodingState, Action]]:
    """Generate a batch of images step by step.

    Args:
        nat: NAT, under the conditions of the images.
        schedule: fixed schedule or learned policy.
        seed: random seed of the run.
        indices: (B,), the images' numbers within the run; image i depends on (seed, i) and its condition only.
        given: (B, N) int64, tokens to keep, and the mask id where to draw; None to draw all.

    Yields:
        The state after each step, and the action that led to it.
    """
    config, device = nat.nat.config, nat.device
    if given is None:
        state = DecodingState.start(len(indices), config.num_tokens, config.mask_id, schedule.num_steps, device)
    else:
        state = DecodingState.start_from(given.to(device), config.mask_id, schedule.num_steps)
    noise = SeededNoise(seed, torch.as_tensor(indices, device=device), config.num_tokens)
    predict = nat.predictor(nat.conditions.numbers(indices))
    yield from take_steps(schedule, predict, state, noise)


def decode_parts(tokenizer: Tokenizer, token_ids: Tensor) -> Iterator[Tensor]:
    """Decode (B, N) ids to (b, 3, H, W) floats in [0, 1], in parts whose memory does not grow with B.

    Every pass of the tokenizer decodes the same number of images, and the last one is padded: convolutions over another
    number may round differently, and an image must not depend on its batch.
    """
    wanted = _DECODED_AT_ONCE.get(token_ids.device.type, _DECODED_AT_ONCE_ON_GPU)
    at_once = min(wanted, images_at_once(tokenizer.config.image_size, token_ids.device))
    for part in token_ids.split(at_once):
        padding = part[-1:].expand(at_once - len(part), -1)
        with torch.no_grad():
            images = tokenizer.decode(torch.cat([part, padding]))
        yield images[: len(part)]


def decode_tokens(tokenizer: Tokenizer, token_ids: Tensor) -> Pixels:
    """Decode (B, N) ids to (B, H, W, 3) bytes in memory that does not grow with B."""
    return np.concatenate([to_uint8(part) for part in decode_parts(tokenizer, token_ids)])
