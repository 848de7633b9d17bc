"""Configuration of the non-autoregressive transformer (NAT) and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from adanat_cli.core.config.base import MAX_WIDTH, Bounds, Config, Decay, Sizes, Width
from adanat_cli.core.errors import AdaNATError, require

MAX_GRID, MAX_CLASSES = 1024, 2**24


@dataclass(frozen=True)
class NATConfig(Config):
    """Shape of a U-ViT over a grid of token ids.

    Attributes:
        codebook_size: K; the mask id is K.
        grid: (h, w) tokens; N = h * w.
        width, depth, num_heads, mlp_ratio: depth // 2 blocks in, one middle, depth // 2 out.
        condition: "class" (one label token) or "text" (text_length states of text_width).
        num_classes: label ids 0 .. num_classes - 1; num_classes itself is the null label.
        dropout: dropout rate of the token embeddings, in training only.
        tokenizer_fingerprint: fingerprint of the tokenizer whose ids it was trained on; "" if not known.
        text_encoder: Hub id ``user/name[@revision]`` of the CLIP model whose states are its context, or the name of
            its folder; "" if not known.
        text_fingerprint: fingerprint of the text encoder's weights; "" if not known.
    """

    noun: ClassVar[str] = "NAT"
    codebook_size: Annotated[int, Bounds(1, 65535)]
    grid: Annotated[tuple[int, int], Bounds(1, MAX_GRID)]
    width: Width
    depth: Annotated[int, Bounds(1, 1000)]
    num_heads: Width
    mlp_ratio: Annotated[int, Bounds(1, 64)] = 4
    condition: Literal["class", "text"] = "class"
    num_classes: Annotated[int, Bounds(0, MAX_CLASSES)] = 1000
    text_width: Annotated[int, Bounds(0, MAX_WIDTH)] = 0
    text_length: Annotated[int, Bounds(0, MAX_WIDTH)] = 0
    dropout: Decay = 0.1
    tokenizer_fingerprint: str = ""
    text_encoder: str = ""
    text_fingerprint: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.grid) == 2, f"NAT grid is {self.grid}; expected (h, w).")
        require(self.depth % 2 == 0, f"NAT depth is {self.depth}; expected an even number (half in, half out).")
        require(
            self.width % self.num_heads == 0, f"NAT width {self.width} is not a multiple of its {self.num_heads} heads."
        )
        for name in ("text_width", "text_length") if self.condition == "text" else ("num_classes",):
            require(getattr(self, name) > 0, f"NAT {name} is 0; expected more for the condition {self.condition}.")

    @property
    def num_tokens(self) -> int:
        """N, tokens per image."""
        return self.grid[0] * self.grid[1]

    def sizes(self) -> Sizes:
        """Return the shapes that the settings decide; see ``Config``."""
        context = (
            {"context_embed.word_embeddings.weight": (self.num_classes + 1, self.width)}
            if self.condition == "class"
            else {"context_embed.weight": (self.width, self.text_width)}
        )
        return {
            "token_emb.word_embeddings.weight": (self.codebook_size + 1, self.width),
            "token_emb.position_embeddings.weight": (self.num_tokens, self.width),
            "mid_block.mlp.fc1.weight": (self.mlp_ratio * self.width, self.width),
            "in_blocks": self.depth // 2,
            "out_blocks": self.depth // 2,
            **context,
        }

    @property
    def mask_id(self) -> int:
        """The id that stands for an undecided token."""
        return self.codebook_size


NAT_PRESETS: dict[str, dict[str, Any]] = {
    "nano": {"width": 64, "depth": 2, "num_heads": 4},
    "micro": {"width": 112, "depth": 4, "num_heads": 4},
    "tiny": {"width": 224, "depth": 4, "num_heads": 4},
    "mini": {"width": 384, "depth": 8, "num_heads": 6},
    "small": {"width": 512, "depth": 12, "num_heads": 8},
    "large": {"width": 768, "depth": 24, "num_heads": 8},
    "muse": {"width": 1152, "depth": 28, "num_heads": 16, "condition": "text", "text_width": 1280, "text_length": 77},
}
"""Sizes by name: nano about 0.2 M parameters, micro 1 M, tiny 4 M, mini 18 M, small 46 M, large 194 M, muse 0.5 B."""


def nat_preset(name: str, **fields: Any) -> NATConfig:
    """Build a NAT configuration from a size name and the fields that depend on data and tokenizer.

    Raises:
        AdaNATError: if no preset has this name.
    """
    if name not in NAT_PRESETS:
        raise AdaNATError(f"NAT size {name!r} is not known; expected one of {', '.join(NAT_PRESETS)}.")
    return NATConfig(**{**NAT_PRESETS[name], **fields})


def nat_size(shape: Mapping[str, Any]) -> str:
    """Name of the preset of a NAT's shape; "" if it has none."""
    fields = ("width", "depth", "num_heads")
    names = (name for name, row in NAT_PRESETS.items() if all(shape.get(key) == row[key] for key in fields))
    return next(names, "")
