"""Settings for data without a preset: what follows from the number of images and the machine.

Presets and what is typed come before them (``adanat_cli.jobs.train.settings`` joins the three). The numbers are round
ones around the two presets that were tried on small images, and the reference's for the largest sets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adanat_cli.core.config.nat import NAT_PRESETS
from adanat_cli.core.errors import require

Fields = dict[str, Any]
"""Fields of a configuration, or arguments of a training."""

_UNKNOWN_IMAGES = 100_000
"""Images that a stream, which is not counted, is taken to have."""
_FEW, _MANY = 5_000, 1_000_000
_NAT_SIZES = {
    "cpu": ((1_000, "nano"), (20_000, "micro"), (math.inf, "tiny")),
    "gpu": ((1_000, "nano"), (5_000, "micro"), (50_000, "tiny"), (_MANY, "small"), (math.inf, "large")),
}
"""Size of the NAT for fewer images than the number before it."""
_NAT_OPERATIONS = {"cpu": 2e14, "gpu": 2e19}
"""Floating-point operations of a whole training: an hour or so on two cores, a day or two on a large GPU."""
_TOKENIZER_IMAGES = {"cpu": 80_000, "gpu": 5_000_000}
"""Images of 64 x 64 pixels that a tokenizer's training sees at most: half an hour on two cores."""
_LARGEST_BATCH = {"cpu": 128, "gpu": 2048}
_IMAGE_SIZES = (16, 32, 64)
LARGEST_IMAGE = _IMAGE_SIZES[-1]
"""Side that images are cut to where nothing is known of them."""
_LARGEST_JUDGED_SMALL = 128
"""Pixels up to which a small classifier is trained."""


@dataclass(frozen=True)
class Scale:
    """What settings follow from.

    Attributes:
        num_images: images to train on; None for a stream, which is not counted.
        device: "cpu", or the kind of a GPU.
        memory: bytes of memory of the device; 0 if not known.
    """

    num_images: int | None
    device: str = "cpu"
    memory: int = 0

    @property
    def images(self) -> int:
        """Number of images to calculate with."""
        return _UNKNOWN_IMAGES if self.num_images is None else self.num_images

    @property
    def speed(self) -> str:
        """Row of the tables above."""
        return "cpu" if self.device == "cpu" else "gpu"

    def __str__(self) -> str:
        count = "an unknown number of" if self.num_images is None else f"{self.num_images:,}"
        return f"{count} images on {'a CPU' if self.device == 'cpu' else f'a GPU ({self.device})'}"


def usual_image_size(side: int) -> int:
    """Side of the centre crop for images with a shorter side of ``side`` pixels: 16, 32 or 64, whichever is nearest."""
    return min(_IMAGE_SIZES, key=lambda size: abs(math.log(size / max(side, 1))))


def usual_shape(scale: Scale, image_size: int, colour: bool = False) -> Fields:
    """``codebook_size`` and ``downsampling`` of a tokenizer: 8 x 8 tokens up to 64 pixels, 16 x 16 above."""
    side = 8 if image_size <= 64 else 16
    fitting = [pixels for pixels in (2, 4, 8, 16, 32) if image_size % pixels == 0] or [8]
    downsampling = min(fitting, key=lambda pixels: abs(math.log(image_size / pixels / side)))
    few = 256 if scale.images < _FEW else 1024
    return {"codebook_size": 512 if colour else few, "downsampling": downsampling}


def usual_tokenizer_training(scale: Scale, image_size: int, asked: Mapping[str, Any]) -> Fields:
    """Fields of ``TokenizerTrainingConfig``; every image is seen 50 times, within the machine's bounds."""
    largest = 32 if scale.speed == "cpu" or scale.images < _FEW else 64 if scale.images < 50_000 else 128
    batch = asked.get("batch_size") or largest
    most = _TOKENIZER_IMAGES[scale.speed] * (64 / image_size) ** 2
    steps = asked.get("steps") or _updates(min(max(50 * scale.images, 32_000), most), batch)
    return {
        "steps": steps,
        "batch_size": batch,
        "learning_rate": 1e-3,
        "decay": "cosine",
        "adversarial_start": max(1, round(0.55 * steps)),
        "ema_decay": usual_average(steps, 0.999),
        **_rhythm(steps, longest_warmup=500),
    }


def usual_nat(scale: Scale, num_tokens: int, asked: Mapping[str, Any]) -> Fields:
    """``size``, and fields of ``NATTrainingConfig``: every image is seen 200 times, within the machine's bounds.

    Args:
        scale: size of the data and the machine.
        num_tokens: N, tokens of an image.
        asked: fields that are settled already.
    """
    size = asked.get("size") or _nat_size(scale)
    batch = asked.get("batch_size") or _power_of_two(scale.images / 8, 32, _LARGEST_BATCH[scale.speed])
    seen = min(max(200 * scale.images, 100_000), _NAT_OPERATIONS[scale.speed] / (6 * _weights(size) * num_tokens))
    steps = asked.get("steps") or _updates(seen, batch)
    is_small = size in ("nano", "micro", "tiny")
    return {
        "size": size,
        "steps": steps,
        "batch_size": batch,
        "learning_rate": 2e-3 if is_small else 4e-4,
        "decay": "cosine",
        "code_init": 0.04 if is_small else 0.0,
        "ema_decay": usual_average(steps, 0.9999),
        "held_out": usual_held_out(scale),
        **_rhythm(steps, longest_warmup=5000),
    }


def usual_policy(scale: Scale, image_size: int, asked: Mapping[str, Any]) -> dict[str, Fields]:
    """A recipe (see ``RECIPES``): the small presets' on a CPU, the scale of the default one for a million images.

    Args:
        scale: size of the data and the machine.
        image_size: side of the images in pixels.
        asked: fields of the training that are settled already.
    """
    many, on_gpu = scale.images >= _FEW, scale.speed == "gpu"
    if not on_gpu:
        updates, trajectories, eval_images = 30, 256, 1000 if many else 500
    elif scale.images >= _MANY:
        updates, trajectories, eval_images = 1000, 1024, 5000
    else:
        updates, trajectories, eval_images = (300, 512, 2000) if many else (100, 256, 1000)
    updates, trajectories = asked.get("updates") or updates, asked.get("trajectories") or trajectories
    every = min(20, max(1, updates // 6))
    is_small = image_size <= _LARGEST_JUDGED_SMALL
    return {
        "training": {
            "updates": updates,
            "trajectories": trajectories,
            "paired": True,
            "eval_images": eval_images,
            "eval_every": every,
            "show_every": 2 * every,
            "save_every": every,
        },
        "ppo": {"minibatch": 2 * trajectories, "baseline": "pair", "learning_rate": 1e-3, "std": 0.4},
        "discriminator": {
            "backbone": "classifier" if is_small else "dino" if on_gpu else "pyramid",
            "batch_size": 128 if many else 64,
            "learning_rate": 1e-3 if is_small else 1e-4,
            "warmup_updates": 50,
        },
        "policy": {"hidden_width": 512 if on_gpu and scale.images >= _MANY else 128, "base_floor": 0.1},
    }


def usual_features(scale: Scale) -> Fields:
    """Arguments of a small classifier's training: every image is seen 50 times, in 1,000 updates at most."""
    return {"steps": min(1000, max(200, _updates(50 * scale.images, 64))), "batch_size": 64, "learning_rate": 2e-3}


def usual_evaluation(num_images: int | None, most: int) -> int:
    """Images that an evaluation generates: as many as there are to train on, from 1,000 to the field's number."""
    return most if num_images is None else min(most, max(1000, num_images))


def usual_held_out(scale: Scale) -> float:
    """Share of the images to measure on: none of fewer than 100, 5 % of some thousands, 1 % of more."""
    return 0.0 if scale.images < 100 else 0.05 if scale.images < _FEW else 0.01


def usual_average(steps: int, slowest: float) -> float:
    """Decay of the weights' moving average, which remembers about a tenth of the run."""
    return min(slowest, round(max(0.0, 1 - 10 / steps), 4))


def usual_warmup(steps: int, longest: int) -> int:
    """Updates until the peak rate: a twentieth of the run."""
    return min(longest, steps // 20)


def fitting_warmup(steps: int, warmup: int, is_asked: bool) -> int:
    """A warm-up that ends before the run does: a preset's is cut, one that was typed is refused.

    Raises:
        AdaNATError: if the warm-up that was typed is longer than the run.
    """
    if warmup <= steps:
        return warmup
    require(
        not is_asked,
        f"A warm-up of {warmup} updates is longer than the run of {steps}; give a smaller --warmup-steps, or more "
        "--updates.",
    )
    return usual_warmup(steps, warmup)


def _rhythm(steps: int, longest_warmup: int) -> Fields:
    return {
        "warmup_steps": usual_warmup(steps, longest_warmup),
        "log_every": min(50, max(10, steps // 40)),
        "save_every": min(500, max(50, steps // 10)),
        "sample_every": min(1000, max(50, steps // 5)),
    }


def _nat_size(scale: Scale) -> str:
    """By the number of images; a smaller one where weights and optimizer would fill a quarter of the memory."""
    sizes = [name for _, name in _NAT_SIZES[scale.speed]]
    rank = next(rank for rank, (below, _) in enumerate(_NAT_SIZES[scale.speed]) if scale.images < below)
    while rank and scale.memory and 4 * 20 * _weights(sizes[rank]) > scale.memory:
        rank -= 1
    return sizes[rank]


def _weights(size: str) -> int:
    """Parameters of a NAT's blocks, nearly all that it has; of the smallest where the name is not known."""
    shape = NAT_PRESETS.get(size, NAT_PRESETS["nano"])
    return int(12 * shape["width"] ** 2 * (shape["depth"] + 1))


def _updates(seen: float, batch: int) -> int:
    """Updates of ``batch`` images until ``seen`` are seen, at least 100, rounded to two digits."""
    steps = max(100, seen / batch)
    unit = 10 ** (math.floor(math.log10(steps)) - 1)
    return int(round(steps / unit) * unit)


def _power_of_two(value: float, low: int, high: int) -> int:
    return int(min(high, max(low, 2 ** round(math.log2(max(value, 1))))))
