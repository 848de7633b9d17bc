"""The U-ViT against numbers of the reference implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from adanat_cli.core.config import NAT_PRESETS, NATConfig, nat_preset
from adanat_cli.core.nat import UViT
from tests.support import analytic_input, fill_analytic, fixture, fixture_json

TOLERANCE = 3e-5
TINY = NATConfig(codebook_size=64, grid=(16, 16), width=32, depth=4, num_heads=4, num_classes=10)
TINY_TEXT = TINY.replace(condition="text", text_width=24, text_length=77)


def close(actual: Tensor, expected: np.ndarray, tolerance: float = TOLERANCE) -> bool:
    return actual.shape == expected.shape and bool((actual - torch.from_numpy(expected)).abs().max() <= tolerance)


def shapes(nat: UViT) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in nat.state_dict().items()}


@torch.no_grad()
def test_class_logits_and_features_match_the_reference() -> None:
    expected, nat = fixture("nat_class"), fill_analytic(UViT(TINY))
    token_ids, labels = (torch.from_numpy(expected[key]).long() for key in ("input_ids", "labels"))
    output = nat(token_ids, labels[:, 0])
    assert close(output.logits, expected["logits"])
    assert close(output.features, expected["feat"])
    assert close(nat.token_emb(token_ids)[:, :8], expected["token_emb_first8"])
    assert close(nat.context_embed(labels), expected["context_emb"])
    hidden = nat(torch.full_like(token_ids, TINY.mask_id), labels[:, 0])
    assert close(hidden.logits[:, ::16], expected["allmask_logits_stride16"])
    assert close(hidden.features[:, ::16], expected["allmask_feat_stride16"])


@torch.no_grad()
def test_text_logits_and_features_match_the_reference() -> None:
    expected, nat = fixture("nat_text"), fill_analytic(UViT(TINY_TEXT))
    output = nat(torch.from_numpy(expected["input_ids"]).long(), analytic_input("text", (2, 77, 24), 1, 0))
    assert close(output.logits, expected["logits"])
    assert close(output.features, expected["feat"])


def test_state_dict_names_and_shapes_are_the_references() -> None:
    expected = fixture_json("nat_keys")
    assert shapes(UViT(TINY)) == expected["nat_class_tiny"]
    assert shapes(UViT(TINY_TEXT)) == expected["nat_text_tiny"]


@pytest.mark.parametrize(
    ("size", "fields", "entry", "num_parameters"),
    [
        ("large", {}, "nat_imagenet256_L", 193_655_297),
        ("muse", {"condition": "text", "text_width": 1280, "text_length": 77}, "nat_cc3m", 503_628_929),
    ],
)
def test_released_sizes_have_the_references_tensors(
    size: str, fields: dict[str, object], entry: str, num_parameters: int
) -> None:
    with torch.device("meta"):
        nat = UViT(nat_preset(size, codebook_size=1024, grid=(16, 16), **fields))
    expected = fixture_json("nat_full_keys")[entry]
    assert expected["n_params"] == num_parameters == sum(p.numel() for p in nat.parameters())
    assert shapes(nat) == expected["keys"]


@pytest.mark.parametrize("size", NAT_PRESETS)
def test_every_preset_builds_at_its_stated_size(size: str) -> None:
    with torch.device("meta"):
        nat = UViT(
            nat_preset(size, codebook_size=64 if size in ("nano", "micro") else 1024, grid=(8, 8), num_classes=10)
        )
    millions = sum(p.numel() for p in nat.parameters()) / 1e6
    low, high = {"nano": (0.1, 0.3), "micro": (0.7, 1), "tiny": (3, 5), "mini": (17, 19), "small": (44, 48)}.get(
        size, (180, 520)
    )
    assert low < millions < high


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (8, 8), (32, 32)])
def test_any_grid_gives_one_prediction_per_token(grid: tuple[int, int]) -> None:
    nat = UViT(TINY.replace(grid=grid)).eval()
    num_tokens = grid[0] * grid[1]
    output = nat(torch.zeros(2, num_tokens, dtype=torch.int64), torch.tensor([0, TINY.num_classes]))
    assert output.logits.shape == (2, num_tokens, 64)
    assert output.features.shape == (2, num_tokens, 32)


def test_head_of_selected_features_is_the_selection_of_the_head() -> None:
    nat = fill_analytic(UViT(TINY))
    features, mask = torch.randn(2, 256, 32), torch.rand(2, 256) < 0.5
    torch.testing.assert_close(nat.head(features[mask]), nat.head(features)[mask])


def test_dropout_acts_in_training_only() -> None:
    nat = UViT(TINY.replace(dropout=0.5))
    inputs = torch.zeros(1, 256, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    assert not torch.equal(nat(*inputs).logits, nat(*inputs).logits)
    nat.eval()
    assert torch.equal(nat(*inputs).logits, nat(*inputs).logits)


def test_fresh_weights_follow_the_references_rule() -> None:
    nat = UViT(TINY.replace(width=128))
    for name, parameter in nat.named_parameters():
        if parameter.dim() == 2:
            assert 0.018 < parameter.std() < 0.022 or parameter.numel() < 1000, name
        else:
            is_norm_scale = name.endswith("weight")
            assert torch.equal(parameter, torch.full_like(parameter, float(is_norm_scale))), name


def test_words_that_start_from_codes_are_as_similar_as_the_codes() -> None:
    torch.manual_seed(0)
    nat = UViT(nat_preset("micro", codebook_size=32, grid=(4, 4), num_classes=10))
    codes = torch.nn.functional.normalize(torch.randn(32, 8), dim=-1)
    mask_word = nat.token_emb.word_embeddings.weight[32].clone()
    nat.start_from_codes(codes, std=0.2)
    words = nat.token_emb.word_embeddings.weight.detach()
    of_words = torch.nn.functional.cosine_similarity(words[:32, None], words[None, :32], dim=-1)
    centred = codes - codes.mean(0)
    of_codes = torch.nn.functional.cosine_similarity(centred[:, None], centred[None], dim=-1)
    assert torch.corrcoef(torch.stack([of_words.flatten(), of_codes.flatten()]))[0, 1] > 0.9
    assert torch.equal(words[32], mask_word)
