"""The training objective of the NAT as a module, so that it can be spread over processes."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adanat_cli.core.nat.uvit import UViT

_BUCKET = 256
_IGNORED = -100
"""The target that PyTorch's cross-entropy leaves out."""


class HiddenTokens(NamedTuple):
    """Sums over the hidden tokens of a batch; the caller divides by their number.

    Attributes:
        loss: scalar, summed cross-entropy.
        num_correct: scalar, how many most likely ids are the true ones.
    """

    loss: Tensor
    num_correct: Tensor


def hidden_token_loss(logits: Tensor, targets: Tensor, label_smoothing: float) -> HiddenTokens:
    """Compare predictions of hidden tokens with the truth.

    Args:
        logits: (M, K).
        targets: (M,) int64, the true ids; -100 where there is nothing to compare.
        label_smoothing: share of the target spread evenly over all K ids.

    Source: AutoNAT (arXiv 2406.05478), training.
    """
    logits = logits.float()
    loss = F.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="sum")
    return HiddenTokens(loss, (logits.detach().argmax(dim=-1) == targets).sum())


class MaskedTokenLoss(nn.Module):
    """Hide tokens, predict them, and compare.

    Only hidden positions go through the output head: they alone count, and on a small NAT the head
    is a good part of the work.
    """

    def __init__(self, nat: UViT, label_smoothing: float) -> None:
        super().__init__()
        self.nat, self.label_smoothing = nat, label_smoothing

    def forward(self, token_ids: Tensor, condition: Tensor, positions: Tensor) -> HiddenTokens:
        """Predict the hidden tokens.

        Args:
            token_ids: (B, N) int64, the true ids.
            condition: as ``UViT.forward`` takes it.
            positions: (M,) int64, which entries of the flattened (B * N) are hidden. Indices rather
                than a mask, since a mask would make a GPU wait for its count.
        """
        true_ids = token_ids.flatten()
        visible = true_ids.index_fill(0, positions, self.nat.config.mask_id).view_as(token_ids)
        features = self.nat.features(visible, condition).flatten(0, 1)  # (B * N, D)
        targets = true_ids.index_select(0, positions)
        # A few sizes instead of a new one at every update: the allocator finds its old blocks again.
        num_padding = -len(positions) % _BUCKET
        positions = torch.cat([positions, positions[:1].expand(num_padding)])
        targets = F.pad(targets, (0, num_padding), value=_IGNORED)
        logits = self.nat.head(features.index_select(0, positions))  # (M + padding, K)
        return hidden_token_loss(logits, targets, self.label_smoothing)
