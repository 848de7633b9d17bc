"""One generation step as a pure function of the state, and the loop over all steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from adanat_cli.core.errors import require
from adanat_cli.core.generation.actions import Action
from adanat_cli.core.generation.noise import Noise
from adanat_cli.core.generation.schedules import Schedule
from adanat_cli.core.generation.state import DecodingState

_MIN_TEMPERATURE = 1e-4
"""Smallest sampling temperature: dividing by less (softplus can reach 0) overflows the logits."""


class Prediction(NamedTuple):
    """The NAT's output for a batch.

    Attributes:
        logits: (M, K), given the condition, at the M masked positions of all samples (``DecodingState.masked``).
        null_logits: (M, K), given the null condition; None where no sample is guided. In rows of samples that are not,
            they are the conditional ones.
        features: (B, N, D), given the condition; the input of an adaptive policy.
    """

    logits: Tensor
    null_logits: Tensor | None
    features: Tensor


Predictor = Callable[[DecodingState, Tensor], Prediction]
"""Maps a state, and which samples are guided, (B,) bool, to a prediction in at most one network call."""

StepCallback = Callable[[DecodingState, Action], None]
"""Called with the state after a step and the action that led to it."""


def take_steps(
    schedule: Schedule, predict: Predictor, state: DecodingState, noise: Noise
) -> Iterator[tuple[DecodingState, Action]]:
    """Take all remaining steps one by one, with at most one network call each.

    Args:
        schedule: fixed schedule or learned policy.
        predict: the NAT; it computes no null logits for samples that a fixed schedule does not guide at a step.
        state: ``DecodingState.start(...)``, or ``start_from(...)`` where some tokens are given.
        noise: random numbers of the steps.

    Yields:
        The state after each step, and the action that led to it; the last state's ``sampled_ids`` are the images.

    Raises:
        AdaNATError: in place of the last state, if an action or a logit was not a number.
    """
    taken: list[Tensor] = []
    while not state.finished:
        if schedule.needs_features:
            prediction = predict(state, state.mask.new_ones(len(state.mask)))
            action = schedule(state, prediction.features)
        else:
            action = schedule(state, None)
            prediction = predict(state, action.guidance_scale != 0)
        state = decide(state, action, prediction, noise, schedule.order)
        taken.append(action.values())
        if state.finished:
            _refuse_nan(state, torch.stack(taken), prediction.logits.shape[-1])
        yield state, action


def generate(
    schedule: Schedule,
    predict: Predictor,
    state: DecodingState,
    noise: Noise,
    on_step: StepCallback | None = None,
) -> DecodingState:
    """Take all remaining steps at once; returns the final state.

    Args:
        schedule: see ``take_steps``.
        predict: see ``take_steps``.
        state: see ``take_steps``.
        noise: see ``take_steps``.
        on_step: called after each step.
    """
    for state, action in take_steps(schedule, predict, state, noise):  # noqa: B020 — each step begins where one ended
        if on_step is not None:
            on_step(state, action)
    return state


def _refuse_nan(last: DecodingState, actions: Tensor, mask_id: int) -> None:
    """Refuse mask ids among the drawn, and (T, B, 4) actions; once, at the end, for a GPU has to be waited for."""
    require(
        bool((last.sampled_ids < mask_id).all() & actions.isfinite().all()),
        "The network or the schedule gave a value that is not a number, so no image comes of it; try --precision fp32, "
        "or another model or policy.",
    )


def decide(
    state: DecodingState, action: Action, prediction: Prediction, noise: Noise, order: Tensor | None = None
) -> DecodingState:
    """Draw ids at masked positions, keep the most confident, mask the rest again.

    Where some tokens are given, the ratio is a fraction of the others. The arithmetic is in float32, whatever the
    network's number format.

    Args:
        state: the state before the step.
        action: the four values of each sample, (B,) each.
        prediction: the NAT's output for the state.
        noise: random numbers of the step.
        order: (N,), positions in the order in which they are revealed; None for the order of confidence.

    Source: MaskGIT (arXiv 2202.04200), section 3.2, with the four values of AdaNAT (arXiv 2409.00342), in the order of
    operations of the authors' code.
    """
    sample, position = state.masked  # (M,) each
    logits = guide(prediction, action.guidance_scale[sample])  # (M, K)
    temperature = action.sampling_temperature.clamp(min=_MIN_TEMPERATURE)[sample, None]
    drawn = noise.choose(logits / temperature, state.step, state.masked)  # (M,)
    sampled_ids = state.token_ids.index_put((sample, position), drawn)
    if order is None:
        chosen = drawn.clamp(max=logits.shape[-1] - 1)  # logits that are not numbers draw the mask id
        log_probs = logits.log_softmax(-1).gather(-1, chosen[:, None])[:, 0]
        undecided = log_probs + action.remask_temperature[sample] * noise.gumbel(state.step)[sample, position]
    else:
        undecided = -order.argsort().to(logits)[position]
    confidence = logits.new_full(state.mask.shape, torch.inf).index_put((sample, position), undecided)
    mask = remask(confidence, action.remask_ratio, state.num_drawn)
    return DecodingState(
        token_ids=sampled_ids.masked_fill(mask, logits.shape[-1]),
        mask=mask,
        sampled_ids=sampled_ids,
        step=state.step + 1,
        num_steps=state.num_steps,
        last_action=action,
        kept=state.kept,
    )


def guide(prediction: Prediction, guidance_scale: Tensor) -> Tensor:
    """Return ``cond + w * (cond - null)``, (M, K) float32, for scales (M,); ids with logit -inf under both keep it."""
    logits = prediction.logits.float()
    if prediction.null_logits is None:
        return logits
    difference = (logits - prediction.null_logits.float()).nan_to_num_(nan=0.0)  # -inf - -inf
    return difference.mul_(guidance_scale[:, None]).add_(logits)


def remask(confidence: Tensor, remask_ratio: Tensor, num_drawn: Tensor) -> Tensor:
    """Choose the least confident tokens to mask again.

    Args:
        confidence: (B, N), noisy log-probability; +inf where already decided.
        remask_ratio: (B,), fraction of n; floor(ratio * n) tokens, at most n - 1, are masked.
        num_drawn: (B,) int64, n: N, or fewer where the other tokens were given.

    Returns:
        (B, N) bool, True where masked at the next step. Tokens that tie with the least confident one kept are kept
        as well; a ratio of more tokens than are undecided masks all undecided ones.

    Source: the authors' code of AdaNAT (arXiv 2409.00342).
    """
    count = torch.minimum((remask_ratio * num_drawn).floor().long(), num_drawn - 1).clamp(min=0)  # (B,)
    cutoff = confidence.sort(dim=-1).values.gather(-1, count[:, None])  # (B, 1)
    return confidence < cutoff
