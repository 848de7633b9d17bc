"""The shape of a tokenizer to train: as asked for, as a file or a resumed run has it, or as suits the data."""

from __future__ import annotations

from typing import Any

from adanat_cli.core.config import BENCHMARKS, TRAINING_PRESETS, PixelConfig, VQAEConfig
from adanat_cli.core.config import own_data as usual
from adanat_cli.core.config.own_data import Scale
from adanat_cli.core.config.settings import given
from adanat_cli.core.config.training_requests import TrainTokenizerRequest
from adanat_cli.core.errors import require

_CHANNELS = (32, 64, 128, 256, 256)
"""Widths per resolution; a tokenizer with downsampling 2^n takes the first n."""


def usual_tokenizer(
    request: TrainTokenizerRequest, image_size: int, scale: Scale, kept: dict[str, Any]
) -> VQAEConfig | PixelConfig:
    """The shape that was asked for; what of it was not, as ``kept`` of a resumed run or a file, or as usual."""
    typed = given({"codebook_size": request.codebook_size, "downsampling": request.downsampling})
    colour, is_pixels = request.colour or kept.get("colour", False), kept.get("kind") == "pixels"
    shape = {key: kept[key] for key in ("codebook_size",) if key in kept}
    if "channels" in kept or is_pixels:
        shape["downsampling"] = kept.get("patch", 1) if is_pixels else 2 ** len(kept["channels"])
    usual_shape = usual.usual_shape(scale, image_size, colour)
    if benchmark := BENCHMARKS.get(request.dataset):
        usual_shape = {"codebook_size": benchmark.codebook_size, "downsampling": benchmark.tokenizer().downsampling}
    preset = TRAINING_PRESETS.get(request.dataset, {}).get("shape", {})
    chosen = {**usual_shape, **preset, **shape, **typed}
    if is_pixels and request.downsampling is None:
        codes = chosen["codebook_size"]
        return PixelConfig(image_size=image_size, codebook_size=codes, colour=colour, patch=chosen["downsampling"])
    tokenizer = _tokenizer(image_size, colour=colour, **chosen)
    widths = () if request.downsampling is not None else ("channels",)
    if isinstance(tokenizer, VQAEConfig):
        tokenizer = tokenizer.replace(**{key: kept.get(key) for key in (*widths, "code_width", "num_res_blocks")})
    return tokenizer


def size_of(shape: dict[str, Any]) -> dict[str, int]:
    """Side of a tokenizer's images in pixels, as a setting of the data; empty where the shape lacks it."""
    return {"image_size": shape["image_size"]} if "image_size" in shape else {}


def _tokenizer(image_size: int, codebook_size: int, downsampling: int, colour: bool) -> VQAEConfig | PixelConfig:
    """The tokenizer with ``downsampling`` image pixels per token side."""
    require(
        downsampling in (1, 2, 4, 8, 16, 32),
        f"--downsampling is {downsampling}; expected 1, 2, 4, 8, 16 or 32 pixels per token side.",
    )
    if downsampling == 1 or colour:
        return PixelConfig(image_size=image_size, codebook_size=codebook_size, colour=colour, patch=downsampling)
    channels = _CHANNELS[: downsampling.bit_length() - 1]
    return VQAEConfig(image_size=image_size, codebook_size=codebook_size, channels=channels)
