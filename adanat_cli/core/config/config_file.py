"""Settings of a training from a file, as a run's own ``config.json`` holds them.

Some of what a run records follows from its data, such as the grid of a token set. That is no setting: it is compared
with what this run finds, and a difference is reported.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from adanat_cli.core.config.base import check_value
from adanat_cli.core.config.data import DataConfig
from adanat_cli.core.config.nat import NATConfig
from adanat_cli.core.config.option import Asked, options_of
from adanat_cli.core.config.policy import PolicyConfig
from adanat_cli.core.config.policy_training import DiscriminatorConfig, PolicyTrainingConfig, PPOConfig
from adanat_cli.core.config.schema import conform, field_types, shown
from adanat_cli.core.config.tokenizer import PixelConfig, VQAEConfig
from adanat_cli.core.config.training import NATTrainingConfig, TokenizerTrainingConfig
from adanat_cli.core.config.training_requests import Kind
from adanat_cli.core.errors import AdaNATError, nearest

Command = Literal["train-tokenizer", "pretrain-nat", "train-policy"]

NAT_SHAPE = ("width", "depth", "num_heads", "mlp_ratio", "dropout")
"""Fields of a NAT's shape that are settings; the others follow from tokens and text encoder."""
_ELSEWHERE = "files_digest"
"""Digest of a data set's files with their times, so that the same images elsewhere have another."""


@dataclass(frozen=True)
class Origin:
    """The weights that a run started from: name of the model, and fingerprint of its component."""

    model: str = ""
    weights: str = ""


@dataclass(frozen=True)
class _Section:
    """One section of a configuration.

    Attributes:
        kind: dataclass whose fields give the types.
        settings: keys that are settings.
        recorded: keys that follow from the data.
    """

    kind: type[Any]
    settings: tuple[str, ...]
    recorded: tuple[str, ...] = ()


def _section(kind: type[Any], *settings: str) -> _Section:
    """A section of all of a dataclass's fields; without names, all are settings."""
    names = tuple(field_types(kind))  # type: ignore[arg-type]
    return _Section(kind, settings or names, tuple(name for name in names if name not in settings) if settings else ())


_IMAGES = ("source", "split", "classes", "share", "source_images", "labels_crc32", _ELSEWHERE)
_TOKENS = ("source", "has_flips", "num_images", "crc32", "captions_crc32")
_OF_DATA = tuple(name for name in options_of(DataConfig) if name != "split")
_OF_IMAGES = tuple(name for name in _OF_DATA if name != "image_size")
POLICY_SHAPE = (
    *("num_steps", "hidden_width", "residual", "smoothing", "base_floor", "schedule", "schedule_table"),
    *("sampling_temperature", "remask_temperature", "guidance_scale"),
)
_TOKENIZER = {
    "vqae": _section(VQAEConfig, "image_size", "codebook_size", "code_width", "channels", "num_res_blocks", "kind"),
    "pixels": _section(PixelConfig),
}
_SECTIONS: dict[Command, dict[str, _Section]] = {
    "train-tokenizer": {
        "data": _Section(DataConfig, _OF_DATA, _IMAGES),
        "tokenizer": _TOKENIZER["vqae"],
        "training": _section(TokenizerTrainingConfig),
        "from": _section(Origin),
    },
    "pretrain-nat": {
        "nat": _section(NATConfig, *NAT_SHAPE),
        "training": _section(NATTrainingConfig),
        "data": _Section(DataConfig, (), _TOKENS),
        "from": _section(Origin),
    },
    "train-policy": {
        "policy": _section(PolicyConfig, *POLICY_SHAPE),
        "training": _section(PolicyTrainingConfig),
        "data": _Section(DataConfig, _OF_IMAGES, _IMAGES),
        "ppo": _section(PPOConfig),
        "discriminator": _section(DiscriminatorConfig),
        "from": _section(Origin),
    },
}
_SINGLE: dict[Command, dict[str, Any]] = {
    "train-tokenizer": {},
    "pretrain-nat": {},
    "train-policy": {"kind": Kind, "preference_model": str, "reference": str},
}
"""Settings that lie in no section, with their types."""


@dataclass(frozen=True)
class Part:
    """Settings of one section of a file; ``source`` names both in messages."""

    settings: Asked = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class Record:
    """What a file says of the run that it is of, to be held against this one.

    Attributes:
        file: name of the file; "" for none.
        values: by dotted name, without what was typed otherwise.
    """

    file: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    def difference(self, settings: Mapping[str, Any]) -> str:
        """Say in which of these settings of a run, which are JSON values, it is no repetition; "" where it is one."""
        found = dict(_flat(settings))
        pairs = [(key, value, found[key]) for key, value in self.values.items() if key in found]
        others = [f"{key} is {shown(was)} there, {shown(now)} here" for key, was, now in pairs if was != now]
        return f"This is not a repetition of {self.file}: {', '.join(others)}." if others else ""


@dataclass(frozen=True)
class ConfigFile:
    """The settings of one training that a file gives.

    Attributes:
        name: name of the file; "" for none.
        parts: settings by section.
        single: those that lie in no section.
        values: all that the file holds, by section.
    """

    name: str = ""
    parts: Mapping[str, Part] = field(default_factory=dict)
    single: Asked = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)

    def part(self, section: str) -> Part:
        """The settings of a section; none where the file lacks it."""
        return self.parts.get(section, Part())

    @property
    def origin(self) -> Origin:
        """The weights to start from, if any."""
        return Origin(**self.part("from").settings)

    def record(self, typed: Collection[str]) -> Record:
        """What the file says of its run, but for dotted names and sections that were typed otherwise."""
        how = {"training", "ppo", "discriminator"}  # settings alone, which this run has taken
        plain = _flat(json.loads(json.dumps({name: part for name, part in self.values.items() if name not in how})))
        without = {*typed, f"data.{_ELSEWHERE}"}
        return Record(self.name, {key: value for key, value in plain if not {key, key.partition(".")[0]} & without})


def config_file(values: Any, name: str, command: Command) -> ConfigFile:
    """Check the settings of a training.

    Args:
        values: content of the file.
        name: name of the file, for messages.
        command: the training.

    Raises:
        AdaNATError: naming file, key, what came and what was expected.
    """
    given, single = conform(values, Mapping[str, Any], name), _SINGLE[command]
    sections = dict(_SECTIONS[command])
    for key in given:
        if key not in sections and key not in single:
            raise AdaNATError(f"{name}: unknown setting {key}{_hint(key, command)}.")
    if "tokenizer" in given and "tokenizer" in sections:
        sections["tokenizer"] = _tokenizer_section(given["tokenizer"], f"{name}: tokenizer")
    parts, checked = (
        {},
        {key: conform(given[key], hint, f"{name}: {key}") for key, hint in single.items() if key in given},
    )
    whole: dict[str, Any] = dict(checked)
    for key, section in sections.items():
        if key in given:
            source = f"{name}: {key}"
            whole[key] = _checked(section, given[key], source)
            parts[key] = Part({one: value for one, value in whole[key].items() if one in section.settings}, source)
    return ConfigFile(name, parts, checked, whole)


def as_config(values: Mapping[str, Any], command: Command) -> dict[str, Any]:
    """The settings of a training, to be written to a file: what of a plan's values ``config_file`` takes as such."""
    sections = dict(_SECTIONS[command])
    if "tokenizer" in sections:
        sections["tokenizer"] = _TOKENIZER[values["tokenizer"]["kind"]]
    chosen = {key: values[key] for key in _SINGLE[command] if key in values}
    for key, section in sections.items():
        if kept := {name: value for name, value in values.get(key, {}).items() if name in section.settings}:
            # What is empty says as much as what is missing.
            chosen[key] = {name: value for name, value in kept.items() if key != "data" or value != ""}
    return {key: value for key, value in chosen.items() if value != {}}


def _checked(section: _Section, values: Any, source: str) -> dict[str, Any]:
    """Settings whose names are known, whose types fit and which lie within bounds."""
    hints = field_types(section.kind, include_extras=True)  # type: ignore[arg-type]
    known, types = (*section.settings, *section.recorded), field_types(section.kind)  # type: ignore[arg-type]
    given = conform(values, Mapping[str, Any], source)
    for key, value in given.items():
        if key not in known:
            flags = {option.name[2:].replace("-", "_"): name for name, option in options_of(section.kind).items()}
            meant = flags[key] if flags.get(key) in known else nearest(key, known)
            hint = f"; did you mean {meant}?" if meant else "."
            raise AdaNATError(f"{source}: unknown setting {key}{hint} Known: {', '.join(sorted(known))}.")
        if key in hints:
            given[key] = conform(value, types[key], f"{source}: {key}")
            check_value(given[key], hints[key], f"{source}: {key}")
    return given


def _tokenizer_section(values: Any, source: str) -> _Section:
    kind = values.get("kind", "vqae") if isinstance(values, Mapping) else "vqae"
    if not isinstance(kind, str) or kind not in _TOKENIZER:
        raise AdaNATError(f"{source}: kind is {shown(kind)}; expected {' or '.join(map(repr, _TOKENIZER))}.")
    return _TOKENIZER[kind]


def _hint(key: str, command: Command) -> str:
    """Where an unknown name at the top belongs, or what it may stand for."""
    sections = _SECTIONS[command]
    inside = [name for name, section in sections.items() if key in section.settings]
    if inside:
        return f"; it belongs below {' or '.join(inside)}"
    others = [other for other in _SECTIONS if key in _SECTIONS[other] or key in _SINGLE[other]]
    if others:
        return f", which is one of adanat {others[0]}; known here: {', '.join([*sections, *_SINGLE[command]])}"
    meant = nearest(key, [*sections, *_SINGLE[command]])
    return f"; {f'did you mean {meant}? K' if meant else 'k'}nown: {', '.join([*sections, *_SINGLE[command]])}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def with_defaults(request: Any, **names: tuple[Any, Any]) -> Any:
    """Return a request whose fields that were not typed have a file's value, or else a default.

    Args:
        request: what was typed.
        names: name of a field -> its value in the file (None if it is not there), and the default.
    """
    chosen = {
        name: next((value for value in (getattr(request, name) or None, inside, default) if value is not None), None)
        for name, (inside, default) in names.items()
    }
    return dataclasses.replace(request, **chosen)
