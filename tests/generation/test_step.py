"""The generation step: the reference's loops, and the invariants of any loop."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from adanat_cli.core.config import NATConfig
from adanat_cli.core.generation.actions import Action, action_from_values
from adanat_cli.core.generation.noise import SeededNoise
from adanat_cli.core.generation.schedules import AutoNATSchedule, CosineSchedule, HaltonSchedule, TableSchedule
from adanat_cli.core.generation.state import DecodingState
from adanat_cli.core.generation.step import Prediction, Predictor, decide, generate, guide, remask
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.jobs.sample.conditions import ClassConditions
from adanat_cli.jobs.sample.predictor import ConditionedNAT
from tests.support import fill_analytic, fixture, gumbel

OUR_ORDER = [0, 2, 1, 3]
ALL = torch.ones(2, dtype=torch.bool)
"""Both of two samples are guided."""


@dataclass
class StoredNoise:
    """The fixtures' noise: ids by argmax over logits plus noise, or plain argmax."""

    num_steps: int
    batch: int
    with_id_noise: bool = True

    def choose(self, logits: Tensor, step: int, masked: tuple[Tensor, Tensor]) -> Tensor:
        if self.with_id_noise:
            logits = logits + gumbel("noise.ids", (self.num_steps, self.batch, 256, logits.shape[-1]))[step][masked]
        return logits.argmax(-1)

    def gumbel(self, step: int) -> Tensor:
        return gumbel("noise.confidence", (self.num_steps, self.batch, 256))[step]


@dataclass
class GivenActions:
    """One action per step and sample, (T, B, 4)."""

    values: Tensor
    needs_features: bool = False
    order: Tensor | None = None

    @property
    def num_steps(self) -> int:
        return len(self.values)

    def __call__(self, state: DecodingState, features: Tensor | None) -> Action:
        return action_from_values(self.values[state.step])


def tiny_nat(num_classes: int = 10) -> UViT:
    config = NATConfig(codebook_size=64, grid=(16, 16), width=32, depth=4, num_heads=4, num_classes=num_classes)
    return fill_analytic(UViT(config))


def predictor(nat: UViT, labels: Tensor) -> Predictor:
    return ConditionedNAT(nat, ClassConditions(labels, {})).predictor(labels)


def toy_predictor(num_ids: int = 11, calls: list[list[bool]] | None = None, seed: int = 0):
    """A network whose logits at a position depend on all tokens of the same sample."""
    weights = torch.randn(97, num_ids, generator=torch.Generator().manual_seed(seed))

    def predict(state: DecodingState, guided: Tensor) -> Prediction:
        if calls is not None:
            calls.append(guided.tolist())
        code = (state.token_ids.cumsum(-1) * 31 + state.token_ids.sum(-1, keepdim=True)) % 97
        null = weights[code.flip(-1)[state.masked]] if guided.any() else None
        return Prediction(weights[code[state.masked]], null, code[..., None].float())

    return predict


@pytest.mark.parametrize("case", ["T4_argmax", "T4_gumbel", "T8_argmax", "T8_gumbel", "T4_batch1"])
@torch.no_grad()
def test_the_loop_is_the_references(case: str) -> None:
    stored = {key.split(".")[1]: value for key, value in fixture("generate").items() if key.startswith(f"{case}.")}
    values = torch.from_numpy(stored["params"])[..., OUR_ORDER]
    num_steps, batch, _ = values.shape
    predict = predictor(tiny_nat(), torch.from_numpy(stored["labels"]).long())
    seen: list[tuple[Tensor, Tensor]] = []
    last = generate(
        GivenActions(values),
        predict,
        DecodingState.start(batch, 256, 64, num_steps),
        StoredNoise(num_steps, batch, with_id_noise=not case.endswith("argmax")),
        on_step=lambda state, action: seen.append((state.sampled_ids, state.mask)),
    )
    np.testing.assert_array_equal(torch.stack([ids for ids, _ in seen]), stored["sampled_ids"])
    np.testing.assert_array_equal(torch.stack([mask for _, mask in seen]), stored["masked_after"])
    features = predict(last, torch.zeros(batch, dtype=torch.bool)).features[:, ::32]
    np.testing.assert_allclose(features, stored["final_feat_stride32"], atol=3e-5)


@torch.no_grad()
def test_the_first_confidence_is_the_references() -> None:
    stored = fixture("generate")
    predict = predictor(tiny_nat(), torch.from_numpy(stored["T4_argmax.labels"]).long())
    action = action_from_values(torch.from_numpy(stored["T4_argmax.params"][0])[..., OUR_ORDER])
    state = DecodingState.start(2, 256, 64, 4)
    logits = guide(predict(state, ALL), action.guidance_scale.repeat_interleave(256)).unflatten(0, (2, 256))
    drawn = (logits / action.sampling_temperature[:, None, None]).argmax(-1, keepdim=True)
    noise = action.remask_temperature[:, None] * StoredNoise(4, 2).gumbel(0)
    confidence = logits.log_softmax(-1).gather(-1, drawn)[..., 0] + noise
    np.testing.assert_allclose(confidence, stored["T4_argmax.confidence"][0], atol=3e-5)


def run_toy(schedule, image_indices: list[int], seed: int = 5, num_tokens: int = 36):
    states = [DecodingState.start(len(image_indices), num_tokens, 11, schedule.num_steps)]
    noise = SeededNoise(seed, torch.tensor(image_indices), num_tokens)
    generate(schedule, toy_predictor(), states[0], noise, on_step=lambda state, action: states.append(state))
    return states


RANDOM_TABLE = torch.rand(6, 4, generator=torch.Generator().manual_seed(1)) * torch.tensor([0.99, 2, 3, 2]) + 1e-3
SCHEDULES = [CosineSchedule(8), CosineSchedule(1), HaltonSchedule(5, (6, 6)), TableSchedule(RANDOM_TABLE)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_decided_tokens_never_change(schedule: TableSchedule) -> None:
    states = run_toy(schedule, [0, 1, 2])
    for before, after in itertools.pairwise(states):
        decided = ~before.mask
        assert not (after.mask & decided).any()
        assert torch.equal(after.token_ids[decided], before.token_ids[decided])
        assert torch.equal(after.sampled_ids[decided], before.token_ids[decided])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_position_is_revealed_and_no_mask_id_survives(schedule: TableSchedule) -> None:
    last = run_toy(schedule, [0, 1, 2])[-1]
    assert last.finished
    assert last.sampled_ids.min() >= 0
    assert last.sampled_ids.max() < 11


@pytest.mark.parametrize("num_steps", [1, 4, 16, 50])
def test_cosine_schedule_never_masks_more_and_masks_the_count_it_says(num_steps: int) -> None:
    states = run_toy(CosineSchedule(num_steps), [0, 1])
    counts = torch.stack([state.mask.sum(-1) for state in states])  # (T + 1, B)
    assert (counts.diff(dim=0) <= 0).all()
    expected = (CosineSchedule(num_steps).table[:, 0].float() * 36).floor().long().clamp(max=35)
    assert torch.equal(counts[1:], expected[:, None].expand(-1, 2))


def run_with_given(schedule, given: Tensor, seed: int = 5):
    states = [DecodingState.start_from(given, 11, schedule.num_steps)]
    noise = SeededNoise(seed, torch.arange(len(given)), given.shape[1])
    generate(schedule, toy_predictor(), states[0], noise, on_step=lambda state, action: states.append(state))
    return states


def some_given() -> Tensor:
    """Three samples of 36 tokens: 35, 20 and 1 to draw, the others given."""
    given = torch.arange(36).expand(3, 36) % 11
    return given.masked_fill(torch.arange(36) < torch.tensor([[35], [20], [1]]), 11)


AUTONAT = AutoNATSchedule(RANDOM_TABLE)


@pytest.mark.parametrize("schedule", [*SCHEDULES, AUTONAT])
def test_given_tokens_never_change_and_the_others_are_drawn(schedule: TableSchedule) -> None:
    given = some_given()
    kept = given != 11
    states = run_with_given(schedule, given)
    for state in states:
        assert torch.equal(state.token_ids[kept], given[kept])
        assert torch.equal(state.sampled_ids[kept], given[kept])
        assert not (state.mask & kept).any()
    assert states[-1].sampled_ids.max() < 11
    assert not torch.equal(states[-1].sampled_ids[0], given[0] % 11)


@pytest.mark.parametrize("num_steps", [1, 4, 16])
def test_the_masked_count_is_the_schedules_share_of_the_tokens_that_are_drawn(num_steps: int) -> None:
    states = run_with_given(CosineSchedule(num_steps), some_given())
    counts = torch.stack([state.mask.sum(-1) for state in states])  # (T + 1, B)
    num_drawn = torch.tensor([35, 20, 1])
    assert torch.equal(counts[0], num_drawn)
    expected = (CosineSchedule(num_steps).table[:, :1].float() * num_drawn).floor().long()
    assert torch.equal(counts[1:], expected.minimum(num_drawn - 1))


def test_autonats_rule_counts_the_tokens_that_are_drawn() -> None:
    states = run_with_given(AUTONAT, some_given())
    for before, after in itertools.pairwise(states):
        masked, left = before.mask.sum(-1), after.mask.sum(-1)
        assert (left < masked)[masked > 1].all()
        assert (left >= 1)[:2].all()
        assert after.last_action is not None
        assert (after.last_action.remask_ratio < 1).all()


@pytest.mark.parametrize("schedule", [*SCHEDULES, AUTONAT])
def test_with_no_token_given_the_draw_is_the_usual_one(schedule: TableSchedule) -> None:
    usual, states = run_toy(schedule, [0, 1, 2]), run_with_given(schedule, torch.full((3, 36), 11))
    for one, other in zip(usual, states, strict=True):
        assert torch.equal(one.sampled_ids, other.sampled_ids)
        assert torch.equal(one.mask, other.mask)


def test_mask_and_mask_ids_agree() -> None:
    for state in run_toy(CosineSchedule(6), [3, 4]):
        assert torch.equal(state.mask, state.token_ids == 11)


def test_an_image_depends_on_seed_and_index_only() -> None:
    whole = run_toy(CosineSchedule(6), list(range(8)))[-1].sampled_ids
    for batches in (
        [[0], [1], [2], [3], [4], [5], [6], [7]],
        [[0, 1, 2], [3, 4, 5], [6, 7]],
        [[7, 2, 5], [0, 6, 1, 4, 3]],
    ):
        for batch in batches:
            assert torch.equal(run_toy(CosineSchedule(6), batch)[-1].sampled_ids, whole[batch])
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(run_toy(CosineSchedule(6), [0], seed=6)[-1].sampled_ids[0], whole[0])


def test_one_network_call_a_step_and_guided_only_where_a_scale_is_not_zero() -> None:
    table = torch.tensor([[0.9, 1, 1, 0.0], [0.5, 1, 1, 0.7], [0.1, 1, 0, 0.0]])
    calls: list[list[bool]] = []
    start = DecodingState.start(2, 16, 11, 3)
    generate(TableSchedule(table), toy_predictor(calls=calls), start, SeededNoise(0, torch.arange(2), 16))
    assert calls == [[False] * 2, [True] * 2, [False] * 2]


def test_a_policy_gets_features_from_the_same_single_call() -> None:
    calls: list[list[bool]] = []
    widths: list[int] = []

    class Policy(GivenActions):
        def __call__(self, state: DecodingState, features: Tensor | None) -> Action:
            assert features is not None
            widths.append(features.shape[-1])
            return super().__call__(state, features)

    schedule = Policy(torch.full((4, 2, 4), 0.5), needs_features=True)
    start = DecodingState.start(2, 16, 11, 4)
    generate(schedule, toy_predictor(calls=calls), start, SeededNoise(0, torch.arange(2), 16))
    assert calls == [[True] * 2] * 4
    assert widths == [1] * 4


def test_the_step_leaves_its_arguments_as_they_are() -> None:
    state, action = DecodingState.start(2, 16, 11, 4), action_from_values(torch.full((2, 4), 0.5))
    prediction = toy_predictor()(state, ALL)
    copies = [tensor.clone() for tensor in (state.token_ids, prediction.logits, prediction.null_logits)]
    decide(state, action, prediction, SeededNoise(0, torch.arange(2), 16))
    after = (state.token_ids, prediction.logits, prediction.null_logits)
    assert all(torch.equal(a, b) for a, b in zip(copies, after, strict=True))


def test_half_precision_logits_are_sampled_in_float32() -> None:
    state, action = DecodingState.start(2, 16, 11, 4), action_from_values(torch.full((2, 4), 0.5))
    half = Prediction(*(tensor.bfloat16() for tensor in toy_predictor()(state, ALL)))
    full = Prediction(*(tensor.float() for tensor in half))
    noise = SeededNoise(0, torch.arange(2), 16)
    assert torch.equal(decide(state, action, half, noise).token_ids, decide(state, action, full, noise).token_ids)


def test_ruled_out_ids_are_never_drawn_with_guidance() -> None:
    logits = torch.zeros(400, 5)
    logits[..., 1] = -torch.inf
    prediction = Prediction(logits, logits + torch.randn(400, 1), torch.zeros(2, 200, 1))
    for scale in (0.0, 0.5, 3.0):
        action = action_from_values(torch.tensor([[0.5, 2.0, 1.0, scale]]).expand(2, 4))
        state = decide(DecodingState.start(2, 200, 5, 2), action, prediction, SeededNoise(1, torch.arange(2), 200))
        assert set(state.sampled_ids.unique().tolist()) == {0, 2, 3, 4}
        assert (state.mask.sum(-1) == 100).all()


def test_a_vanishing_sampling_temperature_takes_the_best_id() -> None:
    state = DecodingState.start(2, 16, 11, 2)
    prediction = toy_predictor()(state, ~ALL)
    action = action_from_values(torch.tensor([[0.5, 0.0, 1.0, 0.0]]).expand(2, 4))
    after = decide(state, action, prediction, SeededNoise(1, torch.arange(2), 16))
    assert torch.equal(after.sampled_ids.flatten(), prediction.logits.argmax(-1))


def test_remask_takes_the_least_confident_up_to_all_but_one() -> None:
    confidence = torch.tensor([[3.0, 1.0, 2.0, 4.0]]).expand(4, 4)
    mask = remask(confidence, torch.tensor([0.0, 0.3, 0.5, 1.0]), torch.full((4,), 4))
    assert mask.tolist() == [
        [False, False, False, False],
        [False, True, False, False],
        [False, True, True, False],
        [True, True, True, False],
    ]


def test_remask_keeps_ties_at_the_cutoff_and_takes_minus_infinity_first() -> None:
    inf = torch.inf
    confidence = torch.tensor([[1.0, 1.0, 1.0, 2.0], [-inf, 1.0, -inf, inf], [1.0, inf, 2.0, inf]])
    mask = remask(confidence, torch.tensor([0.5, 0.5, 0.75]), torch.full((3,), 4))
    assert mask.tolist() == [[False] * 4, [True, False, True, False], [True, False, True, False]]
