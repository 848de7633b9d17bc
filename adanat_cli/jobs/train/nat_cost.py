"""What training a NAT costs: parameters, memory of a process, operations of an update, and bytes on disk."""

from __future__ import annotations

import torch

from adanat_cli.core.checkpoints.strict import without_values
from adanat_cli.core.config import NATConfig
from adanat_cli.core.nat.uvit import Block, UViT
from adanat_cli.jobs.runtime.operations import planned_operations, without_memory

_FLOAT = 4
_KEPT_STATES = 3
"""Saved states on the disk at a time: the last two, and the one that is being written."""


def count_parameters(shape: NATConfig) -> int:
    """Number of weights of a NAT, which is not built in memory."""
    with without_values():
        return sum(parameter.numel() for parameter in UViT(shape).parameters())


def update_memory(
    shape: NATConfig, rows: int, precision: str, num_shards: int = 1, gradient_checkpointing: bool = False
) -> int:
    """Rough bytes that an update takes in the process that takes most.

    It is the sum of

    * states: 20 bytes a parameter (weight, gradient, two moments and the average in float32). Of S shards each process
      has 1 / S; besides, weights and gradients of two blocks and of what lies outside the blocks are whole at a time,
      and the main process brings the average together (4 bytes a parameter) to measure and to export it.
    * activations that backward needs: for each of the depth + 1 blocks and every token (and condition), 9 + 2 m numbers
      of the NAT's width, where m is the ratio of the MLP: inputs and outputs of two norms, queries, keys, values,
      attention, and the hidden layer before and after GELU, in 2 bytes under bf16, else 4. With gradient checkpointing
      all blocks but one keep their input alone, in 4 bytes, since the sum that runs through the blocks is float32.
    * beside the blocks 6 numbers of that width for every token: embedding, last norm, and hidden layer of the head.
    * three float32 copies of the logits.

    Args:
        shape: the NAT.
        rows: images in one pass: a process's share of a batch, divided by the gradient accumulation steps.
        precision: "bf16" or another.
        num_shards: processes that share the states; 1 if each has them all.
        gradient_checkpointing: whether activations are computed again.
    """
    num_parameters, size = count_parameters(shape), 2 if precision == "bf16" else _FLOAT
    states = 5 * _FLOAT * num_parameters
    if num_shards > 1:
        with without_values():
            block = sum(
                weight.numel() for weight in Block(shape.width, shape.num_heads, shape.mlp_ratio, True).parameters()
            )
        outside = max(0, num_parameters - (shape.depth + 1) * block)
        states = states // num_shards + 2 * _FLOAT * (2 * block + outside) + _FLOAT * num_parameters
    sequence = rows * (shape.num_tokens + max(shape.text_length, 1))
    one = shape.width * sequence
    of_block = (9 + 2 * shape.mlp_ratio) * size * one
    activations = (shape.depth + 1) * of_block
    if gradient_checkpointing:
        activations = of_block + (shape.depth + 1) * _FLOAT * one
    logits = 3 * _FLOAT * rows * shape.num_tokens * shape.codebook_size
    return states + activations + 6 * size * one + logits


def forward_operations(shape: NATConfig) -> int:
    """Operations of a NAT's forward pass over one image."""
    ids, condition = torch.zeros(1, shape.num_tokens, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    if shape.condition == "text":
        condition = torch.zeros(1, shape.text_length, shape.text_width)
    nat = without_memory(lambda: UViT(shape)).eval()
    return planned_operations(lambda: nat(ids, condition))


def state_bytes(num_parameters: int) -> int:
    """Bytes of a run's saved states: weights, average and two moments in float32, each."""
    return _KEPT_STATES * 4 * _FLOAT * num_parameters
