"""The NAT in the form that generation calls: the same images as two whole forwards a step, for fewer operations."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from adanat_cli.core.config import NATConfig
from adanat_cli.core.generation.actions import Action, action_from_values
from adanat_cli.core.generation.noise import SeededNoise
from adanat_cli.core.generation.schedules import CosineSchedule, HaltonSchedule, Schedule
from adanat_cli.core.generation.state import DecodingState
from adanat_cli.core.generation.step import Prediction, generate
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.jobs.sample import predictor as module
from adanat_cli.jobs.sample.conditions import ClassConditions, Conditions
from adanat_cli.jobs.sample.predictor import ConditionedNAT
from adanat_cli.jobs.sample.sampler import sample_tokens
from adanat_cli.jobs.sample.trace import Trace
from tests.support import fill_analytic

CLASS = NATConfig(codebook_size=16, grid=(4, 4), width=16, depth=2, num_heads=2, num_classes=10)
TEXT = CLASS.replace(condition="text", text_width=6, text_length=5)
CLASSES = ClassConditions(torch.tensor([3, 7, 3]), {})
STATES = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
"""States of the empty prompt and of three others."""


@dataclass(frozen=True)
class Prompts(Conditions):
    """Conditions on text states by their number."""

    turns: Tensor = field(default_factory=lambda: torch.tensor([1, 2, 3, 1]))
    states: Tensor = field(default_factory=lambda: STATES)

    @property
    def null(self) -> Tensor:
        return self.states[0]

    def encode(self, numbers: Tensor) -> Tensor:
        return self.states[numbers]


class SomeGuided:
    """A schedule that guides each second sample at each second step, and looks at features if asked to."""

    num_steps, order = 4, None

    def __init__(self, needs_features: bool) -> None:
        self.needs_features = needs_features

    def __call__(self, state: DecodingState, features: Tensor | None) -> Action:
        shift = 0.0 if features is None else features.mean(dim=(1, 2))
        values = torch.tensor([0.9 - 0.2 * state.step, 1.0, 0.5, 0.0]).repeat(len(state.mask), 1)
        values[(state.step + 1) % 2 :: 2, 3] = 2.0
        values[:, 1] += shift
        return action_from_values(values)


@torch.no_grad()
def plainly(nat: UViT, schedule: Schedule, conditions: Conditions, seed: int, num_images: int) -> Trace:
    """Two whole forwards a step, logits of all tokens: what the shorter way must agree with."""
    numbers = conditions.numbers(range(num_images))
    condition, null = conditions.encode(numbers), conditions.null
    unconditional = torch.full_like(condition, nat.config.num_classes) if null is None else null.expand_as(condition)

    def predict(state: DecodingState, guided: Tensor) -> Prediction:
        given, other = nat(state.token_ids, condition), nat(state.token_ids, unconditional)
        return Prediction(given.logits[state.masked], other.logits[state.masked], given.features)

    trace = Trace(num_images)
    start = DecodingState.start(num_images, 16, 16, schedule.num_steps)
    generate(schedule, predict, start, SeededNoise(seed, torch.arange(num_images), 16), trace)
    return trace


def nat_and_conditions(kind: str) -> tuple[UViT, Conditions]:
    return (fill_analytic(UViT(TEXT)), Prompts()) if kind == "text" else (fill_analytic(UViT(CLASS)), CLASSES)


@pytest.mark.parametrize("kind", ["class", "text"])
@pytest.mark.parametrize(
    ("schedule", "sizes"),
    [
        (CosineSchedule(8), (5,)),
        (CosineSchedule(8), (2, 1, 2)),
        (CosineSchedule(3, guidance_scale=0), (2, 1, 2)),
        (HaltonSchedule(6, (4, 4)), (2, 1, 2)),
        (SomeGuided(needs_features=False), (5,)),
        (SomeGuided(needs_features=True), (5,)),
    ],
)
def test_every_step_decides_what_two_whole_forwards_decide(
    kind: str, schedule: Schedule, sizes: tuple[int, ...]
) -> None:
    nat, conditions = nat_and_conditions(kind)
    plain = plainly(nat, schedule, conditions, 3, 5)
    short, conditioned = [], ConditionedNAT(nat, conditions)
    for part in torch.arange(5).split(list(sizes)):
        trace = Trace(len(part))
        sample_tokens(conditioned, schedule, 3, part, trace)
        short.append(trace)
    assert torch.equal(torch.cat([trace.token_ids for trace in short], dim=1), plain.token_ids)
    assert torch.equal(torch.cat([trace.masks for trace in short], dim=1), plain.masks)
    torch.testing.assert_close(torch.cat([trace.actions for trace in short], dim=1), plain.actions)


@dataclass
class Rows:
    """Counts images that pass the NAT's body, and tokens that pass its head."""

    images: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def watch(self, nat: UViT) -> None:
        nat.norm.register_forward_hook(lambda _module, inputs, _output: self.images.append(len(inputs[0])))
        nat.mlm_layer.register_forward_hook(
            lambda _module, inputs, _output: self.tokens.append(inputs[0].shape[:-1].numel())
        )


def test_four_steps_take_three_guided_forwards_an_image_and_one_of_each_class_and_of_the_null_condition() -> None:
    nat, rows = fill_analytic(UViT(CLASS)), Rows()
    rows.watch(nat)
    conditioned = ConditionedNAT(nat, CLASSES)
    sample_tokens(conditioned, CosineSchedule(4), 0, range(6))
    assert rows.images == [2, 1, 12, 12, 12]  # and not 12 each step, nor a last one after the steps
    sample_tokens(conditioned, CosineSchedule(4), 0, range(6, 9))
    assert rows.images[5:] == [6, 6, 6]
    assert conditioned.num_kept == 3


def test_logits_are_of_masked_tokens_only() -> None:
    nat, rows, trace = fill_analytic(UViT(CLASS)), Rows(), Trace(3)
    rows.watch(nat)
    sample_tokens(ConditionedNAT(nat, CLASSES), CosineSchedule(4), 0, range(3), trace)
    counts = trace.masks.sum((1, 2))[:-1].tolist()  # after the first, second and third step
    assert rows.tokens == [(2 + 1) * 16, *(2 * count for count in counts)]
    assert sum(rows.tokens) == 234  # of 4 * 2 * 3 * 16 = 384


@pytest.mark.parametrize(("needs_features", "halves"), [(False, [3 + 2, 3 + 1, 3 + 2]), (True, [6, 6, 6])])
def test_null_forwards_are_of_guided_samples_only_where_the_schedule_is_known(
    needs_features: bool, halves: list[int]
) -> None:
    nat, rows = fill_analytic(UViT(CLASS)), Rows()
    rows.watch(nat)
    sample_tokens(ConditionedNAT(nat, CLASSES), SomeGuided(needs_features), 0, range(3))
    assert rows.images == [2, 1, *halves]


def test_an_unguided_generation_takes_no_null_forward() -> None:
    nat, rows = fill_analytic(UViT(CLASS)), Rows()
    rows.watch(nat)
    sample_tokens(ConditionedNAT(nat, CLASSES), CosineSchedule(5, guidance_scale=0), 0, range(3))
    assert rows.images == [2, 3, 3, 3, 3]


@pytest.mark.parametrize("num_masked", [1, 2, 3, 5, 16])
@torch.no_grad()
def test_logits_of_a_token_are_the_same_however_many_others_are_masked(num_masked: int) -> None:
    nat = fill_analytic(UViT(CLASS))
    token_ids = torch.arange(16).masked_fill(torch.arange(16) < num_masked, 16)[None]
    state = DecodingState(token_ids, token_ids == 16, token_ids, 1, 4)
    prediction = ConditionedNAT(nat, CLASSES).predictor(torch.tensor([7]))(state, torch.tensor([True]))
    whole = nat(token_ids.expand(8, -1), torch.tensor([7, 10]).repeat(4)).logits
    assert prediction.null_logits is not None
    assert torch.equal(prediction.logits, whole[0, :num_masked])
    assert torch.equal(prediction.null_logits, whole[1, :num_masked])


def test_a_state_with_given_tokens_is_none_of_those_that_are_shared() -> None:
    nat = fill_analytic(UViT(CLASS))
    conditioned = ConditionedNAT(nat, CLASSES)
    token_ids = torch.full((2, 16), 16)
    token_ids[0, 3] = 5
    state = DecodingState(token_ids, token_ids == 16, token_ids, 0, 4)
    prediction = conditioned.predictor(torch.tensor([3, 7]))(state, torch.tensor([False, False]))
    assert conditioned.num_kept == 0
    assert prediction.null_logits is None
    assert torch.equal(prediction.logits, nat(token_ids, torch.tensor([3, 7])).logits[state.masked])


def test_a_state_without_masked_tokens_stays_as_it_is() -> None:
    token_ids = torch.arange(32).reshape(2, 16) % 16
    state, schedule = DecodingState.start_from(token_ids, 16, 3), CosineSchedule(3)
    predict = ConditionedNAT(fill_analytic(UViT(CLASS)), CLASSES).predictor(torch.tensor([3, 7]))
    last = generate(schedule, predict, state, SeededNoise(0, torch.arange(2), 16))
    assert torch.equal(last.sampled_ids, token_ids)


def test_what_is_kept_is_bounded_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    nat, conditions = fill_analytic(UViT(CLASS)), ClassConditions(torch.arange(10), {})
    everything = ConditionedNAT(nat, conditions)
    batches = [range(start, start + 4) for start in (0, 4, 8, 12)]
    expected = [sample_tokens(everything, CosineSchedule(4), 0, batch) for batch in batches]
    assert everything.num_kept == 11
    monkeypatch.setattr(module, "_MAX_BYTES", 6 * 16 * 16 * 4)
    little = ConditionedNAT(nat, conditions)
    found = [sample_tokens(little, CosineSchedule(4), 0, batch) for batch in batches]
    assert little.num_kept == 5
    assert all(map(torch.equal, found, expected))


@torch.no_grad()
def test_logits_are_float32_in_half_precision_too() -> None:
    nat, state, all_guided = fill_analytic(UViT(CLASS)), DecodingState.start(3, 16, 16, 4), torch.ones(3).bool()
    half, full = (
        ConditionedNAT(nat, CLASSES, precision).predictor(CLASSES.turns)(state, all_guided)
        for precision in (torch.bfloat16, torch.float32)
    )
    assert half.logits.dtype == torch.float32
    assert not torch.equal(half.logits, full.logits)
    torch.testing.assert_close(half.logits, full.logits, atol=0.05, rtol=0.05)


def test_a_nat_in_training_mode_is_refused_and_text_needs_an_empty_prompt() -> None:
    with pytest.raises(ValueError, match="evaluation mode"):
        ConditionedNAT(UViT(CLASS).train(), CLASSES)
    with pytest.raises(ValueError, match="empty prompt"):
        ConditionedNAT(fill_analytic(UViT(TEXT)), CLASSES)
