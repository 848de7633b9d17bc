"""The generation step under any sizes, given tokens and actions that hypothesis can think of."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.generation.actions import Action, action_from_raw, action_from_values
from adanat_cli.core.generation.noise import SeededNoise
from adanat_cli.core.generation.state import DecodingState
from adanat_cli.core.generation.step import Prediction, generate

RATIOS = st.floats(0, 1, exclude_max=True, width=32)
TEMPERATURES = st.sampled_from([0.0, 1e-30, 1e-4, 0.3, 1.0, 7.0, 1e4])
SCALES = st.sampled_from([0.0, 1e-30, 0.5, 3.0, 1e4])
VALUES = st.tuples(RATIOS, TEMPERATURES, TEMPERATURES, SCALES)
RAW = st.one_of(st.floats(width=32, allow_nan=False), st.sampled_from([0.0, -1e4, 1e4, 1e38, -1e38]))


@dataclass
class Case:
    """A generation: B images by their numbers, N tokens of which some are given, K ids, T steps.

    Attributes:
        actions: (T, B, 4), values or, where ``raw``, pre-activations.
        largest: bound on the logits; id 0 is ruled out.
    """

    images: list[int]
    given: Tensor
    num_ids: int
    actions: Tensor
    seed: int
    raw: bool = False
    largest: float = 5.0
    needs_features: bool = False
    order: Tensor | None = None

    @property
    def num_steps(self) -> int:
        return len(self.actions)

    def __call__(self, state: DecodingState, features: Tensor | None) -> Action:
        return (action_from_raw if self.raw else action_from_values)(self.actions[state.step])

    def predict(self, state: DecodingState, guided: Tensor) -> Prediction:
        """Logits at a position depend on all tokens of the same image."""
        weights = self.largest * (2 * torch.rand(97, self.num_ids, generator=torch.Generator().manual_seed(7)) - 1)
        weights[:, 0] = -torch.inf
        code = (state.token_ids.cumsum(-1) * 31 + state.token_ids.sum(-1, keepdim=True)) % 97
        null = weights[code.flip(-1)[state.masked]] if guided.any() else None
        return Prediction(weights[code[state.masked]], null, code[..., None].float())

    def states(self) -> list[DecodingState]:
        """The start, and what each step makes of it."""
        states = [DecodingState.start_from(self.given, self.num_ids, self.num_steps)]
        noise = SeededNoise(self.seed, torch.tensor(self.images), self.given.shape[1])
        generate(self, self.predict, states[0], noise, on_step=lambda state, action: states.append(state))
        return states

    def of(self, rows: list[int]) -> Case:
        """The same images, but only some of them, in any order."""
        return Case(
            [self.images[row] for row in rows], self.given[rows], self.num_ids, self.actions[:, rows], self.seed
        )


@st.composite
def cases(draw: Any, values: st.SearchStrategy[Any] = VALUES, **fields: Any) -> Case:
    """Any case; at least one token of each image is to draw, as in every job."""
    batch, num_tokens = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    num_ids, num_steps = draw(st.integers(2, 9)), draw(st.integers(1, 5))
    to_draw = [draw(st.sets(st.integers(0, num_tokens - 1), min_size=1)) for _ in range(batch)]
    ids = torch.arange(num_tokens).expand(batch, num_tokens) % num_ids
    given_ids = ids.clone()
    for row, positions in enumerate(to_draw):
        given_ids[row, sorted(positions)] = num_ids
    rows = st.lists(values, min_size=num_steps * batch, max_size=num_steps * batch)
    actions = torch.tensor(draw(rows), dtype=torch.float32).view(num_steps, batch, 4)
    images = draw(st.lists(st.integers(0, 2**40), min_size=batch, max_size=batch, unique=True))
    return Case(images, given_ids, num_ids, actions, draw(st.integers(0, 2**63 - 1)), **fields)


@given(cases())
def test_the_masked_count_never_grows_and_is_what_the_ratio_says(case: Case) -> None:
    states = case.states()
    for before, after in itertools.pairwise(states):
        action, num_drawn = case.actions[before.step], before.num_drawn
        asked = torch.minimum((action[:, 0] * num_drawn).floor().long(), num_drawn - 1)
        count, expected = after.mask.sum(-1), torch.minimum(asked, before.mask.sum(-1))
        assert (count <= expected).all()  # tokens of equal confidence are kept together
        noisy = (action[:, 2] >= 0.3) & (action[:, 3] <= 3)
        assert torch.equal(count[noisy], expected[noisy])


@given(cases())
def test_what_is_decided_or_given_never_changes(case: Case) -> None:
    states = case.states()
    kept = case.given != case.num_ids
    for before, after in itertools.pairwise(states):
        decided = ~before.mask
        assert not (after.mask & decided).any()
        assert torch.equal(after.token_ids[decided], before.token_ids[decided])
        assert torch.equal(after.sampled_ids[kept], case.given[kept])
        assert torch.equal(after.mask, after.token_ids == case.num_ids)


def assert_whole(case: Case) -> None:
    states = case.states()
    assert states[-1].finished
    for state in states[1:]:
        assert ((state.sampled_ids >= 0) & (state.sampled_ids < case.num_ids)).all()
        assert state.last_action is not None
        assert state.last_action.values().isfinite().all()


@given(cases())
def test_no_mask_survives_the_last_step(case: Case) -> None:
    assert_whole(case)


@given(cases(st.tuples(RAW, RAW, RAW, RAW), raw=True))
def test_any_output_of_a_policy_is_a_finite_action_that_ends_in_an_image(case: Case) -> None:
    assert_whole(case)


@given(cases(largest=1e4))
def test_logits_of_any_size_end_in_an_image(case: Case) -> None:
    assert_whole(case)


@given(cases(), st.randoms(use_true_random=False))
def test_an_image_does_not_depend_on_its_batch(case: Case, random: Any) -> None:
    whole = case.states()[-1].sampled_ids
    order = list(range(len(case.images)))
    random.shuffle(order)
    cut = random.randint(0, len(order))
    for rows in (order, order[:cut], order[cut:]):
        if rows:
            assert torch.equal(case.of(rows).states()[-1].sampled_ids, whole[rows])


@given(cases(), st.sampled_from(range(4)), st.sampled_from([torch.nan, torch.inf]), st.data())
def test_an_action_that_is_not_a_number_is_refused(case: Case, column: int, value: float, data: Any) -> None:
    step, row = data.draw(st.integers(0, case.num_steps - 1)), data.draw(st.integers(0, len(case.images) - 1))
    case.actions[step, row, column] = value
    with pytest.raises(AdaNATError, match="not a number"):
        case.states()


@given(cases(largest=torch.nan))
def test_logits_that_are_not_numbers_are_refused(case: Case) -> None:
    with pytest.raises(AdaNATError, match="not a number"):
        case.states()
