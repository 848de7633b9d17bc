"""The search for a table, on distances whose best is known."""

from __future__ import annotations

from math import prod

import torch

from adanat_cli.core.generation.schedules import CosineSchedule, TableSchedule
from adanat_cli.core.generation.search import GRID, TableSearch, grid

BEST = torch.tensor([[0.6, 0.8, 2.0, 1.0], [0.2, 1.2, 0.5, 2.0], [0.1, 1.0, 0.1, 3.0]], dtype=torch.float64)


def distance(schedule: TableSchedule) -> float:
    difference = (schedule.table - BEST).square()
    difference[-1, 0] = difference[-1, 2] = 0
    return float(difference.sum())


def run(search: TableSearch, generations: int) -> TableSearch:
    for _ in range(generations):
        points = search.candidates()
        search.tell(points, torch.tensor([distance(search.table(point)) for point in points], dtype=torch.float64))
    return search


def test_it_finds_the_best_table() -> None:
    start = CosineSchedule(3)
    search = run(TableSearch(start, 0), 60)
    assert distance(search.table(search.mean)) < 0.02 * distance(start)


def test_the_largest_seed_draws_candidates_of_its_own() -> None:
    drawn = [TableSearch(CosineSchedule(3), seed).candidates() for seed in (0, 2**63 - 2, 2**63 - 1)]
    assert len({tuple(points.flatten().tolist()) for points in drawn}) == 3


def test_what_has_no_effect_stays() -> None:
    start = CosineSchedule(3)
    table = run(TableSearch(start, 0), 5)
    found = table.table(table.mean).table
    torch.testing.assert_close(found[-1, [0, 2]], start.table[-1, [0, 2]].clamp(min=1e-3), atol=1e-3, rtol=0)


def test_every_number_that_has_an_effect_gets_away_from_zero() -> None:
    search = TableSearch(TableSchedule([(0.5, 1, 0, 0), (0.0, 0.01, 0, 0)]), 0)
    first, second = (search.table(point).table[-1] for point in search.candidates()[:2])
    assert abs(first[1] - second[1]) > 1e-3  # the last step's sampling temperature
    assert abs(first[3] - second[3]) > 1e-3  # and its guidance scale


def test_it_goes_on_exactly() -> None:
    whole = run(TableSearch(CosineSchedule(3), 1), 6)
    half = run(TableSearch(CosineSchedule(3), 1), 3)
    other = TableSearch(CosineSchedule(3), 1)
    other.load_state_dict(half.state_dict(), 3)
    torch.testing.assert_close(run(other, 3).mean, whole.mean, atol=0, rtol=0)


def test_the_grid_holds_the_default_schedule_once() -> None:
    tables = [schedule.table for _, schedule in grid(4)]
    assert sum(torch.equal(table, CosineSchedule(4).table) for table in tables) == 1
    assert len({tuple(table.flatten().tolist()) for table in tables}) == prod(map(len, GRID.values()))
