"""The file of ``--config``: read, and joined with what was typed where that is more than a configuration."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from adanat_cli.core.checkpoints.folder import policy_component
from adanat_cli.core.config import PolicyConfig
from adanat_cli.core.config.config_file import POLICY_SHAPE, Command, ConfigFile, config_file, with_defaults
from adanat_cli.core.config.option import Asked
from adanat_cli.core.config.settings import given
from adanat_cli.core.config.training_requests import PREFERENCE_MODEL, TrainPolicyRequest, TrainTokenizerRequest
from adanat_cli.core.errors import AdaNATError, hide_secrets, require
from adanat_cli.core.reading import read_json, read_yaml
from adanat_cli.jobs.resolve.models import resolve_model
from adanat_cli.jobs.train.run_folder import recorded_settings
from adanat_cli.jobs.train.start import remembered_start

_STEPS = 8
"""Generation steps of a policy where none are given."""
_POLICY_SHAPE = ("hidden_width", "residual", "smoothing", "base_floor")
"""Fields of a policy's shape that a resumed run always keeps."""


def read_config(path: Path | None, command: Command) -> ConfigFile:
    """Read the settings of a training; none where there is no file.

    Raises:
        AdaNATError: if it is missing or damaged, or a setting is unknown or invalid.
    """
    if path is None:
        return ConfigFile()
    kind = path.suffix.lower()
    require(
        kind in (".yaml", ".yml", ".json"),
        f"--config {path} ends in {kind or 'no suffix'}; expected a file .yaml, .yml or .json, such as the "
        "config.json of a run.",
    )
    require(path.is_file(), f"--config {path} is not a file; give one such as the config.json of a run.")
    values = read_json(path) if kind == ".json" else read_yaml(path)
    require(values is not None, f"--config {path} holds no settings; leave it out, or see --print-config.")
    return config_file(values, str(path), command)


def chosen_start(asked: str, file: ConfigFile, component: str, output: Path) -> str:
    """Name of the model to start from: as typed, or that of the file's run; "" for none, or where this run has begun.

    Raises:
        AdaNATError: if it cannot be found, or its weights are others now.
    """
    origin, source = file.origin, f"{file.name}: from"
    if asked or not origin.model or recorded_settings(output):
        return asked
    run = Path(file.name)
    place = (remembered_start(run.parent) if run.name == "config.json" else "") or origin.model
    try:
        folder = resolve_model(place)
    except AdaNATError as error:
        raise AdaNATError(
            f"{source}: the run started from {origin.model!r}, which is not found here; give its folder or Hub id with "
            "--from."
        ) from error
    now = folder.fingerprint(component) if folder.has(component) else ""
    require(
        now == origin.weights or not origin.weights,
        f"{source}: the {component} of {origin.model!r} was {origin.weights[:12]}, and is {now[:12] or 'missing'} now; "
        "give another model with --from.",
    )
    return place


def policy_request(request: TrainPolicyRequest) -> tuple[TrainPolicyRequest, int, ConfigFile]:
    """What was typed, completed by the file of ``--config`` in what is no part of a configuration.

    Returns:
        The request, its number of steps, and the file.

    Raises:
        AdaNATError: as ``read_config`` and ``chosen_start``.
    """
    file = read_config(request.config, "train-policy")
    single, steps = file.single, file.part("policy").settings.get("num_steps")
    num_steps = next(number for number in (request.num_steps, steps, _STEPS) if number is not None)
    request = with_defaults(
        request,
        num_steps=(num_steps, None),
        preference_model=(single.get("preference_model"), PREFERENCE_MODEL),
        kind=(single.get("kind"), None),
    )
    folder = request.output or policy_output(request, request.kind or "adaptive")
    start = chosen_start(request.start, file, policy_component(num_steps), folder)
    return replace(request, start=start), num_steps, file


def policy_output(request: TrainPolicyRequest, kind: str) -> Path:
    """The run folder that is usual."""
    return Path("runs") / f"policy-{Path(hide_secrets(request.dataset)).name}-{kind}-{request.num_steps}"


def kept_policy_shape(saved: dict[str, Any], file: ConfigFile, request: TrainPolicyRequest) -> dict[str, Any]:
    """Fields of a new policy's shape that a resumed run or a file gives; of a base schedule that was typed, none."""
    usual_shape = {field.name: field.default for field in fields(PolicyConfig)}
    settings = file.part("policy").settings
    was = {
        key: value
        for key, value in saved.get("policy", {}).items()
        if key in POLICY_SHAPE and (key in _POLICY_SHAPE or value != usual_shape[key])
    }
    without = ("num_steps", *(("schedule", "schedule_table") if request.base else ()))
    return {key: value for key, value in {**was, **settings}.items() if key not in without}


def typed_of_policy(request: TrainPolicyRequest) -> list[str]:
    """Dotted names of settings that were typed, and are no repetition of a file's."""
    typed = {
        ("policy.num_steps", "policy.schedule_table"): request.num_steps,
        ("kind", "policy.kind"): request.kind,
        ("policy.schedule", "policy.schedule_table"): request.base,
        ("preference_model",): request.preference_model,
        ("reference",): request.ref,
        ("from",): request.start or None,
    }
    names = [name for names, value in typed.items() if value is not None for name in names]
    return [*names, *(f"policy.{name}" for name in given(request.policy)), *_typed_of_data(request.data)]


def _typed_of_data(data: Asked) -> list[str]:
    return [f"{part}.{name}" for name in given(data) for part in ("data", "tokenizer")]


def typed_of_tokenizer(request: TrainTokenizerRequest) -> list[str]:
    """Dotted names of settings that were typed, and are no repetition of a file's."""
    names = {
        "tokenizer.codebook_size": request.codebook_size,
        "tokenizer.channels": request.downsampling,
        "from": request.start or None,
        "tokenizer": request.colour or None,
    }
    return [*(name for name, value in names.items() if value is not None), *_typed_of_data(request.data)]
