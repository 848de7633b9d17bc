"""The NAT in the form that generation calls."""

from unittest import mock

import pytest
import torch

from adanat_cli.core.config import NATConfig, VQAEConfig
from adanat_cli.core.generation.schedules import CosineSchedule, HaltonSchedule
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.tokenizer.build import build_tokenizer
from adanat_cli.jobs.sample.conditions import ClassConditions
from adanat_cli.jobs.sample.sampler import decode_parts, predictor, sample_tokens
from tests.support import fill_analytic

CLASS = NATConfig(codebook_size=16, grid=(4, 4), width=16, depth=2, num_heads=2, num_classes=10)
TEXT = CLASS.replace(condition="text", text_width=6, text_length=5)
TOKEN_IDS = torch.arange(32).reshape(2, 16) % 17


@torch.no_grad()
def test_a_guided_call_is_both_halves_of_one_batch() -> None:
    nat, labels = fill_analytic(UViT(CLASS)), torch.tensor([3, 7])
    calls: list[int] = []
    nat.register_forward_hook(lambda _module, inputs, _output: calls.append(len(inputs[0])))
    prediction = predictor(nat, labels)(TOKEN_IDS, True)
    assert calls == [4]
    assert prediction.null_logits is not None
    expected, null = nat(TOKEN_IDS, labels), nat(TOKEN_IDS, torch.full_like(labels, 10))
    torch.testing.assert_close(prediction.logits, expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(prediction.features, expected.features, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(prediction.null_logits, null.logits, atol=1e-5, rtol=1e-5)
    assert predictor(nat, labels)(TOKEN_IDS, False).null_logits is None


@torch.no_grad()
def test_text_states_are_guided_against_the_empty_prompt() -> None:
    nat, states, empty = fill_analytic(UViT(TEXT)), torch.randn(2, 5, 6), torch.randn(5, 6)
    prediction = predictor(nat, states, null_condition=empty)(TOKEN_IDS, True)
    assert prediction.null_logits is not None
    expected = nat(TOKEN_IDS, empty.expand(2, 5, 6)).logits
    torch.testing.assert_close(prediction.null_logits, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="empty prompt"):
        predictor(nat, states)


@torch.no_grad()
def test_logits_are_float32_in_half_precision_too() -> None:
    nat, labels = fill_analytic(UViT(CLASS)), torch.tensor([3, 7])
    half = predictor(nat, labels, torch.bfloat16)(TOKEN_IDS, True)
    full = predictor(nat, labels)(TOKEN_IDS, True)
    assert half.logits.dtype == torch.float32
    assert not torch.equal(half.logits, full.logits)
    torch.testing.assert_close(half.logits, full.logits, atol=0.05, rtol=0.05)


def test_a_nat_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="evaluation mode"):
        predictor(UViT(CLASS).train(), torch.tensor([0]))


@pytest.mark.parametrize(
    "schedule", [CosineSchedule(4), HaltonSchedule(4, (4, 4)), CosineSchedule(3, guidance_scale=0)]
)
def test_images_are_the_same_in_any_batch_and_order(schedule: CosineSchedule) -> None:
    nat, conditions = fill_analytic(UViT(CLASS)), ClassConditions(torch.arange(8), {})
    whole = sample_tokens(nat, schedule, conditions, 3, range(8))
    assert whole.min() >= 0
    assert whole.max() < 16
    for size in (1, 3):
        parts = [
            sample_tokens(nat, schedule, conditions, 3, range(start, min(start + size, 8)))
            for start in range(0, 8, size)
        ]
        assert torch.equal(torch.cat(parts), whole)
    order = torch.tensor([5, 0, 7, 2, 1, 3, 6, 4])
    assert torch.equal(sample_tokens(nat, schedule, conditions, 3, order), whole[order])


@pytest.mark.parametrize(("guidance", "batch"), [(1.0, 6), (0.0, 3)])
def test_a_generation_takes_exactly_one_call_a_step(guidance: float, batch: int) -> None:
    nat, calls = fill_analytic(UViT(CLASS)), []
    nat.register_forward_hook(lambda _module, inputs, _output: calls.append(len(inputs[0])))
    conditions = ClassConditions(torch.arange(3), {})
    sample_tokens(nat, CosineSchedule(5, guidance_scale=guidance), conditions, 0, range(3))
    assert calls == [batch] * 5


@pytest.mark.parametrize("num_images", [1, 2, 5])
def test_every_pass_of_the_tokenizer_is_over_the_same_number_of_images(num_images: int) -> None:
    config = VQAEConfig(image_size=16, codebook_size=16, code_width=4, channels=(8, 8))
    torch.manual_seed(0)
    tokenizer = build_tokenizer(config).eval()
    ids = torch.randint(0, 16, (num_images, 16))
    passes: list[int] = []
    with mock.patch.object(
        tokenizer, "decode", lambda part: passes.append(len(part)) or type(tokenizer).decode(tokenizer, part)
    ):
        images = torch.cat([*decode_parts(tokenizer, ids)])
    assert images.shape == (num_images, 3, 16, 16)
    assert set(passes) == {2}
    torch.testing.assert_close(images, tokenizer.decode(ids))
