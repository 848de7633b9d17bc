"""Masks, loss and gradients of NAT training against numbers of the reference implementation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adanat_cli.core.config import NATConfig
from adanat_cli.core.nat import UViT, masks_from, sample_masks
from adanat_cli.core.nat.objective import MaskedTokenLoss, masked_token_loss
from tests.support import analytic_input, fill_analytic, fixture, fixture_json

TOLERANCE = 1e-5
TINY = NATConfig(codebook_size=64, grid=(16, 16), width=32, depth=4, num_heads=4, num_classes=10)


def masks() -> Tensor:
    expected = fixture("nat_train")
    return masks_from(torch.from_numpy(expected["mask_probs"]), torch.from_numpy(expected["mask_rand"]))


def test_masks_from_draws_match_the_reference() -> None:
    expected, mask = fixture("nat_train"), masks()
    true_ids = torch.from_numpy(expected["x0"]).long()
    assert mask.sum(dim=1).tolist() == expected["n_masked"].tolist()
    assert torch.equal(true_ids.masked_fill(mask, 64), torch.from_numpy(expected["masked_ids"]).long())
    assert torch.equal(true_ids.masked_fill(~mask, -1), torch.from_numpy(expected["target"]).long())


def test_at_least_one_token_is_hidden_and_all_may_be() -> None:
    mask = masks_from(torch.tensor([0.0, 1.0]), torch.rand(2, 9))
    assert mask.sum(dim=1).tolist() == [1, 9]


def test_sampled_ratios_follow_the_beta_distribution() -> None:
    ratios = sample_masks(4000, 100, 12, 3, torch.Generator().manual_seed(0)).float().mean(dim=1)
    meta = fixture_json("nat_train_meta")
    assert float(ratios.mean()) == pytest.approx(meta["beta_mean"], abs=0.006)
    assert float(ratios.var()) == pytest.approx(meta["beta_var"], abs=0.001)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_on_hidden_tokens_matches_the_reference(smoothing: float) -> None:
    expected, mask = fixture("nat_train"), masks()
    logits, targets = analytic_input("loss_logits", (6, 256, 64), 3, 0), torch.from_numpy(expected["x0"]).long()
    result = masked_token_loss(logits[mask], targets[mask], smoothing)
    mean = float(result.loss / mask.sum())
    assert mean == pytest.approx(float(expected[f"loss_smoothing{smoothing}"]), abs=TOLERANCE)


def test_correct_predictions_are_counted() -> None:
    logits, targets = torch.eye(3)[torch.tensor([0, 1, 0])], torch.tensor([0, 1, 2])
    assert int(masked_token_loss(logits, targets, 0.1).num_correct) == 2


def test_loss_and_gradients_of_the_network_match_the_reference() -> None:
    expected, nat = fixture("nat_train"), fill_analytic(UViT(TINY))
    ids, labels = (torch.from_numpy(expected[key]).long() for key in ("x0", "net.labels"))
    positions = masks().flatten().nonzero()[:, 0]
    loss = MaskedTokenLoss(nat, 0.1)(ids, labels[:, 0], positions).loss / len(positions)
    loss.backward()
    assert loss.item() == pytest.approx(float(expected["net.loss"]), abs=TOLERANCE)
    gradients = {name: parameter.grad for name, parameter in nat.named_parameters()}
    norms = torch.stack([gradients[name].norm() for name in fixture_json("nat_train_meta")["grad_names"]])
    assert torch.allclose(norms, torch.from_numpy(expected["net.grad_norms"]), atol=TOLERANCE, rtol=0)
    assert float(norms.norm()) == pytest.approx(float(expected["net.grad_norm_total"]), abs=TOLERANCE)
    for name, key, rows in (
        ("token_emb.word_embeddings.weight", "net.grad_word_emb", 65),
        ("out_blocks.0.skip_linear.weight", "net.grad_skip_linear0", 4),
    ):
        assert torch.allclose(gradients[name][:rows], torch.from_numpy(expected[key]), atol=TOLERANCE, rtol=0)
    bias = gradients["mlm_layer.bias"].flatten()
    assert torch.allclose(bias, torch.from_numpy(expected["net.grad_mlm_bias"]), atol=TOLERANCE, rtol=0)
    assert bias[64] == 0  # the mask id is never predicted


def test_objective_is_the_loss_on_the_full_logits_at_hidden_positions() -> None:
    nat, mask = fill_analytic(UViT(TINY)), torch.rand(2, 256) < 0.7
    ids, labels = torch.randint(0, 64, (2, 256)), torch.tensor([1, 10])
    result = MaskedTokenLoss(nat, 0.1)(ids, labels, mask.flatten().nonzero()[:, 0])
    logits = nat(ids.masked_fill(mask, 64), labels).logits
    for ours, expected in zip(result, masked_token_loss(logits[mask], ids[mask], 0.1), strict=True):
        torch.testing.assert_close(ours, expected)
