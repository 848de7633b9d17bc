"""The state of a batch of images between all tokens masked and all tokens decided."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from adanat_cli.core.generation.actions import Action


@dataclass(frozen=True)
class DecodingState:
    """The state of the Markov decision process; each step returns a new one.

    Attributes:
        token_ids: (B, N) int64, the mask id where undecided.
        mask: (B, N) bool, True where undecided.
        sampled_ids: (B, N) int64, all tokens as the last step drew or kept them, without mask ids; after step T
            they are the image. Before the first step, all mask ids.
        step: number of steps taken, 0 … T.
        num_steps: T.
        last_action: the action of the last step; None before the first.
        kept: (B, N) bool, True where a token was given at the start and never changes; None if all are drawn.
    """

    token_ids: Tensor
    mask: Tensor
    sampled_ids: Tensor
    step: int
    num_steps: int
    last_action: Action | None = None
    kept: Tensor | None = None

    @classmethod
    def start(
        cls, batch_size: int, num_tokens: int, mask_id: int, num_steps: int, device: torch.device | None = None
    ) -> DecodingState:
        """Return the initial state, with all tokens masked."""
        token_ids = torch.full((batch_size, num_tokens), mask_id, device=device)
        return cls(token_ids, torch.ones_like(token_ids, dtype=torch.bool), token_ids, 0, num_steps)

    @classmethod
    def start_from(cls, token_ids: Tensor, mask_id: int, num_steps: int) -> DecodingState:
        """Return the initial state of images of which some tokens are given: (B, N) ids, the mask id where to draw."""
        mask = token_ids == mask_id
        return cls(token_ids, mask, token_ids, 0, num_steps, kept=~mask)

    @property
    def num_drawn(self) -> Tensor:
        """(B,) int64, tokens that are drawn and not given: what a re-masking ratio is a fraction of."""
        return (torch.ones_like(self.mask) if self.kept is None else ~self.kept).sum(-1)

    @cached_property
    def masked(self) -> tuple[Tensor, Tensor]:
        """Sample and position, (M,) int64 each, of the M undecided tokens, sample by sample."""
        sample, position = self.mask.nonzero(as_tuple=True)
        return sample, position

    @property
    def finished(self) -> bool:
        """Whether all T steps were taken."""
        return self.step >= self.num_steps
