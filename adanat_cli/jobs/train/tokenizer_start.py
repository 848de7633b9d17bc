"""A tokenizer that starts from the weights of another: its shape, and the model around it that stays valid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from adanat_cli.core.checkpoints.folder import Component, ModelFolder
from adanat_cli.core.checkpoints.hub import HubFolder
from adanat_cli.core.checkpoints.token_identity import encoder_fingerprint, tokens_fingerprint
from adanat_cli.core.config import TokenizerConfig, VQAEConfig, tokenizer_config
from adanat_cli.core.config.training_requests import TrainTokenizerRequest
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.jobs.resolve.models import read_config
from adanat_cli.jobs.train.start import Start

_DECODER = "decoder."
_SEEN_THROUGH_DECODER = {"distance", "fixed_distance", "training_distance", "measured_on"}
"""What a policy's provenance says of its images, which another decoder draws differently."""


def start_shape(
    start: Start, request: TrainTokenizerRequest, was: TokenizerConfig | None, freeze_encoder: bool
) -> VQAEConfig:
    """The shape to continue with: that of the run which is resumed, or of the model, to which codes can be added.

    Args:
        start: the model.
        request: what was typed.
        was: shape of the run in the folder.
        freeze_encoder: whether the tokens stay valid; the configuration says then whose they are.

    Raises:
        AdaNATError: if it is damaged, of a kind that is not trained here, or another shape was asked for.
    """
    folder = start.folder
    config = was if was and start.is_resumed else read_config(folder, "tokenizer", tokenizer_config)
    if not isinstance(config, VQAEConfig):
        raise AdaNATError(f"--from {start.model} has a tokenizer of kind {config.kind}; only kind vqae can be trained.")
    codes = request.codebook_size or config.codebook_size
    if codes > config.codebook_size and not (start.is_resumed or freeze_encoder):
        config = config.replace(codebook_size=codes)
    check_shape(config, request, start.model)
    if start.is_resumed:
        return config
    if not freeze_encoder:
        return config.replace(tokens_of="", encoder_fingerprint="")
    encoder = encoder_fingerprint(folder.read("tokenizer")[1])
    return config.replace(tokens_of=tokens_fingerprint(folder), encoder_fingerprint=encoder)


def check_shape(config: VQAEConfig, request: TrainTokenizerRequest, model: str) -> None:
    """Refuse another shape than that of the model to start from.

    Raises:
        AdaNATError: naming the option.
    """
    asked = {
        "--codebook-size": (request.codebook_size, config.codebook_size),
        "--downsampling": (request.downsampling, config.downsampling),
        "--image-size": (request.data.get("image_size"), config.image_size),
    }
    for flag, (value, own) in asked.items():
        more = ", or add codes, without --freeze-encoder" if flag == "--codebook-size" else ""
        require(
            value in (None, own),
            f"{flag} {value} is another shape than that of the tokenizer of --from {model} ({own}), which stays as it "
            f"is; leave {flag} out{more}.",
        )
    require(not request.colour, f"--colour trains nothing, and --from {model} is trained further; leave one out.")


def stored(weights: Mapping[str, Tensor], half: bool, freeze_encoder: bool) -> dict[str, Tensor]:
    """The weights as they are exported: in 16 bits where asked for, but for a frozen encoder that would change."""
    halved = {name: tensor.half() for name, tensor in weights.items()}
    is_same = all(torch.equal(halved[name].float(), weights[name]) for name in weights if _DECODER not in name)
    kept = freeze_encoder and not is_same
    return {name: halved[name] if half and not (kept and _DECODER not in name) else weights[name] for name in weights}


def write_around(tokenizer: Component, source: ModelFolder, target: ModelFolder) -> None:
    """Write a tokenizer with the tokens of a model's, and all else of that model, which stays valid.

    What was measured on the images of the model's own decoder is left out.

    Raises:
        AdaNATError: if a component of the model is missing or damaged.
    """
    origin = {"hub": str(source.hub_id)} if isinstance(source, HubFolder) else {}
    others = [source.component(name) for name in source.index.components if name != tokenizer.name]
    others = [replace(part, provenance={**_without_images(part.provenance), **origin}) for part in others]
    license_ = source.index.provenance.get(tokenizer.name, {}).get("license")
    if license_:
        tokenizer = replace(tokenizer, provenance={**tokenizer.provenance, "license": license_})
    target.write_all([tokenizer, *others], image_size=source.index.image_size or None)
    target.drop_results()
    if labels := source.labels():
        target.write_labels(labels)
    for part in others:
        target.take_references(source, part.name)


def _without_images(provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in provenance.items() if key not in _SEEN_THROUGH_DECODER}
