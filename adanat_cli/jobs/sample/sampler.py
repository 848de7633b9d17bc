"""From a NAT and a condition to token ids: what sampling, training and evaluation share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from adanat_cli.core.generation.noise import SeededNoise
from adanat_cli.core.generation.schedules import Schedule
from adanat_cli.core.generation.state import DecodingState
from adanat_cli.core.generation.step import Prediction, Predictor, StepCallback, generate
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.tokenizer.base import Tokenizer
from adanat_cli.jobs.runtime.devices import images_at_once
from adanat_cli.jobs.sample.pictures import Pixels, to_uint8

_DECODED_AT_ONCE = {"cpu": 2}
_DECODED_AT_ONCE_ON_GPU = 16
"""Images in a pass of the tokenizer: as few as keep the device busy, since the last pass of a batch is filled up."""


def predictor(
    nat: UViT, condition: Tensor, precision: torch.dtype = torch.float32, null_condition: Tensor | None = None
) -> Predictor:
    """Give a NAT the form that generation calls.

    Args:
        nat: in evaluation mode.
        condition: (B,) int64 labels, or (B, L, D) float text states.
        precision: number format of the network; logits come out as float32 in any case.
        null_condition: (L, D) states of the empty prompt, for text; labels have a null label of their own.

    Returns:
        A predictor for B images; a guided call runs both halves as one batch of 2 B.
    """
    if nat.training:
        raise ValueError("generation needs the NAT in evaluation mode; call nat.eval()")
    if nat.config.condition == "class":
        null = torch.full_like(condition, nat.config.num_classes)
    elif null_condition is not None:
        null = null_condition.expand_as(condition)
    else:
        raise ValueError("a text NAT needs the states of the empty prompt")
    pair = torch.cat([condition, null])

    def predict(token_ids: Tensor, guided: bool) -> Prediction:
        with torch.amp.autocast(token_ids.device.type, dtype=precision, enabled=precision != torch.float32):
            output = nat(torch.cat([token_ids, token_ids]), pair) if guided else nat(token_ids, condition)
        batch = len(token_ids)
        logits = output.logits.float()
        return Prediction(logits[:batch], logits[batch:] if guided else None, output.features[:batch])

    return predict


@torch.no_grad()
def sample_tokens(
    nat: UViT,
    schedule: Schedule,
    condition: Tensor,
    seed: int,
    image_indices: Tensor,
    on_step: StepCallback | None = None,
    precision: torch.dtype = torch.float32,
    null_condition: Tensor | None = None,
) -> Tensor:
    """Generate a batch of images as token ids.

    Args:
        nat: in evaluation mode.
        schedule: fixed schedule or learned policy.
        condition: (B,) int64 labels, or (B, L, D) float text states, on the NAT's device.
        seed: of the run.
        image_indices: (B,) int64, the images' numbers within the run; image i depends on (seed, i) only.
        on_step: called after every step.
        precision: number format of the network.
        null_condition: (L, D) states of the empty prompt, for text.

    Returns:
        (B, N) int64 in [0, K).
    """
    config, device = nat.config, condition.device
    state = DecodingState.start(len(condition), config.num_tokens, config.mask_id, schedule.num_steps, device)
    noise = SeededNoise(seed, image_indices.to(device), config.num_tokens)
    predict = predictor(nat, condition, precision, null_condition)
    return generate(schedule, predict, state, noise, on_step).sampled_ids


def decode_parts(tokenizer: Tokenizer, token_ids: Tensor) -> Iterator[Tensor]:
    """Decode (B, N) ids to (b, 3, H, W) floats in [0, 1], in parts whose memory does not grow with B.

    Every pass of the tokenizer is over the same number of images, the last of them filled up: convolutions of another
    number may round the last bits in another way, and an image is to be the same in any company.
    """
    wanted = _DECODED_AT_ONCE.get(token_ids.device.type, _DECODED_AT_ONCE_ON_GPU)
    at_once = min(wanted, images_at_once(tokenizer.config.image_size, token_ids.device))
    for part in token_ids.split(at_once):
        filling = part[-1:].expand(at_once - len(part), -1)
        with torch.no_grad():
            images = tokenizer.decode(torch.cat([part, filling]))
        yield images[: len(part)]


def decode_tokens(tokenizer: Tokenizer, token_ids: Tensor) -> Pixels:
    """Decode (B, N) ids to (B, H, W, 3) bytes in memory that does not grow with B."""
    return np.concatenate([to_uint8(part) for part in decode_parts(tokenizer, token_ids)])
