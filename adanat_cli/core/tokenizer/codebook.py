"""Updates of a codebook by moving averages, which keep all codes in use."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


class Codebook:
    """Moves each code to the running mean of the latents nearest to it.

    A code that is hardly used any more is moved to a random latent of the batch.

    Source: VQ-VAE (arXiv 1711.00937), appendix A.1.
    """

    def __init__(self, codes: Tensor, decay: float, dead_share: float = 0.02, usage: Tensor | None = None) -> None:
        """Begin with the given usage counts.

        Args:
            codes: (K, C) unit vectors, updated in place.
            decay: decay of the running means, in [0, 1).
            dead_share: a code is dead when it is used less than this fraction of the mean use.
            usage: (K,) uses of each code in a batch, by default 0; the first batch replaces codes without use.
        """
        self.codes, self._decay, self._dead_share = codes, decay, dead_share
        self.usage = torch.zeros(len(codes), device=codes.device) if usage is None else usage
        self._sums = self.usage[:, None] * codes

    @torch.no_grad()
    def update(
        self,
        latents: Tensor,
        token_ids: Tensor,
        reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Update the codes with one batch.

        Args:
            latents: (B, N, C) unit vectors.
            token_ids: (B, N) int64, ids of their nearest codes.
            reduce: sums a tensor over processes.
            rank: index of this process.
            world_size: number of processes.
        """
        self.count(token_ids, reduce)
        flat, ids = latents.reshape(-1, latents.shape[-1]), token_ids.reshape(-1)
        sums = torch.zeros_like(self._sums).index_add_(0, ids, flat)
        candidates = flat[torch.randint(len(flat), (len(self.codes),), device=flat.device)]
        # Each process proposes latents for its share of the codes, so that all agree and use the data of all.
        proposed = torch.arange(len(self.codes), device=flat.device) % world_size == rank
        candidates = reduce(candidates * proposed[:, None])
        self._sums.lerp_(reduce(sums), 1 - self._decay)
        dead = self.usage < self._dead_share * self.usage.mean()
        # A revived code starts with the mean use, or it would be dead again at once.
        self._sums[dead] = candidates[dead] * self.usage.mean()
        self.usage[dead] = self.usage.mean()
        self.codes.copy_(F.normalize(self._sums, dim=-1))

    @torch.no_grad()
    def count(self, token_ids: Tensor, reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> None:
        """Count the use of codes in one batch, (B, N) int64, and leave them where they are."""
        counts = torch.bincount(token_ids.reshape(-1), minlength=len(self.codes)).float()
        self.usage.lerp_(reduce(counts), 1 - self._decay)

    def perplexity(self) -> float:
        """Return exp of the entropy of code usage, from 1 (collapse) to K (all codes used equally)."""
        share = self.usage / self.usage.sum().clamp_min(1e-12)
        return float(torch.exp(-torch.xlogy(share, share).sum()))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors that a resumed training needs besides the codes."""
        return {"usage": self.usage, "sums": self._sums}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Resume from a saved state."""
        self.usage.copy_(state["usage"])
        self._sums.copy_(state["sums"])
