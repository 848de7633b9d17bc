"""Floating-point operations of a piece of work, counted as it runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from adanat_cli.core.checkpoints.strict import without_values

Network = TypeVar("Network", bound=nn.Module)


def operations(job: Callable[[], object]) -> int:
    """Run a job and count its matrix products, convolutions and attention; a multiply-add counts as 2."""
    # Fused attention hides its products from the counter on some devices.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        job()
    return int(counter.get_total_flops())


def without_memory(build: Callable[[], Network]) -> Network:
    """Build a network whose weights are one zero, repeated: of any size it takes no memory, and runs as any other.

    On the meta device, which takes none either, most operations make PyTorch load its compiler, which takes seconds.
    """
    with without_values():
        network = build()
    weights = network.state_dict().items()
    zeros = {name: torch.zeros((), dtype=weight.dtype).expand(weight.shape) for name, weight in weights}
    network.load_state_dict(zeros, assign=True)
    return network


def planned_operations(job: Callable[[], object]) -> int:
    """Count the operations of running networks forward, as ``operations`` does, without computing any product."""
    with torch.no_grad(), _Products() as counted:
        job()
    return counted.operations


class _Products(TorchFunctionMode):
    """Count products by their shapes, and give zeros in their place; what keeps shapes is left out as well."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _KEEP_SHAPES:
            return args[0]
        if func not in _PRODUCTS:
            return func(*args, **(kwargs or {}))
        terms, shape = _PRODUCTS[func](*args, **(kwargs or {}))
        self.operations += 2 * terms
        return torch.zeros(()).expand(shape)


def _linear(x: Tensor, weight: Tensor, *_: object) -> tuple[int, tuple[int, ...]]:
    return x.numel() * len(weight), (*x.shape[:-1], len(weight))


def _matmul(left: Tensor, right: Tensor) -> tuple[int, tuple[int, ...]]:
    return left.numel() * right.shape[-1], (*left.shape[:-1], right.shape[-1])


def _attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[int, tuple[int, ...]]:
    shape = (*query.shape[:-1], value.shape[-1])
    return query.numel() * key.shape[-2] + math.prod(shape) * key.shape[-2], shape


def _convolution(
    x: Tensor,
    weight: Tensor,
    _bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    _groups: int,
) -> tuple[int, tuple[int, ...]]:
    sides = (
        (side + 2 * added - gap * (kernel - 1) - 1) // step + 1
        for side, kernel, step, added, gap in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    )
    shape = (len(x), len(weight), *sides)
    return math.prod(shape) * weight[0].numel(), shape


_PRODUCTS: dict[Callable[..., Any], Callable[..., tuple[int, tuple[int, ...]]]] = {
    F.linear: _linear,
    F.conv2d: _convolution,
    F.scaled_dot_product_attention: _attention,
    Tensor.matmul: _matmul,
}
"""Function -> multiply-adds and shape of what it gives."""

_KEEP_SHAPES = {F.group_norm, F.layer_norm, F.silu, F.gelu}
