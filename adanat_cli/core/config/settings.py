"""Settled requests: what typed options, a resumed run, presets, data and machine come to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from adanat_cli.core.config.config_file import Part, Record
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


def settled_config(kind: type[Settled], row: Asked, saved: Asked, file: Part, asked: Asked) -> Settled:
    """Build a configuration.

    Args:
        kind: which one.
        row: a preset's settings.
        saved: over them, those that a resumed run has saved.
        file: over them, those of ``--config``.
        asked: over all, what was typed.

    Raises:
        AdaNATError: if a setting is invalid.
    """
    asked, known = given(asked), {field.name for field in dataclasses.fields(kind)}
    kept = {key: value for key, value in saved.items() if key in known}
    fields = {**row, **kept, **file.settings}
    if file.settings:
        kind.from_dict(fields, file.source)  # what only fits with what was typed is a mistake, too
    fields |= asked
    config = kind.from_dict(fields, "Settings")
    if isinstance(config, TokenizerTrainingConfig | NATTrainingConfig) and "warmup_steps" not in kept:
        is_asked = "warmup_steps" in {**file.settings, **asked}
        fields["warmup_steps"] = fitting_warmup(config.steps, config.warmup_steps, is_asked)
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
        track: trackers that its numbers are also sent to.
        record: what the file of ``--config`` says of the run that it is of.
        inputs: where data and models are, for a file of the run folder.
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
    track: tuple[str, ...] = ()
    record: Record = field(default=Record(), compare=False)
    inputs: Asked = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class NATSettings:
    """One training by ``adanat pretrain-nat``, settled; what is not named here is as in its request.

    Attributes:
        size: preset of the NAT; "" with ``start`` for the shape of that model's.
        shape: fields of the NAT's shape that a file or a resumed run gives; the preset gives the others.
        start: model whose NAT it starts from; "" for random weights, or those that a resumed run started from.
        accumulate: gradient accumulation steps; 0 for as few as the memory of a process allows.
        gradient_checkpointing: whether backward computes the activations of blocks again.
        fsdp: whether processes share the weights and what belongs to them.
        compiled: whether the NAT is compiled.
        note: a line that says where its settings come from; "" for none.
        track: trackers that its numbers are also sent to.
        record: what the file of ``--config`` says of the run that it is of.
        inputs: where data and models are, for a file of the run folder.
    """

    dataset: str
    tokens: Path
    size: str
    training: NATTrainingConfig
    output: Path
    model: str = ""
    classes: tuple[str, ...] = ()
    accumulate: int = 0
    gradient_checkpointing: bool = False
    fsdp: bool = False
    compiled: bool = False
    device: str = ""
    half: bool = False
    text_encoder: str = ""
    note: str = ""
    start: str = ""
    shape: Asked = field(default_factory=dict)
    track: tuple[str, ...] = ()
    record: Record = field(default=Record(), compare=False)
    inputs: Asked = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class PolicySettings:
    """One training by ``adanat train-policy``, settled; what is not named here is as in its request.

    Attributes:
        data: real images; the run sets their split and classes.
        accumulate: gradient accumulation steps of PPO.
        ref: reference statistics to measure with; None for those of the data, in the features of a small network.
        policy: fields of the policy's configuration that differ from the defaults, or from the policy to start from.
        start: model whose policy it starts from; "" for random weights, or those that a resumed run started from.
        note: a line that says where its settings come from; "" for none.
        track: trackers that its numbers are also sent to.
        record: what the file of ``--config`` says of the run that it is of.
        inputs: where data and models are, for a file of the run folder.
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
    ref: Path | None = None
    model: str = ""
    install: bool = False
    half: bool = False
    preference_model: str = ""
    text_encoder: str = ""
    accumulate: int = 1
    workers: int = 2
    device: str = ""
    note: str = ""
    start: str = ""
    track: tuple[str, ...] = ()
    record: Record = field(default=Record(), compare=False)
    inputs: Asked = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class SampleSettings(SampleRequest):
    """One run of ``adanat sample``, settled: where it writes, and how many images."""

    output: Path = Path("samples")
    num_images: int = 16
