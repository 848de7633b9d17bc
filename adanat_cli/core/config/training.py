"""Configurations of the two trainings that come before a policy: tokenizer and NAT."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from adanat_cli.core.config import shared
from adanat_cli.core.config.base import (
    MAX_IMAGE_SIZE,
    Bounds,
    Config,
    Count,
    Decay,
    Natural,
    NotNegative,
    Positive,
    Probability,
    Seed,
)
from adanat_cli.core.config.option import option
from adanat_cli.core.errors import require

Precision = Literal["auto", "fp32", "bf16"]

_MEASURES = "efficientnet_lite1"
"""Part of timm's names of the network of protocol efficientnet."""

_training = partial(option, panel="Training")
_batch_size = partial(_training, help="Images per update, over all processes.")
_warmup = partial(_training, help="Warm-up updates, in which the learning rate rises linearly to its peak.")
_ema_decay = partial(_training, help="Decay of the exponential moving average of the weights, which is exported.")


def _updates(default: int) -> Any:
    return _training(default, "--updates", former=("--steps",), help="Optimizer updates.")


@dataclass(frozen=True)
class _TrainingFields(Config):
    """What every training run has; all randomness of update n follows from (seed, n).

    ``precision`` "auto" measures bf16 against fp32.
    """

    steps: Count = _updates(10_000)
    batch_size: Count = _batch_size(128)
    learning_rate: Positive = _training(
        4e-4, help="Peak learning rate of Adam (AdamW for a NAT); with --from by default a quarter of the usual one."
    )
    warmup_steps: Natural = _warmup(500)
    decay: Literal["constant", "cosine"] = _training(
        "constant", help="Learning rate after the warm-up: constant, or a cosine that ends at 0."
    )
    ema_decay: Decay = _ema_decay(0.999)
    seed: Seed = shared.seed(show_default="0")
    precision: Precision = shared.precision(show_default="auto")
    log_every: Count = _training(50, help="Log every N updates.")
    save_every: Count = _training(500, help="Save the state every N updates.")
    sample_every: Count = _training(1000, help="Draw a grid of samples every N updates.")

    def learning_rate_at(self, update: int) -> float:
        """The rate of an update, counted from 0: linear warm-up, then constant or a cosine to zero.

        Updates 0 and 1 both use 0, as in AutoNAT's training, where the scheduler lags by one update.
        """
        done = max(update - 1, 0)
        rate = self.learning_rate * min(done / max(self.warmup_steps, 1), 1.0)
        if self.decay == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * min(update / self.steps, 1.0)))
        return rate


@dataclass(frozen=True)
class TokenizerTrainingConfig(_TrainingFields):
    """Training of the small VQ autoencoder.

    Attributes:
        reconstruction_weight: weight of the absolute plus squared error.
        commitment_weight: weight of the loss that pulls encoder outputs towards their codes.
        beta1, discriminator_beta1: beta1 of Adam for the autoencoder, and for the discriminator.
        discriminator_rate: learning rate of the discriminator as a share of ``learning_rate``; a larger one leaves
            grids in the images.
        codebook_decay: decay of the moving averages that update the code vectors.
    """

    reconstruction_weight: NotNegative = 1.0
    commitment_weight: NotNegative = 0.25
    beta1: Decay = 0.9
    discriminator: Literal["patch", "efficientnet"] = _training(
        "patch",
        help="patch (a small network that is trained from scratch) or efficientnet (also heads on a frozen "
        "EfficientNet-Lite0 with ImageNet weights, which is the perceptual backbone, too, then).",
        show_default="patch",
    )
    adversarial_weight: NotNegative = _training(0.02, help="Weight of the discriminator's loss; 0 for none.")
    adversarial_start: Natural = _training(2000, help="Update at which the discriminator's loss starts.")
    discriminator_rate: Positive = 0.2
    discriminator_beta1: Decay = 0.5
    perceptual_weight: NotNegative = _training(1.0, help="Weight of the perceptual loss; 0 for none.")
    perceptual_backbone: str = _training(
        "",
        former=("--perceptual",),
        help="Frozen network of a perceptual loss: efficientnet, or a timm backbone as NAME or NAME=FILE.safetensors.",
    )
    feature_size: Annotated[int, Bounds(32, MAX_IMAGE_SIZE)] = _training(
        96, help="Side in pixels to which smaller images are enlarged for efficientnet."
    )
    codebook_decay: Annotated[float, Bounds(above=0, below=1)] = 0.99
    freeze_encoder: bool = _training(
        False, help="Train the decoder of --from alone: the tokens of images, and NATs and policies, stay valid."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            _MEASURES not in self.perceptual_backbone.partition("=")[0],
            f"--perceptual-backbone {self.perceptual_backbone} is the network that `adanat evaluate --protocol "
            "efficientnet` measures with, and must not have trained what it measures; take another, such as "
            "efficientnet.",
        )

    @property
    def backbones(self) -> tuple[str, ...]:
        """The frozen networks that the losses read: efficientnet, or timm's names."""
        perceptual = self.perceptual_backbone if self.perceptual_weight > 0 else ""
        projected = "efficientnet" if self.discriminator == "efficientnet" and self.adversarial_weight > 0 else ""
        return tuple(dict.fromkeys(name for name in (projected, perceptual) if name))


PROJECTED_TRAINING: dict[str, Any] = {
    "learning_rate": 5e-4,
    "reconstruction_weight": 0.5,
    "beta1": 0.5,
    "adversarial_weight": 0.1,
    "discriminator_rate": 1.0,
    "discriminator_beta1": 0.0,
    "perceptual_backbone": "efficientnet",
}
"""Settings of ``TokenizerTrainingConfig`` that suit its discriminator efficientnet, before those of any data set."""


@dataclass(frozen=True)
class NATTrainingConfig(_TrainingFields):
    """Masked-token pre-training of the NAT (AdaNAT's NAT is AutoNAT's, arXiv 2406.05478).

    Attributes:
        weight_decay: weight decay of AdamW.
        mask_alpha, mask_beta: parameters of the Beta distribution of mask ratios.
        label_smoothing: label smoothing of the cross-entropy, in [0, 1].
        condition_dropout: probability that the condition is replaced by the null condition.
        flip: probability of taking the flipped image's tokens, where the token set has them.
        code_init: standard deviation of token embeddings that start as random projections of the tokenizer's code
            vectors, so that similar codes have similar embeddings; 0, the reference's, is random initialisation.
        held_out: fraction of the images to measure on, of which at most 1,024 are used.
    """

    steps: Count = _updates(500_000)
    batch_size: Count = _batch_size(2048)
    warmup_steps: Natural = _warmup(5000)
    ema_decay: Decay = _ema_decay(0.9999)
    beta1: Probability = _training(0.99, help="AdamW beta1.")
    beta2: Probability = _training(0.99, help="AdamW beta2.")
    weight_decay: NotNegative = 0.03
    mask_alpha: Positive = 12.0
    mask_beta: Positive = 3.0
    label_smoothing: Probability = 0.1
    condition_dropout: Probability = 0.15
    flip: Probability = 0.5
    code_init: NotNegative = _training(
        0.0,
        help="Standard deviation of token embeddings that start as random projections of the tokenizer's codes; 0 for "
        "random initialisation.",
    )
    held_out: Annotated[float, Bounds(0, 0.5)] = _training(
        0.01, help="Fraction of the images to hold out for evaluation; 0 for none."
    )


TRAINING_PRESETS: dict[str, dict[str, Any]] = {
    "digits": {
        "size": "nano",
        "shape": {"codebook_size": 64, "downsampling": 2},
        "tokenizer": {
            "steps": 1500,
            "batch_size": 64,
            "learning_rate": 2e-3,
            "warmup_steps": 100,
            "adversarial_start": 1000,
            "decay": "cosine",
        },
        "nat": {
            "steps": 4000,
            "batch_size": 128,
            "learning_rate": 2e-3,
            "warmup_steps": 100,
            "ema_decay": 0.99,
            "decay": "cosine",
            "code_init": 0.04,
            "flip": 0.0,
            "label_smoothing": 0.0,
            "held_out": 0.0,
        },
    },
    "imagenet64": {
        "size": "tiny",
        "shape": {"codebook_size": 1024, "downsampling": 8},
        "tokenizer": {
            "steps": 2600,
            "batch_size": 32,
            "learning_rate": 1e-3,
            "warmup_steps": 200,
            "adversarial_start": 1400,
            "decay": "cosine",
        },
        "nat": {
            "steps": 3600,
            "batch_size": 64,
            "learning_rate": 2e-3,
            "warmup_steps": 200,
            "ema_decay": 0.999,
            "decay": "cosine",
            "beta1": 0.9,  # with 0.99, the loss fell a seventh as far in 250 updates
            "code_init": 0.04,
        },
    },
}
"""Settings by data set that differ from the defaults above, for runs that a laptop finishes: the NAT's size, the
tokenizer's shape, and both trainings."""
