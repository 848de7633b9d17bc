"""A random CLIP of two layers whose vocabulary is a handful of words, as a folder that transformers opens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


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
