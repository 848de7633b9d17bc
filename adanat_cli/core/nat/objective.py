"""The training objective of the NAT, as a module that distributed wrappers accept."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adanat_cli.core.nat.uvit import UViT

_BUCKET = 256
_IGNORED = -100
"""The target that PyTorch's cross-entropy ignores."""


class MaskedTokens(NamedTuple):
    """Sums over the masked tokens of a batch; the caller divides by their number.

    Attributes:
        loss: scalar, sum of cross-entropies in nats.
        num_correct: scalar, number of tokens whose most likely id is the true one.
    """

    loss: Tensor
    num_correct: Tensor


def masked_token_loss(logits: Tensor, targets: Tensor, label_smoothing: float) -> MaskedTokens:
    """Compare predictions of masked tokens with the true ids.

    Args:
        logits: (M, K).
        targets: (M,) int64, the true ids; -100 for padding.
        label_smoothing: probability that the target spreads evenly over all K ids.

    Source: AutoNAT (arXiv 2406.05478), the authors' training code.
    """
    logits = logits.float()
    loss = F.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="sum")
    return MaskedTokens(loss, (logits.detach().argmax(dim=-1) == targets).sum())


class MaskedTokenLoss(nn.Module):
    """Mask tokens, predict them, and compare with the true ids.

    Only masked positions go through the output head: the others do not count, and on a small NAT the head
    is a good part of the compute.
    """

    def __init__(self, nat: UViT, label_smoothing: float) -> None:
        super().__init__()
        self.nat, self.label_smoothing = nat, label_smoothing

    def forward(self, token_ids: Tensor, condition: Tensor, positions: Tensor) -> MaskedTokens:
        """Predict the masked tokens.

        Args:
            token_ids: (B, N) int64, the true ids.
            condition: labels or text states, see ``UViT.forward``.
            positions: (M,) int64, the masked entries of the flattened (B * N) tokens. Indices rather
                than a mask, whose count a GPU would have to wait for.
        """
        true_ids = token_ids.flatten()
        visible = true_ids.index_fill(0, positions, self.nat.config.mask_id).view_as(token_ids)
        features = self.nat.features(visible, condition).flatten(0, 1)  # (B * N, D)
        targets = true_ids.index_select(0, positions)
        # A few sizes instead of a new one at each update, so that the allocator reuses its blocks.
        num_padding = -len(positions) % _BUCKET
        positions = torch.cat([positions, positions[:1].expand(num_padding)])
        targets = F.pad(targets, (0, num_padding), value=_IGNORED)
        logits = self.nat.head(features.index_select(0, positions))  # (M + padding, K)
        return masked_token_loss(logits, targets, self.label_smoothing)
