"""Where a batch of images stands on its way from all tokens masked to all tokens decided."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adanat_cli.core.generation.actions import Action


@dataclass(frozen=True)
class DecodingState:
    """The state of the decision process; steps return a new one.

    Attributes:
        token_ids: (B, N) int64, the mask id where undecided.
        mask: (B, N) bool, True where undecided.
        sampled_ids: (B, N) int64, ids drawn by the last step, with no mask id once a step was taken;
            after the last step they are the image.
        step: steps taken.
        num_steps: T.
        last_action: what the last step did; None before the first.
    """

    token_ids: Tensor
    mask: Tensor
    sampled_ids: Tensor
    step: int
    num_steps: int
    last_action: Action | None = None

    @classmethod
    def start(
        cls, batch_size: int, num_tokens: int, mask_id: int, num_steps: int, device: torch.device | None = None
    ) -> DecodingState:
        """Return a batch with every token masked."""
        token_ids = torch.full((batch_size, num_tokens), mask_id, device=device)
        return cls(token_ids, torch.ones_like(token_ids, dtype=torch.bool), token_ids, 0, num_steps)

    @property
    def finished(self) -> bool:
        """Whether all T steps were taken."""
        return self.step >= self.num_steps
