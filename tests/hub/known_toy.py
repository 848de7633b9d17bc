"""A known model whose files are on a Hub, but for its tokenizer."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from adanat_cli.core.config import PolicyConfig, nat_preset
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.jobs.resolve.registry import KnownModel, WeightSource
from tests.hub.server import HubServer
from tests.jobs.share.foreign_files import policy_state

PAGE = "https://example.org/vqgan"
NAT = nat_preset("nano", codebook_size=64, grid=(16, 16), num_classes=10)
POLICY = PolicyConfig(feature_width=NAT.width, grid=(16, 16), num_steps=4, hidden_width=8)
TOY = KnownModel(
    "toy",
    "A toy",
    (
        WeightSource("tokenizer", "vqgan", "vqgan.ckpt", page=PAGE),
        WeightSource("nat", "nat", "assets/nat.pth", "authors/nat", license="mit"),
        WeightSource("policies/steps-4", "policy", "policy.pth", "authors/policies", num_steps=4),
    ),
)


def file_bytes(tree: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getvalue()


def offer(hub: HubServer, patch: pytest.MonkeyPatch) -> None:
    """Put the toy's files on the Hub, and the toy into the registry."""
    for room in ("resolve.models", "share.pull", "share.info", "reproduce.needs"):
        patch.setattr(f"adanat_cli.jobs.{room}.known_models", lambda: {"toy": TOY})
    hub.add("authors/nat", {"assets/nat.pth": file_bytes(UViT(NAT).state_dict())})
    hub.add("authors/policies", {"policy.pth": file_bytes(policy_state("", POLICY))})
