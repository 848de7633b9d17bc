"""Fixed schedules: Halton order, AutoNAT tables, and what a wrong table says."""

import numpy as np
import pytest
import torch

from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.generation.halton import halton_order, num_revealed
from adanat_cli.core.generation.schedules import AutoNATSchedule, CosineSchedule, HaltonSchedule, TableSchedule
from adanat_cli.core.generation.state import DecodingState
from tests.support import fixture


@pytest.mark.parametrize("side", [16, 32])
def test_halton_order_is_the_references(side: int) -> None:
    order = halton_order((side, side))
    rows_and_columns = torch.stack([order // side, order % side], dim=-1)
    np.testing.assert_array_equal(rows_and_columns, fixture("halton")[f"order{side}"])


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (8, 8), (5, 9)])
def test_halton_order_visits_every_cell_once(grid: tuple[int, int]) -> None:
    assert halton_order(grid).sort().values.tolist() == list(range(grid[0] * grid[1]))


@pytest.mark.parametrize(("num_steps", "num_tokens"), [(8, 256), (12, 256), (32, 256)])
def test_revealed_counts_are_the_references(num_steps: int, num_tokens: int) -> None:
    assert num_revealed(num_steps, num_tokens) == fixture("halton")[f"revealed_T{num_steps}"].tolist()


@pytest.mark.parametrize(("num_steps", "grid"), [(8, (16, 16)), (3, (2, 2)), (9, (2, 4))])
def test_halton_ratios_stand_for_exact_counts(num_steps: int, grid: tuple[int, int]) -> None:
    num_tokens = grid[0] * grid[1]
    counts = (HaltonSchedule(num_steps, grid).table[:, 0].float() * num_tokens).floor()
    assert counts.tolist() == [num_tokens - revealed for revealed in num_revealed(num_steps, num_tokens)]


def test_autonat_masks_at_least_one_and_reveals_at_least_one() -> None:
    schedule = AutoNATSchedule([(0.9, 1, 1, 0), (0.0, 1, 0, 0)])
    state = DecodingState.start(2, 16, 8, 2)
    state = DecodingState(state.token_ids, torch.arange(16).expand(2, 16) < 5, state.token_ids, 0, 2)
    assert ((schedule(state, None).remask_ratio * 16).floor() == 4).all()
    last = DecodingState(state.token_ids, state.mask, state.token_ids, 1, 2)
    assert ((schedule(last, None).remask_ratio * 16).floor() == 1).all()


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ([], "at least one step"),
        ([(0.5, 1, 1)], "four values"),
        ([(1.0, 1, 1, 1)], "re-masking ratio of"),
        ([(-0.1, 1, 1, 1)], "re-masking ratio of"),
        ([(0.5, 0, 1, 1)], "sampling temperature of 0"),
        ([(0.5, 1, -1, 1)], "re-masking temperature of"),
        ([(0.5, 1, 1, -1)], "guidance scale of -1; expected a value at least 0"),
        ([(0.5, 1, 1, float("nan"))], "finite"),
    ],
)
def test_an_impossible_table_is_refused(table: list[tuple[float, ...]], complaint: str) -> None:
    with pytest.raises(AdaNATError, match=complaint):
        TableSchedule(table)


@pytest.mark.parametrize("num_steps", [0, -3])
def test_a_schedule_without_steps_is_refused(num_steps: int) -> None:
    for build in (lambda: CosineSchedule(num_steps), lambda: HaltonSchedule(num_steps, (4, 4))):
        with pytest.raises(AdaNATError, match="at least one step"):
            build()


def test_scales_act_on_their_own_columns() -> None:
    plain = CosineSchedule(4).table
    scaled = CosineSchedule(4, sampling_temperature=2, remask_temperature=3, guidance_scale=5).table
    torch.testing.assert_close(scaled, plain * torch.tensor([1, 2, 3, 5]))
