"""U-ViT: a transformer with long skips over a condition and a grid of token ids."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from adanat_cli.core.config import NATConfig

# The two embedding LayerNorms use BERT's epsilon, all others PyTorch's default of 1e-5.
_EMBEDDING_EPSILON = 1e-6
_INIT_STD = 0.02


class NATOutput(NamedTuple):
    """The NAT's output for a batch.

    Attributes:
        logits: (B, N, K), over the codebook, without the mask id.
        features: (B, N, D), after the final LayerNorm; the input of an adaptive policy.
    """

    logits: Tensor
    features: Tensor


class Embedding(nn.Module):
    """Ids to vectors: word embedding plus learned position, LayerNorm, dropout."""

    def __init__(self, num_words: int, num_positions: int, width: int, dropout: float) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(num_words, width)
        self.position_embeddings = nn.Embedding(num_positions, width)
        self.LayerNorm = nn.LayerNorm(width, eps=_EMBEDDING_EPSILON)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """Embed (B, L) ids as (B, L, D), where L is the number of positions."""
        embedded = self.word_embeddings(ids) + self.position_embeddings.weight
        return self.dropout(self.LayerNorm(embedded))


class Attention(nn.Module):
    """Multi-head self-attention without bias on queries, keys and values."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, D) to (B, L, D)."""
        query, key, value = rearrange(self.qkv(x), "b l (three h d) -> three b h l d", three=3, h=self.num_heads)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.proj(rearrange(attended, "b h l d -> b l (h d)"))


class MLP(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block; with ``skip``, the long skip connection joins before the attention."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: int, skip: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, mlp_ratio * width)
        self.skip_linear = nn.Linear(2 * width, width) if skip else None

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Map (B, L, D) to (B, L, D); ``skip`` has the same shape."""
        if self.skip_linear is not None and skip is not None:
            x = self.skip_linear(torch.cat([x, skip], dim=-1))
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Head(nn.Module):
    """Features to logits: Linear, GELU, LayerNorm, product with the word embedding, bias."""

    def __init__(self, width: int, num_words: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 1, num_words))
        self.fc = nn.Linear(width, width)
        self.ln = nn.LayerNorm(width)

    def forward(self, features: Tensor, words: Tensor) -> Tensor:
        """Return the (..., K) logits of (..., D) features for the (K, D) embeddings of the first K words."""
        hidden = self.ln(F.gelu(self.fc(features)))
        return F.linear(hidden, words, self.bias[0, 0, : len(words)])


class UViT(nn.Module):
    """Predict all tokens of an image from the decided ones and a condition.

    The names in its state dict are those of the authors' checkpoints.

    Attributes:
        gradient_checkpointing: whether backward keeps the input of each block only, and computes the rest again.

    Source: U-ViT (arXiv 2209.12152), in the variant of AutoNAT (arXiv 2406.05478) and AdaNAT (arXiv 2409.00342).
    """

    def __init__(self, config: NATConfig) -> None:
        """Build with fresh weights, drawn from PyTorch's global generator."""
        super().__init__()
        self.config, self.gradient_checkpointing = config, False
        width, half = config.width, config.depth // 2

        def block(skip: bool = False) -> Block:
            return Block(width, config.num_heads, config.mlp_ratio, skip)

        self.token_emb = Embedding(config.codebook_size + 1, config.num_tokens, width, config.dropout)
        # The row after the last class is the null label.
        self.context_embed: nn.Module = (
            Embedding(config.num_classes + 1, 1, width, dropout=0.0)
            if config.condition == "class"
            else nn.Linear(config.text_width, width)
        )
        self.in_blocks = nn.ModuleList(block() for _ in range(half))
        self.mid_block = block()
        self.out_blocks = nn.ModuleList(block(skip=True) for _ in range(half))
        self.norm = nn.LayerNorm(width)
        self.mlm_layer = Head(width, config.codebook_size + 1)
        self.apply(_initialize)

    @torch.no_grad()
    def start_from_codes(self, codes: Tensor, std: float) -> None:
        """Initialise the word embedding with a random projection of the tokenizer's codes, plus half the usual noise.

        The word embedding serves both input and output, so that what is learned about one code applies to
        similar codes from the first update on.

        Args:
            codes: (K, C) code vectors, of which only the directions count.
            std: standard deviation of the projected part.
        """
        directions = F.normalize(codes.float() - codes.float().mean(0), dim=-1)
        projection = torch.randn(codes.shape[1], self.config.width)
        self.token_emb.word_embeddings.weight[: len(codes)].mul_(0.5).add_(std * directions @ projection)

    def forward(self, token_ids: Tensor, condition: Tensor) -> NATOutput:
        """Predict all tokens.

        Args:
            token_ids: (B, N) int64; ``config.mask_id`` where undecided.
            condition: (B,) int64 labels, ``config.num_classes`` for the null label; or (B, L, D_text) text states.
        """
        features = self.features(token_ids, condition)
        return NATOutput(self.head(features), features)

    def features(self, token_ids: Tensor, condition: Tensor) -> Tensor:
        """Return the (B, N, D) features of the image tokens; arguments as in ``forward``."""
        if self.config.condition == "class":
            condition = condition[:, None]  # (B, 1)
        x = torch.cat([self.context_embed(condition), self.token_emb(token_ids)], dim=1)
        skips = []
        for block in self.in_blocks:
            x = self._through(block, x)
            skips.append(x)
        x = self._through(self.mid_block, x)
        for block in self.out_blocks:
            x = self._through(block, x, skips.pop())
        return self.norm(x[:, -token_ids.shape[1] :])

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks, in the order in which they run."""
        return [*self.in_blocks, self.mid_block, *self.out_blocks]

    def _through(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        """Run a block, which draws no random numbers."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            kept: Tensor = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
            return kept
        output: Tensor = block(*inputs)
        return output

    def head(self, features: Tensor) -> Tensor:
        """Return (..., K) logits of any selection of (..., D) features.

        The output uses the word embedding, to which it passes no gradient.
        """
        words = self.token_emb.word_embeddings.weight[: self.config.codebook_size]
        return self.mlm_layer(features, words.detach())


def _initialize(module: nn.Module) -> None:
    """Initialise one layer as the authors' code does."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=_INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=_INIT_STD)
