"""A frozen text tower of CLIP's architecture, whose states are the context of a text-conditional NAT."""

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
"""The authors' code pads with id 0, whatever the tokenizer's own padding id, and masks nothing."""


class EncodedText(NamedTuple):
    """The encoding of B prompts.

    Attributes:
        states: (B, L, D), last hidden states after the final LayerNorm; the NAT's context, padding included.
        pooled: (B, E), projected embeddings of the end token, of unit length; a discriminator's condition.
    """

    states: Tensor
    pooled: Tensor


class TextEncoder(Frozen):
    """Encodes prompts as text states and pooled embeddings, by CLIP's text tower.

    Attributes:
        model: Hub id ``user/name[@revision]`` of a CLIP model, or a local folder.
        length: L, tokens of a prompt; longer ones are truncated, shorter ones padded.
        width: D of the states.
        pooled_width: E of the embeddings.

    Sources: CLIP (arXiv 2103.00020); the authors' code of AdaNAT (arXiv 2409.00342) for the input: padding with id 0 up
    to L, and no attention mask but the tower's causal one.
    """

    def __init__(self, model: str, device: torch.device | str = "cpu", precision: torch.dtype = torch.float32) -> None:
        """Load the tower; ``precision`` is that of its matrix products, while results are always float32.

        Raises:
            AdaNATError: if transformers is not installed or the model cannot be loaded.
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
        """Encode B prompts; repeated ones are encoded once."""
        row_of = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        ids = self.token_ids(list(row_of))
        parts = [self._encode(part) for part in ids.split(_PROMPTS_AT_ONCE)]
        encoded = EncodedText(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
        if len(row_of) == len(prompts):
            return encoded
        rows = torch.tensor([row_of[prompt] for prompt in prompts], device=ids.device)
        return EncodedText(encoded.states[rows], encoded.pooled[rows])

    def token_ids(self, prompts: Sequence[str]) -> Tensor:
        """Return (B, L) int64 ids: start token, words, end token, then zeros; words beyond L are dropped."""
        rows = self._tokenizer(list(prompts), truncation=True, max_length=self.length)["input_ids"]
        ids = torch.full((len(rows), self.length), _PADDING_ID)
        for row, words in zip(ids, rows, strict=True):
            row[: len(words)] = torch.tensor(words)
        return ids.to(self.device)

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each prompt without truncation, start and end tokens included."""
        return [len(words) for words in self._tokenizer(list(prompts), verbose=False)["input_ids"]]

    def save(self, folder: Path) -> None:
        """Write tower and vocabulary as JSON and safetensors to a folder that ``TextEncoder`` can load."""
        self.tower.save_pretrained(folder, max_shard_size="1TB")
        self._tokenizer.save_pretrained(folder)

    @cached_property
    def null(self) -> EncodedText:
        """The encoding of the empty prompt, the null condition: (1, L, D) and (1, E)."""
        return self.encode([""])

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the tower's weights, independent of the names that versions of transformers give them."""
        digest = hashlib.sha256()
        names = {name.replace("text_model.", ""): tensor for name, tensor in self.tower.named_parameters()}
        for name in sorted(names):
            digest.update(f"{name}{tuple(names[name].shape)}".encode())
            digest.update(names[name].detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def device(self) -> torch.device:
        """Device of the tower."""
        return next(self.tower.parameters()).device

    def require_shape(self, width: int, length: int, reader: str) -> None:
        """Refuse a reader, such as "the NAT", that expects text states of another shape.

        Raises:
            AdaNATError: if L or D differ.
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
