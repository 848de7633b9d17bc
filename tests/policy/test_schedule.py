"""Policies in the place of schedules: the reference's trajectories, residuals and smoothing."""

import numpy as np
import pytest
import torch

from adanat_cli.core.config import NATConfig, PolicyConfig
from adanat_cli.core.generation.actions import Action
from adanat_cli.core.generation.schedules import CosineSchedule
from adanat_cli.core.generation.state import DecodingState
from adanat_cli.core.generation.step import generate
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.policy.network import PolicyNetwork
from adanat_cli.core.policy.schedule import PolicySchedule, base_pre_activations
from adanat_cli.core.policy.static import build_policy
from adanat_cli.jobs.sample.conditions import ClassConditions
from adanat_cli.jobs.sample.predictor import ConditionedNAT
from tests.support import analytic_input, fill_analytic, fixture, gumbel

OUR_ORDER = [0, 2, 1, 3]
TOLERANCE = {"atol": 1e-6, "rtol": 3e-4}


class StoredNoise:
    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps

    def choose(self, logits: torch.Tensor, step: int, masked: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return (logits + gumbel("noise.ids", (self.num_steps, 2, 256, 64))[step][masked]).argmax(-1)

    def gumbel(self, step: int) -> torch.Tensor:
        return gumbel("noise.confidence", (self.num_steps, 2, 256))[step]


def reference_policy(num_steps: int, prefix: str, residual: bool, smoothing: float = 0.0) -> PolicySchedule:
    """The fixtures' policy, its four outputs permuted to our order."""
    config = PolicyConfig(feature_width=32, grid=(16, 16), num_steps=num_steps, residual=residual, smoothing=smoothing)
    network = fill_analytic(PolicyNetwork(config), prefix)
    with torch.no_grad():
        network.linear3.weight.copy_(network.linear3.weight[OUR_ORDER].clone())
        network.linear3.bias.copy_(network.linear3.bias[OUR_ORDER].clone())
    return PolicySchedule(network)


@pytest.mark.parametrize(
    ("file", "case", "num_classes", "prefix", "residual", "smoothing"),
    [
        ("generate", "T4_policy_heu1.", 10, "actor.", True, 0.0),
        ("generate", "T8_policy_heu0.", 10, "actor.", False, 0.0),
        ("generate_adagen", "", 1000, "", True, 0.8),
    ],
)
@torch.no_grad()
def test_a_policy_generates_what_the_reference_generates(
    file: str, case: str, num_classes: int, prefix: str, residual: bool, smoothing: float
) -> None:
    stored = {key.removeprefix(case): value for key, value in fixture(file).items() if key.startswith(case)}
    num_steps = len(stored["params"])
    config = NATConfig(codebook_size=64, grid=(16, 16), width=32, depth=4, num_heads=4, num_classes=num_classes)
    labels = torch.from_numpy(stored["labels"]).long()
    predict = ConditionedNAT(fill_analytic(UViT(config)), ClassConditions(labels, {})).predictor(labels)
    seen: list[tuple[DecodingState, Action]] = []
    policy = reference_policy(num_steps, prefix, residual, smoothing)
    start = DecodingState.start(2, 256, 64, num_steps)
    last = generate(policy, predict, start, StoredNoise(num_steps), lambda *step: seen.append(step))
    np.testing.assert_array_equal(torch.stack([state.sampled_ids for state, _ in seen]), stored["sampled_ids"])
    np.testing.assert_array_equal(torch.stack([state.mask for state, _ in seen]), stored["masked_after"])
    values = torch.stack([action.values() for _, action in seen])
    np.testing.assert_allclose(values, stored["params"][..., OUR_ORDER], atol=3e-5)
    if "final_feat_stride32" in stored:
        features = predict(last, torch.zeros(2, dtype=torch.bool)).features[:, ::32]
        np.testing.assert_allclose(features, stored["final_feat_stride32"], atol=3e-5)


def actions_from(schedule: PolicySchedule, raws: torch.Tensor) -> torch.Tensor:
    """The values (B, T, 4) for raw outputs (B, T, 4), walked as generation walks."""
    state = DecodingState.start(len(raws), 4, 8, raws.shape[1])
    values = []
    for step in range(raws.shape[1]):
        action = schedule.act(state, raws[:, step])
        values.append(action.values())
        state = DecodingState(state.token_ids, state.mask, state.token_ids, step + 1, raws.shape[1], action)
    return torch.stack(values, dim=1)


def schedule_of(num_steps: int, smoothing: float = 0.0, **fields: object) -> PolicySchedule:
    values = {"feature_width": 8, "grid": (2, 2), "num_steps": num_steps, "smoothing": smoothing, **fields}
    return PolicySchedule(PolicyNetwork(PolicyConfig.from_dict(values, "test")).eval())


@pytest.mark.parametrize(
    ("num_steps", "smoothing", "inputs", "key"),
    [
        (16, 0.8, "raw_actions_adagen", "adagen_T16_smooth0.8"),
        (8, 0.0, "raw_actions", "adagen_T8_smooth0"),
        (8, 0.0, "raw_actions", "adanat_heu1_T8"),
    ],
)
def test_smoothed_actions_are_the_references(num_steps: int, smoothing: float, inputs: str, key: str) -> None:
    raws = analytic_input(inputs, (3, num_steps, 4), 2, 0)[..., OUR_ORDER]
    values = actions_from(schedule_of(num_steps, smoothing), raws)
    np.testing.assert_allclose(values, fixture("actions")[key][..., OUR_ORDER], **TOLERANCE)


@torch.no_grad()
def test_an_untrained_residual_policy_is_its_base_schedule() -> None:
    for fields in ({"guidance_scale": 3.0}, {"schedule": "table", "schedule_table": [[0.5, 1.0, 2.0, 0.1]] * 8}):
        schedule = schedule_of(8, **fields)
        raws = torch.stack([schedule.raw(DecodingState.start(3, 4, 8, 8), torch.randn(3, 4, 8))] * 8, dim=1)
        table = torch.tensor(fields.get("schedule_table", CosineSchedule(8, guidance_scale=3.0).table.tolist()))
        torch.testing.assert_close(actions_from(schedule, raws), table.expand(3, 8, 4), atol=1e-6, rtol=1e-5)


def test_bases_undo_the_smoothing_as_the_references_do() -> None:
    config = PolicyConfig(feature_width=8, grid=(2, 2), num_steps=16, smoothing=0.8)
    stored = fixture("actions")
    base = base_pre_activations(config)
    np.testing.assert_allclose(base, stored["adagen_residual_T16_smooth0.8"][:, OUR_ORDER], **TOLERANCE)
    values = actions_from(schedule_of(16, 0.8), torch.zeros(1, 16, 4))
    np.testing.assert_allclose(values[0], stored["adagen_heuristic_T16_smooth0.8"][:, OUR_ORDER], **TOLERANCE)


def test_smoothing_without_residual_has_no_base() -> None:
    raws = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    values = actions_from(schedule_of(3, 0.5, residual=False), raws)
    second = 0.5 * raws[:, 0] + 0.5 * raws[:, 1]
    third = 0.5 * second + 0.5 * raws[:, 2]
    torch.testing.assert_close(values[:, 2, 0], third[:, 0].sigmoid())
    torch.testing.assert_close(values[:, 2, 3], third[:, 3].exp().log1p())


def test_a_schedule_serves_two_trajectories_in_turn_without_mixing_them() -> None:
    schedule = schedule_of(4, 0.8)
    raws = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(actions_from(schedule, raws), actions_from(schedule, raws), atol=0, rtol=0)


def test_a_floor_lifts_what_a_softplus_could_not_move() -> None:
    values = actions_from(schedule_of(4, base_floor=0.1), torch.zeros(1, 4, 4))[0]
    table = CosineSchedule(4).table.float()
    torch.testing.assert_close(values[:, 1:], table[:, 1:].clamp(min=0.1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(values[:, 0], table[:, 0], atol=1e-5, rtol=1e-5)


def test_a_static_policy_needs_no_features() -> None:
    config = PolicyConfig(feature_width=8, grid=(2, 2), num_steps=3, kind="static")
    schedule = PolicySchedule(build_policy(config).eval())
    assert not schedule.needs_features
    values = schedule(DecodingState.start(2, 4, 8, 3), None).values()
    torch.testing.assert_close(values, CosineSchedule(3).table[:1].float().expand(2, 4), atol=1e-5, rtol=1e-5)
