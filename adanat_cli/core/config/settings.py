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
Run = TypeVar("Run")


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


def settled_as(kind: type[Run], request: Any, /, **settled: Any) -> Run:
    """Build settings of what is settled, and of a request's fields of the same names."""
    same = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    same &= {field.name for field in dataclasses.fields(request)}
    return kind(**{name: getattr(request, name) for name in same} | settled)


@dataclass(frozen=True)
class TokenizerSettings:
    """One training by ``adanat train-tokenizer``, settled; what is not named here is as in its request.

    Attributes:
        tokenizer: shape of the autoencoder; pixels as tokens are written without training.
        start: model whose tokenizer it starts from; "" for random weights, or those that a resumed run started from.
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
    start: str = ""


@dataclass(frozen=True)
class NATSettings:
    """One training by ``adanat pretrain-nat``, settled; what is not named here is as in its request.

    Attributes:
        size: preset of the NAT; "" with ``start`` for the shape of that model's.
        start: model whose NAT it starts from; "" for random weights, or those that a resumed run started from.
        accumulate: gradient accumulation steps; 0 for as few as the memory of a process allows.
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
    start: str = ""


@dataclass(frozen=True)
class PolicySettings:
    """One training by ``adanat train-policy``, settled; what is not named here is as in its request.

    Attributes:
        data: real images; the run sets their split and classes.
        policy: fields of the policy's configuration that differ from the defaults, or from the policy to start from.
        start: model whose policy it starts from; "" for random weights, or those that a resumed run started from.
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
    half: bool = False
    preference_model: str = ""
    text_encoder: str = ""
    workers: int = 2
    device: str = ""
    note: str = ""
    start: str = ""


@dataclass(frozen=True)
class SampleSettings(SampleRequest):
    """One run of ``adanat sample``, settled: where it writes, and how many images."""

    output: Path = Path("samples")
    num_images: int = 16
