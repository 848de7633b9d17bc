"""Where a run's data and models are: noted beside its settings, so that its ``config.json`` alone repeats it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from adanat_cli.core.checkpoints.files import write_json
from adanat_cli.core.config import DATA_PRESETS, DataConfig
from adanat_cli.core.config.schema import conform_fields
from adanat_cli.core.config.settings import given
from adanat_cli.core.config.training_requests import PretrainNATRequest, TrainPolicyRequest, TrainTokenizerRequest
from adanat_cli.core.errors import hide_secrets, require
from adanat_cli.core.reading import read_object
from adanat_cli.jobs.resolve.models import model_names

Request = TypeVar("Request", TrainTokenizerRequest, PretrainNATRequest, TrainPolicyRequest)
_FILE = "inputs.json"
"""File of a run folder that says where they are. It stays there: nobody else's business, unlike the settings."""


_PLACES = ("dataset", "model", "tokens", "text_encoder", "ref")
"""Fields of requests that name a preset, a model, a Hub id or a path; some requests lack some."""


@dataclass(frozen=True)
class _Noted:
    """Types of what the file holds; fields of requests have the same names."""

    dataset: str
    model: str
    tokens: str
    text_encoder: str
    ref: str
    classes: tuple[str, ...]
    data: Mapping[str, Any]


def with_inputs(request: Request) -> Request:
    """Complete a request that names no data by the inputs of the run that the file of ``--config`` is of.

    Raises:
        AdaNATError: if there are none, or they are damaged.
    """
    if not request.dataset:
        request = _completed(request)
    require(
        getattr(request, "tokens", "") is not None,
        "No --tokens was given; make a token set with `adanat tokenize`, and name it.",
    )
    return request


def _completed(request: Request) -> Request:
    require(request.config is not None, "No --dataset was given; name the data, or a run's config.json with --config.")
    file = Path(request.config or "").parent / _FILE
    require(
        file.is_file(),
        f"No --dataset was given, and no {file} says what data --config {request.config} was used on; name the data.",
    )
    noted = conform_fields(_Noted, read_object(file), str(file))
    require("dataset" in noted, f"No --dataset was given, and {file} holds none; name the data.")
    noted |= {name: Path(noted[name]) for name in ("tokens", "ref") if name in noted}
    data = conform_fields(DataConfig, noted.pop("data", {}), f"{file}: data")
    own = {name: value for name, value in noted.items() if hasattr(request, name) and not getattr(request, name)}
    if hasattr(request, "data"):
        own["data"] = {**data, **given(request.data)}
    return replace(request, **own)


def inputs_of(request: Request) -> dict[str, Any]:
    """The inputs of a request as JSON values, with whole paths; none where the data is a URL with secrets."""
    if hide_secrets(request.dataset) != request.dataset:
        return {}
    places = {name: str(getattr(request, name)) for name in _PLACES if getattr(request, name, None)}
    known = {*DATA_PRESETS, *model_names()}
    data = {
        name: _whole(value) if name == "data_dir" else value
        for name, value in given(getattr(request, "data", {})).items()
    }
    others = {"classes": list(getattr(request, "classes", ())), "data": data}
    return {
        **{name: place if place in known else _whole(place) for name, place in places.items()},
        **{name: value for name, value in others.items() if value},
    }


def note_inputs(run: Path, inputs: Mapping[str, Any]) -> None:
    """Write the inputs, if any, into a run folder."""
    if inputs:
        write_json(run / _FILE, dict(inputs))


def _whole(place: str) -> str:
    """A path that holds from every folder; a Hub id or URL as it is."""
    here = os.path.expanduser(place)
    return os.path.abspath(here) if os.path.exists(here) else place
