"""What NAT pre-training starts from: the request, the tokenizer, the text encoder, and the NAT's shape."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch

from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import NATConfig, nat_preset
from adanat_cli.core.config.settings import NATSettings
from adanat_cli.core.data.token_set import TokenSet, TokenSetInfo
from adanat_cli.core.errors import require
from adanat_cli.core.text.encoder import TextEncoder
from adanat_cli.jobs.resolve.classes import find_classes
from adanat_cli.jobs.resolve.models import model_names, resolve_model
from adanat_cli.jobs.resolve.text_encoders import load_encoder, recorded_name, usual_encoder
from adanat_cli.jobs.train.nat_batches import Indices

_CAPTIONS_AT_ONCE = 2**16


def tokenizer_model(request: NATSettings) -> ModelFolder:
    """The model whose tokenizer is meant: the named one, the data set's own, or the default."""
    return resolve_model(request.model or (request.dataset if request.dataset in model_names() else ""))


def caption_encoder(request: NATSettings, tokens: TokenSet, device: torch.device) -> TextEncoder | None:
    """Load the text encoder of captions that are not encoded yet; None where there is nothing to encode.

    Raises:
        AdaNATError: if it cannot be had, or the captions were encoded by another than the one that is asked for.
    """
    info = tokens.info
    if info.condition != "text":
        return None
    if tokens.states is None:
        half = request.training.precision == "bf16" or (request.training.precision == "auto" and device.type == "cuda")
        named = request.text_encoder or usual_encoder(request.dataset)
        return load_encoder(named, device, torch.bfloat16 if half else torch.float32)
    require(
        not request.text_encoder or recorded_name(request.text_encoder) == info.text_encoder,
        f"The captions in {request.tokens} were encoded by {info.text_encoder}, not by {request.text_encoder}; leave "
        "--text-encoder out, or tokenize without --encode-captions.",
    )
    return None


def _text_fields(info: TokenSetInfo, encoder: TextEncoder | None) -> dict[str, Any]:
    """What the NAT's configuration says of its context."""
    fingerprint = encoder.fingerprint if encoder else info.text_fingerprint
    return {
        "condition": "text",
        "text_encoder": recorded_name(encoder.model) if encoder else info.text_encoder,
        "text_fingerprint": fingerprint,
        "text_width": encoder.width if encoder else info.text_width,
        "text_length": encoder.length if encoder else info.text_length,
    }


def nat_shape(
    request: NATSettings, info: TokenSetInfo, model: ModelFolder, encoder: TextEncoder | None = None
) -> NATConfig:
    """The NAT for these tokens.

    Raises:
        AdaNATError: if another tokenizer made them, or the size is for another condition.
    """
    actual = model.fingerprint("tokenizer")
    require(
        info.tokenizer_fingerprint == actual,
        f"The tokens in {request.tokens} were made by tokenizer {info.tokenizer_fingerprint[:12] or '(unknown)'}, "
        f"but the one of {model.path} is {actual[:12]}; give its model as --model, or run `adanat tokenize` again.",
    )
    text = _text_fields(info, encoder) if info.condition == "text" else {"num_classes": info.num_classes}
    shape = nat_preset(
        request.size, codebook_size=info.codebook_size, grid=info.grid, tokenizer_fingerprint=actual, **text
    )
    require(
        shape.condition == info.condition,
        f"--size {request.size} is conditioned on text, but {request.tokens} holds class labels; choose another size.",
    )
    return shape


def data_identity(tokens: TokenSet, rows: Indices) -> dict[str, Any]:
    """What tells this training data from other data, wherever it lies."""
    checksum = zlib.crc32(tokens.labels[rows].tobytes(), zlib.crc32(tokens.tokens[rows].tobytes()))
    info = tokens.info
    found = {"source": info.source, "has_flips": info.has_flips, "num_images": len(rows), "crc32": checksum}
    if info.condition == "text":
        texts = 0
        for start in range(0, tokens.num_captions, _CAPTIONS_AT_ONCE):
            numbers = np.arange(start, min(start + _CAPTIONS_AT_ONCE, tokens.num_captions))
            texts = zlib.crc32("\n".join(tokens.captions(numbers)).encode(), texts)
        found["captions_crc32"] = texts
    return found


def training_rows(tokens: TokenSet, classes: tuple[str, ...]) -> Indices:
    """Rows of the wanted classes, or all."""
    require(len(tokens) > 0, "The token set is empty; run `adanat tokenize` again.")
    if not classes:
        return np.arange(len(tokens))
    info = tokens.info
    require(info.condition == "class", "The token set holds captions and no classes to choose by; leave --class out.")
    wanted = find_classes(classes, info.class_names, info.num_classes, "the token set")
    rows = np.flatnonzero(np.isin(tokens.labels, wanted))
    require(len(rows) > 0, f"The token set holds no image of class {', '.join(classes)}; choose other classes.")
    return rows
