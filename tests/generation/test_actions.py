"""Activations and fixed schedules against the reference's numbers."""

import numpy as np
import pytest
import torch

from adanat_cli.core.generation.actions import action_from_raw, action_from_values, raw_from_values
from adanat_cli.core.generation.schedules import CosineSchedule
from tests.support import analytic_input, fixture

# The fixtures list a step as (r, tau2, tau1, w).
OUR_ORDER = [0, 2, 1, 3]
TOLERANCE = {"atol": 1e-6, "rtol": 3e-4}


def test_actions_without_and_with_the_residual_are_the_references() -> None:
    stored = fixture("actions")
    raw = analytic_input("raw_actions", (3, 8, 4), 2, 0)[..., OUR_ORDER]
    base = raw_from_values(CosineSchedule(8).table).float()
    for step in range(8):
        plain = action_from_raw(raw[:, step]).values()
        residual = action_from_raw(raw[:, step] + base[step]).values()
        np.testing.assert_allclose(plain, stored["adanat_heu0_T8"][:, step, OUR_ORDER], **TOLERANCE)
        np.testing.assert_allclose(residual, stored["adanat_heu1_T8"][:, step, OUR_ORDER], **TOLERANCE)


@pytest.mark.parametrize("num_steps", [4, 8, 12, 16])
def test_cosine_schedule_and_its_pre_activations_are_the_references(num_steps: int) -> None:
    stored = fixture("actions")
    table = CosineSchedule(num_steps).table
    np.testing.assert_allclose(table, stored[f"heuristic_T{num_steps}"][:, OUR_ORDER], **TOLERANCE)
    residual = raw_from_values(table)
    np.testing.assert_allclose(residual, stored[f"residual_T{num_steps}"][:, OUR_ORDER], **TOLERANCE)


def test_pre_activations_invert_the_activations() -> None:
    values = CosineSchedule(16).table.float()
    torch.testing.assert_close(action_from_raw(raw_from_values(values)).values(), values, atol=1e-6, rtol=1e-5)


def test_values_survive_the_way_into_an_action_and_back() -> None:
    values = torch.rand(5, 4)
    torch.testing.assert_close(action_from_values(values).values(), values, rtol=0, atol=0)
