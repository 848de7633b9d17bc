"""Loading is strict, and builds nothing that the weights replace anyway."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adanat_cli.core.checkpoints.strict import check_weights, load_strict
from adanat_cli.core.errors import AdaNATError


class Network(nn.Module):
    """A weight that is drawn, one that is frozen, and a buffer that the state dict leaves out."""

    def __init__(self, hidden_buffer: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        self.codes = nn.Parameter(torch.randn(4, 2)).requires_grad_(False)
        self.register_buffer("scale", torch.arange(2.0), persistent=not hidden_buffer)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.scale


@pytest.mark.parametrize("hidden_buffer", [False, True])
def test_a_loaded_network_computes_the_same_and_keeps_what_is_frozen(hidden_buffer: bool) -> None:
    network, x = Network(hidden_buffer), torch.randn(5, 3)
    loaded = load_strict(lambda: Network(hidden_buffer), network.state_dict(), "here")
    assert torch.equal(loaded(x), network(x))
    assert not loaded.training
    assert loaded.linear.weight.requires_grad
    assert not loaded.codes.requires_grad


def test_half_precision_weights_become_float32_and_integers_stay() -> None:
    state = {name: tensor.half() for name, tensor in Network().state_dict().items()}
    assert {tensor.dtype for tensor in load_strict(Network, state, "here").state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"linear.bias": None}, r"missing linear\.bias"),
        ({"extra": torch.zeros(1)}, "unknown extra"),
        ({"codes": torch.zeros(4, 3)}, r"codes is \(4, 3\) instead of \(4, 2\)"),
    ],
)
def test_names_and_shapes_must_fit(change: dict[str, Tensor | None], words: str) -> None:
    changed = {**Network().state_dict(), **change}
    state = {name: tensor for name, tensor in changed.items() if tensor is not None}
    with pytest.raises(AdaNATError, match=words):
        check_weights(Network, state, "here")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.full((2, 3), torch.nan), r"linear\.weight holds values that are not finite"),
        (torch.full((2, 3), 1e300, dtype=torch.float64), r"linear\.weight holds values that are not finite"),
        (torch.ones(2, 3, dtype=torch.int64), r"linear\.weight is of type int64; expected floating-point numbers"),
        (
            torch.ones(2, 3, dtype=torch.complex64),
            r"linear\.weight is of type complex64; expected floating-point numbers",
        ),
    ],
)
def test_weights_are_finite_floats(value: Tensor, words: str) -> None:
    for load in (check_weights, load_strict):
        with pytest.raises(AdaNATError, match=words):
            load(Network, {**Network().state_dict(), "linear.weight": value}, "here")


def test_random_numbers_are_left_alone() -> None:
    state = Network().state_dict()
    before = torch.get_rng_state()
    load_strict(Network, state, "here")
    assert torch.equal(torch.get_rng_state(), before)


def test_pytorchs_compiler_is_not_loaded() -> None:
    code = """
import sys
from adanat_cli.core.checkpoints.strict import load_strict
from adanat_cli.core.config import nat_preset
from adanat_cli.core.nat import UViT
config = nat_preset("micro", codebook_size=8, grid=(2, 2))
state = UViT(config).state_dict()
load_strict(lambda: UViT(config), state, "here")
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
