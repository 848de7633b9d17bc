"""Files as the authors' programs write them, with analytic weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adanat_cli.core.config import PolicyConfig
from adanat_cli.core.policy import PolicyNetwork
from tests.support import analytic_state, fixture_json

SMALL_POLICY = PolicyConfig(feature_width=8, grid=(2, 2), num_steps=4, hidden_width=32)


def vqgan_state() -> dict[str, Tensor]:
    """The tiny VQGAN of the fixtures: 64 codes, f = 16."""
    return analytic_state(fixture_json("vqgan_keys")["tiny"]["keys"])


def nat_state(condition: str = "class") -> dict[str, Tensor]:
    """A tiny NAT of the fixtures: 64 codes, 16 x 16 tokens, width 32, 4 heads."""
    return analytic_state(fixture_json("nat_keys")[f"nat_{condition}_tiny"])


def policy_state(prefix: str = "", config: PolicyConfig = SMALL_POLICY) -> dict[str, Tensor]:
    """A policy in the authors' output order; the values follow from the prefixed names."""
    shapes = {name: tuple(tensor.shape) for name, tensor in PolicyNetwork(config).state_dict().items()}
    return {prefix + name: tensor for name, tensor in analytic_state(shapes, prefix).items()}


def training_checkpoint(**arguments: Any) -> dict[str, Any]:
    """What AdaNAT's training saves: four networks, the optimizer and the program's arguments."""
    networks = ("policy.actor.", "policy.critic.", "policy_old.actor.", "policy_old.critic.")
    model = {name: tensor for prefix in networks for name, tensor in policy_state(prefix).items()}
    return {
        "model": model,
        "discriminator": {"module.heads.0.weight": torch.zeros(2)},
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-5}]},
        "args": argparse.Namespace(batch_size=128, **arguments),
        "global_step": 1000,
    }


def saved(path: Path, tree: Any) -> Path:
    """Write a tree as PyTorch does."""
    torch.save(tree, path)
    return path
