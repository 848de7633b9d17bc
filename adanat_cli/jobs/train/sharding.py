"""FSDP2: weights, gradients and optimizer states spread over the processes, and brought together to be saved."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def shard(module: nn.Module, blocks: Iterable[nn.Module], device: torch.device) -> nn.Module:
    """Spread the parameters of a module over all processes, which each keep 1 / P of every one.

    A block's are brought together while it computes, forward and backward; all others for a whole pass. It is what
    accelerate calls on GPUs; called here, it also works on CPUs.

    Args:
        module: the network, whose ``forward`` is what runs; the same weights in every process.
        blocks: parts that are large together and run one after the other.
        device: where the parts are kept, a GPU or the CPU.

    Returns:
        The module itself.

    Source: PyTorch FSDP (arXiv 2304.11277), in its second edition, ``fully_shard``.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for part in (*blocks, module):
        fully_shard(part, mesh=mesh)
    return module


def gathered(tree: Any, keep: bool) -> Any:
    """Bring together what is spread in a tree of dicts and lists. All processes have to call it.

    Args:
        tree: state of networks and optimizers.
        keep: whether this process wants it: then the tensors are on its CPU, else None is in their place.
    """
    if isinstance(tree, dict):
        return {key: gathered(value, keep) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [gathered(value, keep) for value in tree]
    if _is_spread(tree):
        whole = plain(tree.detach())  # one at a time, so that a device never holds them all
        return whole.cpu() if keep else None
    return tree


def spread(whole: Tensor, like: Any) -> Tensor:
    """Take this process's part of a tensor that all have, as that of another is spread; none is sent."""
    if not _is_spread(like):
        return whole
    from torch.distributed.tensor import distribute_tensor

    on_device = whole.to(like.device, like.dtype)
    return distribute_tensor(on_device, like.device_mesh, like.placements, src_data_rank=None)


def spread_optimizer(state: dict[str, Any], parameters: Iterable[Tensor]) -> dict[str, Any]:
    """Spread an optimizer's whole state as its parameters are; what is not of their shape, such as counts, stays."""
    likes = list(parameters)

    def part(value: Any, like: Tensor) -> Any:
        return spread(value, like) if isinstance(value, Tensor) and value.shape == like.shape else value

    moments = {
        index: {name: part(value, likes[index]) for name, value in entry.items()}
        for index, entry in state["state"].items()
    }
    return {**state, "state": moments}


def plain(total: Any) -> Tensor:
    """A number that was computed of spread tensors, such as a norm, as a plain tensor."""
    whole: Tensor = total.full_tensor() if _is_spread(total) else total
    return whole


def _is_spread(value: Any) -> bool:
    """Whether a value is a part of a tensor; the module for these, which takes a second to load, is loaded then."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)
