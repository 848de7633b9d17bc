"""A frozen text tower of CLIP's architecture, as the context of a text-conditional NAT."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from adanat_cli.core.errors import require
from adanat_cli.core.pretrained import Frozen, load_clip

_PROMPTS_AT_ONCE = 256
_PADDING_ID = 0
"""The reference pads with id 0, whatever the tokenizer's own padding is, and masks nothing."""


class EncodedText(NamedTuple):
    """What the encoder makes of B prompts.

    Attributes:
        states: (B, L, D), last hidden states after the final LayerNorm; the NAT's context, padding included.
        pooled: (B, E), projected embedding at the end of the text, of unit length; a discriminator's condition.
    """

    states: Tensor
    pooled: Tensor


class TextEncoder(Frozen):
    """Text states and pooled embeddings by CLIP's text tower; it never learns.

    Attributes:
        model: Hub id or folder that it was loaded from.
        length: L, tokens of a prompt; longer ones are cut off, shorter ones padded.
        width: D of the states.
        pooled_width: E of the embeddings.

    Sources: CLIP (arXiv 2103.00020); the way AdaNAT (arXiv 2409.00342) feeds it: padding with id 0 up to L, no
    attention mask beside the tower's own causal one.
    """

    def __init__(self, model: str, device: torch.device | str = "cpu", precision: torch.dtype = torch.float32) -> None:
        """Load the tower.

        Args:
            model: Hub id ``user/name[@revision]`` of a CLIP model, or a local folder.
            device: where to encode.
            precision: number format of the tower's products; results are float32 in any case.

        Raises:
            AdaNATError: if transformers is not installed or the model cannot be had.
        """
        super().__init__()
        self.model, self._precision = model, precision
        self.tower, self._tokenizer, _ = load_clip(model, "CLIPTextModelWithProjection", "Text encoder")
        config = self.tower.config
        self.length: int = config.max_position_embeddings
        self.width: int = config.hidden_size
        self.pooled_width: int = config.projection_dim
        self.to(device)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> EncodedText:
        """Encode prompts; one that occurs several times is encoded once."""
        distinct = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
        ids = self.token_ids(list(distinct))
        parts = [self._encode(part) for part in ids.split(_PROMPTS_AT_ONCE)]
        encoded = EncodedText(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
        if len(distinct) == len(prompts):
            return encoded
        rows = torch.tensor([distinct[prompt] for prompt in prompts], device=ids.device)
        return EncodedText(encoded.states[rows], encoded.pooled[rows])

    def token_ids(self, prompts: Sequence[str]) -> Tensor:
        """(B, L) int64: start, words, end, then zeros; what exceeds L is cut off before the end."""
        rows = self._tokenizer(list(prompts), truncation=True, max_length=self.length)["input_ids"]
        ids = torch.full((len(rows), self.length), _PADDING_ID)
        for row, words in zip(ids, rows, strict=True):
            row[: len(words)] = torch.tensor(words)
        return ids.to(self.device)

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt with start and end, where nothing is cut off."""
        return [len(words) for words in self._tokenizer(list(prompts), verbose=False)["input_ids"]]

    def save(self, folder: Path) -> None:
        """Write the tower and the words, without the image tower that a CLIP may have: JSON and safetensors.

        Args:
            folder: to make; ``TextEncoder`` opens it.
        """
        self.tower.save_pretrained(folder, max_shard_size="1TB")
        self._tokenizer.save_pretrained(folder)

    @cached_property
    def null(self) -> EncodedText:
        """The empty prompt, which stands for no condition; (1, L, D) and (1, E)."""
        return self.encode([""])

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the tower's weights, which do not depend on the version of the library that names them."""
        digest = hashlib.sha256()
        names = {name.replace("text_model.", ""): tensor for name, tensor in self.tower.named_parameters()}
        for name in sorted(names):
            digest.update(f"{name}{tuple(names[name].shape)}".encode())
            digest.update(names[name].detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def device(self) -> torch.device:
        """Where it encodes."""
        return next(self.tower.parameters()).device

    def require_shape(self, width: int, length: int, reader: str) -> None:
        """Refuse a NAT whose context is of another shape.

        Raises:
            AdaNATError: naming both.
        """
        require(
            (self.width, self.length) == (width, length),
            f"Text encoder {self.model!r} gives {self.length} states of width {self.width}, but {reader} reads "
            f"{length} of width {width}; give the encoder that it was trained with (--text-encoder).",
        )

    def _encode(self, ids: Tensor) -> EncodedText:
        half = self._precision != torch.float32
        with torch.autocast(ids.device.type, dtype=self._precision if half else torch.bfloat16, enabled=half):
            output = self.tower(input_ids=ids)
        return EncodedText(output.last_hidden_state.float(), F.normalize(output.text_embeds.float(), dim=-1))
