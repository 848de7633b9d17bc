"""Placing code vectors by moving averages, so that none falls out of use."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


class Codebook:
    """Moves each code to the running mean of the latents that chose it (VQ-VAE, arXiv 1711.00937, appendix A.1).

    A code that is hardly chosen any more is put where a random latent of the batch lies.
    """

    def __init__(self, codes: Tensor, decay: float, dead_share: float = 0.02) -> None:
        """Start with every code used evenly.

        Args:
            codes: (K, C) unit vectors, changed in place.
            decay: of the running means.
            dead_share: a code is dead when chosen less than this share of an even use.
        """
        self.codes, self._decay, self._dead_share = codes, decay, dead_share
        self.usage = torch.zeros(codes.shape[0], device=codes.device)
        self._sums = torch.zeros_like(codes)

    @torch.no_grad()
    def update(
        self,
        latents: Tensor,
        token_ids: Tensor,
        reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Take in one batch.

        Args:
            latents: (B, N, C) unit vectors.
            token_ids: (B, N), the codes they chose.
            reduce: sums a tensor over processes.
            rank: which process this is.
            world_size: how many there are.
        """
        flat, ids = latents.reshape(-1, latents.shape[-1]), token_ids.reshape(-1)
        counts = torch.bincount(ids, minlength=len(self.codes)).float()
        sums = torch.zeros_like(self._sums).index_add_(0, ids, flat)
        candidates = flat[torch.randint(len(flat), (len(self.codes),), device=flat.device)]
        # Each process proposes its share of the codes, so that all agree and every process's data is seen.
        proposed = torch.arange(len(self.codes), device=flat.device) % world_size == rank
        candidates = reduce(candidates * proposed[:, None])
        self.usage.lerp_(reduce(counts), 1 - self._decay)
        self._sums.lerp_(reduce(sums), 1 - self._decay)
        dead = self.usage < self._dead_share * self.usage.mean()
        # A revived code starts with an even share of use, or it would die again at once.
        self._sums[dead] = candidates[dead] * self.usage.mean()
        self.usage[dead] = self.usage.mean()
        self.codes.copy_(F.normalize(self._sums, dim=-1))

    def perplexity(self) -> float:
        """Return exp of the entropy of use: K when all codes are used evenly, 1 after collapse."""
        share = self.usage / self.usage.sum().clamp_min(1e-12)
        return float(torch.exp(-torch.xlogy(share, share).sum()))

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed training needs besides the codes."""
        return {"usage": self.usage, "sums": self._sums}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a saved state."""
        self.usage.copy_(state["usage"])
        self._sums.copy_(state["sums"])
