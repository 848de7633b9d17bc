"""What the NAT sees at every update: a function of seed, update and position, not of the process count."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from adanat_cli.core.config import NATTrainingConfig
from adanat_cli.core.nat.masking import sample_masks
from adanat_cli.jobs.runtime.seeding import Stream, stream_seed

Indices = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Flags = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
Draws = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

_MAX_HELD_OUT = 1024


class TokenRows(Protocol):
    """The part of a token set that batches are made of."""

    def batch(self, indices: Indices, flipped: Flags, draws: Draws | None = None) -> tuple[Any, Any]:
        """Return ids (B, N) and labels, or numbers of captions that draws in [0, 1) choose, (B,), both int64."""


class TokenBatch(NamedTuple):
    """One process's piece of an update.

    Attributes:
        token_ids: (b, N) int64.
        labels: (b,) int64, classes or numbers of captions; the null label where the condition is dropped.
        positions: (M,) int64, which of the flattened (b * N) tokens are hidden.
    """

    token_ids: Tensor
    labels: Tensor
    positions: Tensor

    def to(self, device: torch.device) -> TokenBatch:
        """Move all tensors."""
        return TokenBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


class Update(NamedTuple):
    """What one process does in one update.

    Attributes:
        batches: parts of the batch, whose gradients add up.
        num_hidden: hidden tokens over all processes.
    """

    batches: list[TokenBatch]
    num_hidden: int


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """The seed of everything the network itself draws in one update."""
    return stream_seed(Stream.NAT_DROPOUT, seed, step, rank)


def hold_out(rows: Indices, share: float) -> tuple[Indices, Indices]:
    """Split rows into those to train on and a small slice to measure on.

    Rows are kept back at even distances (so that sets sorted by class give every class its share), at most 1,024.

    Args:
        rows: indices of the rows to split.
        share: fraction of the rows to keep back; 0 for none.

    Returns:
        Training rows and held-out rows.
    """
    if share == 0:
        return rows, rows[:0]
    stride = max(round(1 / share), -(-len(rows) // _MAX_HELD_OUT))
    held_out = np.arange(len(rows)) % stride == stride - 1
    return rows[~held_out], rows[held_out]


def spread(rows: Indices) -> Indices:
    """Choose up to as many rows as are ever held out, evenly over all."""
    return rows[:: -(-len(rows) // _MAX_HELD_OUT)]


@dataclass(frozen=True)
class UpdateSource:
    """Draws the tokens, flips, masks and dropped conditions of every update.

    All processes draw the whole update and take their share, so the process count changes nothing.

    Attributes:
        tokens: where rows come from.
        rows: which of them to train on; every epoch visits each once, in a new order.
        config: the training's settings.
        num_tokens: N.
        null_label: stands for a dropped condition; -1 for captions.
        has_flips: whether rows have flipped twins.
    """

    tokens: TokenRows
    rows: Indices
    config: NATTrainingConfig
    num_tokens: int
    null_label: int
    has_flips: bool

    def update(self, step: int, rank: int = 0, world_size: int = 1, accumulate: int = 1) -> Update:
        """Draw one update.

        Args:
            step: which update, from 0.
            rank: which share to take.
            world_size: number of shares; divides the batch size.
            accumulate: pieces to cut the share into.
        """
        config, size = self.config, self.config.batch_size
        generator = torch.Generator().manual_seed(stream_seed(Stream.NAT_UPDATE, config.seed, step))
        uniforms = torch.rand(2, size, generator=generator)
        masks = sample_masks(size, self.num_tokens, config.mask_alpha, config.mask_beta, generator)
        flipped = (uniforms[0] < config.flip).numpy() & self.has_flips
        dropped = uniforms[1] < config.condition_dropout
        rows, draws = self._rows_of(np.arange(step * size, (step + 1) * size))
        share = size // world_size
        pieces = np.array_split(np.arange(rank * share, (rank + 1) * share), accumulate)
        batches = []
        for piece in pieces:
            picked = slice(int(piece[0]), int(piece[-1]) + 1)
            ids, labels = self.tokens.batch(rows[picked], flipped[picked], draws[picked])
            kept = torch.from_numpy(labels).masked_fill(dropped[picked], self.null_label)
            batches.append(TokenBatch(torch.from_numpy(ids), kept, _positions(masks[picked])))
        return Update(batches, int(masks.sum()))

    def fixed(self, rows: Indices) -> TokenBatch:
        """The given rows as they are, under masks that are the same in every run."""
        ids, labels = self.tokens.batch(rows, np.zeros(len(rows), dtype=np.bool_))
        generator = torch.Generator().manual_seed(stream_seed(Stream.NAT_HELD_OUT, 0))
        masks = sample_masks(len(rows), self.num_tokens, self.config.mask_alpha, self.config.mask_beta, generator)
        return TokenBatch(torch.from_numpy(ids), torch.from_numpy(labels), _positions(masks))

    def _rows_of(self, positions: Indices) -> tuple[Indices, Draws]:
        """Rows at positions of the endless sequence of shuffled epochs, with a number that picks a caption of each."""
        epochs, offsets = np.divmod(positions, len(self.rows))
        order, draws = np.empty_like(positions), np.empty(len(positions))
        for epoch in np.unique(epochs):
            here = epochs == epoch
            order[here] = _epoch_order(self.config.seed, int(epoch), len(self.rows))[offsets[here]]
            draws[here] = _epoch_draws(self.config.seed, int(epoch), len(self.rows))[order[here]]
        return self.rows[order], draws


@functools.lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, num_rows: int) -> Indices:
    """A permutation of the rows; kept, since drawing one for a million rows takes longer than a small update."""
    return np.random.default_rng((Stream.NAT_ORDER, seed, epoch)).permutation(num_rows)


@functools.lru_cache(maxsize=2)
def _epoch_draws(seed: int, epoch: int, num_rows: int) -> Draws:
    """A number in [0, 1) for every row: which of its captions this epoch shows."""
    return np.random.default_rng((Stream.NAT_CAPTION, seed, epoch)).random(num_rows)


def _positions(masks: Tensor) -> Tensor:
    """(b, N) bool to the flat indices of its true entries."""
    return masks.flatten().nonzero()[:, 0]
