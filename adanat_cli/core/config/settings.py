"""Settled requests: what typed options, a resumed run, presets, data and machine come to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from adanat_cli.core.config.data import DataConfig
from adanat_cli.core.config.option import Asked
from adanat_cli.core.config.own_data import fitting_warmup
from adanat_cli.core.config.policy_training import DiscriminatorConfig, PolicyTrainingConfig, PPOConfig
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.config.tokenizer import PixelConfig, VQAEConfig
from adanat_cli.core.config.training import NATTrainingConfig, TokenizerTrainingConfig
from adanat_cli.core.config.training_requests import Kind

Settled = TypeVar(
    "Settled", TokenizerTrainingConfig, NATTrainingConfig, PolicyTrainingConfig, PPOConfig, DiscriminatorConfig
)


def given(fields: Asked) -> dict[str, Any]:
    """What was given of some fields."""
    return {key: value for key, value in fields.items() if value is not None}


def settled_config(kind: type[Settled], row: Asked, saved: Asked, asked: Asked) -> Settled:
    """Build a configuration: a preset's row, over it what a resumed run has saved, and over both what was typed.

    Raises:
        AdaNATError: if a setting is invalid.
    """
    asked, known = given(asked), {field.name for field in dataclasses.fields(kind)}
    kept = {key: value for key, value in saved.items() if key in known}
    fields = {**row, **kept, **asked}
    config = kind.from_dict(fields, "Settings")
    if isinstance(config, TokenizerTrainingConfig | NATTrainingConfig) and "warmup_steps" not in kept:
        fields["warmup_steps"] = fitting_warmup(config.steps, config.warmup_steps, "warmup_steps" in asked)
    return kind.from_dict(fields, "Settings")


@dataclass(frozen=True)
class TokenizerSettings:
    """One training by ``adanat train-tokenizer``, settled.

    Attributes:
        data: images to train on.
        tokenizer: shape of the autoencoder; pixels as tokens are written without training.
        training: settings that decide the result.
        output: run folder.
        workers: that decode images.
        half: whether to export 16-bit weights.
        device: cuda, mps or cpu; "" for the best one here.
        note: a line that says where its settings come from; "" for none.
    """

    data: DataConfig
    tokenizer: VQAEConfig | PixelConfig
    training: TokenizerTrainingConfig
    output: Path
    workers: int = 2
    half: bool = False
    device: str = ""
    note: str = ""


@dataclass(frozen=True)
class NATSettings:
    """One training by ``adanat pretrain-nat``, settled.

    Attributes:
        dataset: preset or source that the tokens come from; names the default model.
        tokens: folder of the token set.
        size: preset of the NAT.
        training: the settings that decide the result.
        output: run folder.
        model: whose tokenizer made the tokens; "" for the data set's own, else the default model.
        classes: ids or names to train on; empty takes all.
        accumulate: pieces that a process cuts its share of a batch into; 0 for as many as its memory asks for.
        device: "" for the best one here.
        half: whether to export 16-bit weights.
        text_encoder: of a set with captions: Hub id or folder; "" for the one that encoded them, else the benchmark's.
        note: a line that says where its settings come from; "" for none.
    """

    dataset: str
    tokens: Path
    size: str
    training: NATTrainingConfig
    output: Path
    model: str = ""
    classes: tuple[str, ...] = ()
    accumulate: int = 0
    device: str = ""
    half: bool = False
    text_encoder: str = ""
    note: str = ""


@dataclass(frozen=True)
class PolicySettings:
    """One training by ``adanat train-policy``, settled.

    Attributes:
        dataset: preset or source, for the settings that go with it.
        data: real images; its split and classes are set by the run.
        num_steps: T.
        kind: "adaptive", "static"; "search" for one table by black-box search, "tuned" for a small grid of factors.
        training, ppo, discriminator: settings that decide the result.
        policy: fields of the policy's configuration that differ from the defaults.
        base: schedule that a residual policy starts from: "cosine", "autonat:FILE" or "table:FILE".
        output: run folder.
        model: folder, name or Hub id; "" for the embedded model of the data set, or ``models/<dataset>``.
        install: whether to put the policy, and the network that measured it, into the model folder itself as well.
        preference_model: of the reward "preference".
        text_encoder: of a text-conditional model: Hub id or folder; "" for the model's own.
        workers: that decode images.
        device: "" for the best one here.
        note: a line that says where its settings come from; "" for none.
    """

    dataset: str
    data: DataConfig
    num_steps: int
    kind: Kind
    training: PolicyTrainingConfig
    ppo: PPOConfig
    discriminator: DiscriminatorConfig
    policy: dict[str, Any]
    output: Path
    base: str = "cosine"
    model: str = ""
    install: bool = False
    preference_model: str = ""
    text_encoder: str = ""
    workers: int = 2
    device: str = ""
    note: str = ""


@dataclass(frozen=True)
class SampleSettings(SampleRequest):
    """One run of ``adanat sample``, settled: where it writes, and how many images."""

    output: Path = Path("samples")
    num_images: int = 16
