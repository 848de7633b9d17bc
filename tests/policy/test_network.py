"""The policy network against the reference, and on grids that the reference cannot take."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adanat_cli.core.config import PolicyConfig
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.policy import PolicyNetwork
from adanat_cli.core.policy.network import timestep_embedding
from tests.support import analytic_input, fill_analytic, fixture, fixture_json

CASES = {"c32": (32, 4), "c512": (512, 4), "c32_value": (32, 1)}
TIMESTEPS = torch.tensor([0, 3, 7])
TOLERANCE = 1e-5


def network(case: str) -> PolicyNetwork:
    feature_width, out_features = CASES[case]
    return PolicyNetwork(
        PolicyConfig(feature_width=feature_width, grid=(16, 16), num_steps=8, out_features=out_features)
    )


@pytest.mark.parametrize("case", CASES)
def test_state_dict_names_and_shapes_are_the_references(case: str) -> None:
    with torch.device("meta"):
        state = network(case).state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == fixture_json("policy_keys")[case]


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_outputs_agree_with_the_reference(case: str) -> None:
    features = analytic_input("feat", (3, 256, CASES[case][0]), 1, 0)
    raw = fill_analytic(network(case))(features, TIMESTEPS)
    np.testing.assert_allclose(raw.numpy(), fixture("policy")[f"out_{case}"], rtol=0, atol=TOLERANCE)


@torch.inference_mode()
def test_timestep_embedding_and_modulation_agree_with_the_reference() -> None:
    arrays, model = fixture("policy"), fill_analytic(network("c32"))
    features, condition = analytic_input("feat", (3, 256, 32), 1, 0), model.t_embedder(TIMESTEPS)
    assert model.x_embedder is not None
    actual = {
        "timestep_embedding": timestep_embedding(TIMESTEPS),
        "t_embedder_out": condition,
        "adaln1_token0": model.adaLN1(model.x_embedder(features), condition)[:, 0],
    }
    for name, tensor in actual.items():
        np.testing.assert_allclose(tensor.numpy(), arrays[name], rtol=0, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (8, 8), (16, 16), (32, 32), (5, 8), (1, 1)])
@torch.inference_mode()
def test_an_untrained_policy_returns_zero_on_any_grid(grid: tuple[int, int]) -> None:
    model = PolicyNetwork(PolicyConfig(feature_width=8, grid=grid, num_steps=4, hidden_width=32))
    raw = model(torch.randn(2, grid[0] * grid[1], 8), torch.tensor([0, 3]))
    assert torch.equal(raw, torch.zeros(2, 4))


def test_every_weight_but_those_behind_the_zero_output_learns_after_one_step() -> None:
    model = PolicyNetwork(PolicyConfig(feature_width=8, grid=(4, 4), num_steps=4, hidden_width=32))
    torch.nn.init.normal_(model.linear3.weight)
    model(torch.randn(2, 16, 8), torch.tensor([0, 3])).sum().backward()
    dead = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    # The zero modulation passes no gradient to the timestep embedding yet.
    assert dead == {name for name, _ in model.named_parameters() if name.startswith("t_embedder")}


def test_a_configuration_survives_json() -> None:
    config = PolicyConfig(
        feature_width=8, grid=(4, 4), num_steps=1, schedule="table", schedule_table=((0.5, 1.0, 0.5, 2.0),)
    )
    assert PolicyConfig.from_dict(config.to_dict(), "here") == config
    assert hash(config)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_steps": 0},
        {"smoothing": 1.0},
        {"grid": (0, 4)},
        {"schedule": "linear"},
        {"schedule": "table"},
        {"kind": "hasty"},
        {"hidden_width": 31},
    ],
)
def test_an_impossible_configuration_is_refused_in_one_line(wrong: dict[str, object]) -> None:
    with pytest.raises(AdaNATError, match="expected") as caught:
        PolicyConfig(**{"feature_width": 8, "grid": (4, 4), "num_steps": 4, **wrong})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
