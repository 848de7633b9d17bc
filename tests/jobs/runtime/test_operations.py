"""What a plan counts is what a run counts, of every network, and needs no memory for weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from adanat_cli.core.config import NATConfig, PixelConfig, PolicyConfig, VQAEConfig, VQGANConfig
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.ppo.agent import Agent
from adanat_cli.core.tokenizer.build import build_tokenizer
from adanat_cli.jobs.runtime.operations import operations, planned_operations, without_memory
from adanat_cli.jobs.train.nat_cost import count_parameters, forward_operations

NAT = NATConfig(codebook_size=24, grid=(3, 5), width=32, depth=4, num_heads=2)
IDS, ONE = torch.zeros(2, 15, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
FEATURES = torch.zeros(2, 15, 32)
TOKENIZERS = {
    "vqae": VQAEConfig(image_size=16, codebook_size=24, code_width=8, channels=(8, 16)),
    "vqgan": VQGANConfig(image_size=32, codebook_size=24),
    "pixels": PixelConfig(image_size=8),
}


def there_and_back(tokenizer: Any) -> None:
    images = torch.zeros(2, 3, *2 * [tokenizer.config.image_size])
    tokenizer.decode(tokenizer.encode(images))


CASES: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "classes": (lambda: UViT(NAT), lambda nat: nat(IDS, ONE)),
    "texts": (
        lambda: UViT(NAT.replace(condition="text", text_width=8, text_length=7)),
        lambda nat: nat(IDS, torch.zeros(2, 7, 8)),
    ),
    **{
        kind: (lambda kind=kind: Agent(PolicyConfig(32, (3, 5), 8, kind=kind)), lambda agent: agent(FEATURES, ONE))
        for kind in ("adaptive", "static")
    },
    **{name: (lambda one=one: build_tokenizer(one), there_and_back) for name, one in TOKENIZERS.items()},
}


@pytest.mark.parametrize("case", CASES)
def test_a_plan_counts_what_a_run_counts(case: str) -> None:
    build, job = CASES[case]
    network, planned = build(), without_memory(build)
    assert planned_operations(lambda: job(planned)) == operations(lambda: job(network))


def test_a_network_larger_than_any_memory_is_counted_at_once() -> None:
    shape = NAT.replace(width=1 << 16, depth=10, num_heads=64)
    assert count_parameters(shape) > 5e11  # 2 TB
    assert forward_operations(shape) > 15 * count_parameters(shape)
