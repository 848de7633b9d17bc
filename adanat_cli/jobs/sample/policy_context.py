"""What the trajectories of policy training are conditioned on: class labels as they are, or prompts by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from adanat_cli.core.text.encoder import TextEncoder


class Context(Protocol):
    """From numbers (B,), which are all that trajectories keep, to what networks read."""

    @property
    def null(self) -> Tensor | None:
        """(L, D), of the empty prompt; None for classes."""

    def condition(self, labels: Tensor) -> Tensor:
        """What the NAT reads: (B,) labels or (B, L, D) text states."""

    def embed(self, labels: Tensor) -> Tensor:
        """What a discriminator reads: (B,) labels or (B, E) pooled embeddings."""


class ClassContext:
    """Labels are their own condition."""

    null: Tensor | None = None

    def condition(self, labels: Tensor) -> Tensor:
        """The labels."""
        return labels

    def embed(self, labels: Tensor) -> Tensor:
        """The labels."""
        return labels


class PromptContext:
    """Prompts by number.

    A batch's states are encoded when the batch is due: 77 states of width 768 take 237 kB in float32, a hundred times
    what a trajectory's tokens do, and are the same in every step.
    """

    def __init__(self, prompts: Sequence[str], encoder: TextEncoder) -> None:
        """Take prompts and the NAT's encoder."""
        self._prompts, self.encoder = prompts, encoder

    @property
    def null(self) -> Tensor:
        """(L, D), of the empty prompt."""
        return self.encoder.null.states[0]

    def texts(self, labels: Tensor) -> list[str]:
        """The prompts of (B,) numbers."""
        return [self._prompts[number] for number in labels.tolist()]

    def condition(self, labels: Tensor) -> Tensor:
        """(B, L, D) text states."""
        return self.encoder.encode(self.texts(labels)).states

    def embed(self, labels: Tensor) -> Tensor:
        """(B, E) pooled embeddings."""
        return self.encoder.encode(self.texts(labels)).pooled
