"""The learned parts of the projected discriminator against the reference, and their rules."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adanat_cli.core.rewards.heads import (
    BatchNormLocal,
    DiscriminatorHead,
    MappingNetwork,
    ScaledLinear,
    SpectralConv1d,
    num_groups,
)
from tests.rewards.reference_weights import discriminator_state
from tests.support import analytic_input, fill_analytic, fixture, fixture_json

ARRAYS, KEYS = fixture("disc"), fixture_json("disc_keys")
FEATURES, CONDITION = analytic_input("head_feat", (2, 32, 49), 1, 0), analytic_input("head_cond", (2, 16), 1, 0)
MAPPING = next(shapes for name, shapes in KEYS.items() if name.startswith("mapping_c10_w16"))
TOLERANCE = 1e-4


def reference_head(case: str) -> DiscriminatorHead:
    head = DiscriminatorHead(32, 16 if case == "head_c32_cdim16" else 0)
    head.load_state_dict(discriminator_state(KEYS[case]))
    return head


def reference_mapping() -> MappingNetwork:
    mapping = MappingNetwork(10, 16)
    mapping.load_state_dict(discriminator_state(MAPPING, "mapping."))
    return mapping


def assert_agrees(actual: Tensor, name: str) -> None:
    np.testing.assert_allclose(actual.numpy(), ARRAYS[name], rtol=0, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("case", ["head_c32_cdim16", "head_c32_cdim0"])
def test_head_names_and_shapes_are_the_references(case: str) -> None:
    state = DiscriminatorHead(32, 16 if case == "head_c32_cdim16" else 0).state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == KEYS[case]


def test_mapping_names_and_shapes_are_the_references() -> None:
    state = MappingNetwork(10, 16).state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == MAPPING


@torch.no_grad()
def test_head_agrees_with_the_reference_over_two_training_calls_and_an_evaluation() -> None:
    head = reference_head("head_c32_cdim16")
    assert_agrees(head.eval()(FEATURES, CONDITION), "head.eval_initial")
    head.train()
    assert_agrees(head(FEATURES, CONDITION), "head.train1")
    assert_agrees(head(FEATURES, CONDITION), "head.train2")
    assert_agrees(head.eval()(FEATURES, CONDITION), "head.eval_after")
    block = head.main[0]
    assert isinstance(block, nn.Sequential)
    convolution, norm = block[0], block[1]
    assert isinstance(convolution, SpectralConv1d)
    assert_agrees(convolution.weight_u, "head.u_after2_main00")
    assert_agrees(convolution.weight_v, "head.v_after2_main00")
    convolved = convolution(FEATURES)
    assert_agrees(convolved[0, :, :8], "head.conv0_eval_after_sample0")
    assert_agrees(norm(convolved)[0, :, :8], "head.bn0_eval_after_sample0")


@torch.no_grad()
def test_head_without_condition_agrees_with_the_reference() -> None:
    assert_agrees(reference_head("head_c32_cdim0").train()(FEATURES), "head_uncond.train1")


@torch.no_grad()
def test_local_batch_norm_agrees_with_the_reference_on_two_groups_of_six() -> None:
    norm = fill_analytic(BatchNormLocal(8), "bn.")
    assert_agrees(norm(analytic_input("bn", (12, 8, 5), 1, 0)), "bn_local12")


@torch.no_grad()
def test_mapping_agrees_with_the_reference() -> None:
    mapping, labels = reference_mapping(), torch.from_numpy(ARRAYS["mapping.labels"]).long()
    assert_agrees(mapping.embedding(labels), "mapping.embed_normalised")
    assert_agrees(mapping(labels), "mapping.out")


def test_an_evaluation_uses_the_stored_vectors_and_a_training_call_moves_them() -> None:
    convolution = SpectralConv1d(4, 6, 3)
    before = convolution.weight_u.clone(), convolution.weight_v.clone()
    convolution.eval()(torch.randn(2, 4, 5))
    assert torch.equal(convolution.weight_u, before[0])
    assert torch.equal(convolution.weight_v, before[1])
    convolution.train()(torch.randn(2, 4, 5))
    assert not torch.equal(convolution.weight_u, before[0])
    assert not torch.equal(convolution.weight_v, before[1])


@torch.no_grad()
def test_power_steps_lead_to_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    convolution, x = SpectralConv1d(4, 6, 3), torch.randn(2, 4, 5)
    for _ in range(300):
        convolution.train()(x)
    sigma = torch.linalg.matrix_norm(convolution.weight_orig.flatten(1), 2)
    plain = nn.Conv1d(4, 6, 3, padding=1, padding_mode="circular")
    plain.load_state_dict({"weight": convolution.weight_orig / sigma, "bias": convolution.bias})
    torch.testing.assert_close(convolution.eval()(x), plain(x))


def test_two_training_calls_before_one_backward_keep_their_gradients_apart() -> None:
    torch.manual_seed(0)
    head = DiscriminatorHead(8, 4).train()
    real, fake, condition = torch.randn(4, 8, 9), torch.randn(4, 8, 9), torch.randn(4, 4)
    first = head(real, condition).mean()
    (gradient,) = torch.autograd.grad(first, head.cls.weight_orig, retain_graph=True)
    second = head(fake, condition).mean()
    (again,) = torch.autograd.grad(first, head.cls.weight_orig)
    torch.testing.assert_close(again, gradient)
    second.backward()
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in head.parameters())


def test_every_weight_of_a_conditional_head_learns() -> None:
    head = DiscriminatorHead(8, 4)
    head(torch.randn(3, 8, 9), torch.randn(3, 4)).square().sum().backward()
    # A shift of the first convolution is taken away again by the norm after it.
    dead = {name for name, weight in head.named_parameters() if weight.grad is None or weight.grad.abs().max() < 1e-7}
    assert dead <= {"main.0.0.bias", "main.1.fn.0.bias"}


def test_the_head_is_circular_along_the_positions() -> None:
    head, features, condition = DiscriminatorHead(8, 4).eval(), torch.randn(2, 8, 12), torch.randn(2, 4)
    rolled = head(features.roll(5, dims=2), condition)
    torch.testing.assert_close(rolled, head(features, condition).roll(5, dims=2))


@pytest.mark.parametrize(("batch_size", "groups"), [(1, 1), (8, 1), (12, 2), (16, 2), (24, 3), (64, 8)])
def test_the_number_of_groups_is_the_references_wherever_that_divides_the_batch(batch_size: int, groups: int) -> None:
    assert num_groups(batch_size) == num_groups(batch_size, fewer=True) == groups


@pytest.mark.parametrize(("batch_size", "groups"), [(9, 1), (17, 1), (21, 3), (25, 1), (26, 2), (50, 5)])
def test_other_batches_get_the_most_groups_that_divide_them(batch_size: int, groups: int) -> None:
    assert num_groups(batch_size, fewer=True) == groups
    assert batch_size % groups == 0


def test_local_batch_norm_refuses_nine_samples_that_the_head_takes() -> None:
    with pytest.raises(ValueError, match="9 cannot be divided into 2"):
        BatchNormLocal(4)(torch.randn(9, 4, 5))
    assert DiscriminatorHead(4)(torch.randn(9, 4, 9)).shape == (9, 1, 9)


def test_local_batch_norm_gives_every_group_mean_zero_and_variance_one() -> None:
    normalized = BatchNormLocal(3)(5 + 2 * torch.randn(16, 3, 20))
    for group in normalized.detach().split(8):
        torch.testing.assert_close(group.mean((0, 2)), torch.zeros(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(group.var((0, 2), correction=0), torch.ones(3), atol=1e-3, rtol=0)


def test_groups_do_not_see_each_other() -> None:
    norm, x = BatchNormLocal(3), torch.randn(16, 3, 20)
    changed = torch.cat([x[:8], 7 * x[8:]])
    torch.testing.assert_close(norm(changed)[:8], norm(x)[:8], atol=0, rtol=0)


def test_scaled_linear_starts_with_outputs_of_unit_variance_at_any_rate() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 256)
    for rate in (1.0, 0.01):
        layer = ScaledLinear(256, 256, rate)
        assert math.isclose(layer(x).std().item(), 1.0, abs_tol=0.05)
        assert math.isclose(layer.weight.std().item() * rate, 1.0, abs_tol=0.05)


def test_mapping_tells_labels_apart_from_the_start() -> None:
    torch.manual_seed(0)
    mapped = MappingNetwork(5, 64)(torch.arange(5))
    assert torch.isfinite(mapped).all()
    assert torch.pdist(mapped).min() > 0.1


def test_a_head_under_autocast_keeps_its_spectral_norm_in_full_precision() -> None:
    head, features, condition = DiscriminatorHead(8, 4), torch.randn(4, 8, 9), torch.randn(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        head(features, condition)
    norms = [tensor.norm() for name, tensor in head.state_dict().items() if name.endswith(("weight_u", "weight_v"))]
    torch.testing.assert_close(torch.stack(norms), torch.ones(len(norms)), atol=1e-5, rtol=0)
