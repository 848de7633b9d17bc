"""Batches of images from a NAT, and their pixels."""

from unittest import mock

import pytest
import torch

from adanat_cli.core.config import NATConfig, VQAEConfig
from adanat_cli.core.generation.schedules import CosineSchedule, HaltonSchedule
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.tokenizer.build import build_tokenizer
from adanat_cli.jobs.sample.conditions import ClassConditions
from adanat_cli.jobs.sample.predictor import ConditionedNAT
from adanat_cli.jobs.sample.sampler import decode_parts, sample_tokens
from tests.support import fill_analytic

CLASS = NATConfig(codebook_size=16, grid=(4, 4), width=16, depth=2, num_heads=2, num_classes=10)


@pytest.mark.parametrize(
    "schedule", [CosineSchedule(4), HaltonSchedule(4, (4, 4)), CosineSchedule(3, guidance_scale=0)]
)
def test_images_are_the_same_in_any_batch_and_order(schedule: CosineSchedule) -> None:
    nat = ConditionedNAT(fill_analytic(UViT(CLASS)), ClassConditions(torch.arange(8), {}))
    whole = sample_tokens(nat, schedule, 3, range(8))
    assert whole.min() >= 0
    assert whole.max() < 16
    for size in (1, 3):
        parts = [sample_tokens(nat, schedule, 3, range(start, min(start + size, 8))) for start in range(0, 8, size)]
        assert torch.equal(torch.cat(parts), whole)
    order = torch.tensor([5, 0, 7, 2, 1, 3, 6, 4])
    assert torch.equal(sample_tokens(nat, schedule, 3, order), whole[order])


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
