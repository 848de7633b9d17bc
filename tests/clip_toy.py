"""A random CLIP of two layers whose vocabulary is a handful of words, and a random NAT that draws from prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from adanat_cli.core.checkpoints.folder import Component, ModelFolder
from adanat_cli.core.config import NATConfig, tokenizer_config
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.text.encoder import TextEncoder
from adanat_cli.jobs.resolve.text_encoders import encoder_component


def make_clip(place: Path, words: Sequence[str], image_size: int = 16, length: int = 8, **tower: Any) -> Path:
    """Write config, safetensors, tokenizer and image processor.

    Args:
        place: folder.
        words: of the vocabulary.
        image_size: of the vision tower.
        length: L, tokens of a prompt.
        tower: fields of both towers' configurations.
    """
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: index for index, word in enumerate(["<pad>", "<unk>", *words, "<start>", "<end>"])}
    start, end = vocabulary["<start>"], vocabulary["<end>"]
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", start), ("<end>", end)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<start>", eos_token="<end>"
    ).save_pretrained(place)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, **tower}
    config = transformers.CLIPConfig(
        text_config={
            **tower,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": length,
            "bos_token_id": start,
            "eos_token_id": end,
            "pad_token_id": 0,
            "projection_dim": 8,
        },
        vision_config={**tower, "image_size": image_size, "patch_size": 8},
        projection_dim=8,
    )
    torch.manual_seed(0)
    transformers.CLIPModel(config).save_pretrained(place)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": image_size},
        crop_size={"height": image_size, "width": image_size},
        image_mean=[0.4, 0.5, 0.6],
    ).save_pretrained(place)
    return place


def make_text_model(model: ModelFolder, place: Path, words: Sequence[str]) -> None:
    """Write a random NAT of prompts, and its encoder, into a model that has a tokenizer.

    Args:
        model: the model; its class names go.
        place: folder of the encoder, in which the model keeps a copy of it.
        words: of the encoder's vocabulary.
    """
    encoder = TextEncoder(str(make_clip(place, words, length=6)))
    tokenizer = tokenizer_config(model.config("tokenizer"), str(model.path))
    config = NATConfig(
        codebook_size=tokenizer.codebook_size,
        grid=tokenizer.grid,
        width=16,
        depth=2,
        num_heads=2,
        condition="text",
        text_width=encoder.width,
        text_length=encoder.length,
        text_fingerprint=encoder.fingerprint,
        tokenizer_fingerprint=model.fingerprint("tokenizer"),
    )
    torch.manual_seed(1)
    network = UViT(config)
    for name, weight in network.named_parameters():  # fresh weights would hardly let the prompt through
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.5 if "embed" in name else 0.3)
    own = encoder_component(encoder, place)
    assert own is not None
    model.write_all([Component("nat", config.to_dict(), network.state_dict()), own])
    (model.path / "labels.json").unlink(missing_ok=True)
