"""On which kind of input each option of `sample`, `evaluate` and `stats` acts; what would do nothing is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from adanat_cli.core.errors import require

CLASSES, PROMPTS, FOLDER, FILE = "classes", "prompts", "folder", "file"
"""Images of a model, by what conditions it; and images that exist, as a folder or as one .npz."""
INCEPTION = frozenset({"adm", "paper", "clean"})
"""Protocols whose network is an Inception."""
_MODEL = frozenset({CLASSES, PROMPTS})
_ANY = _MODEL | {FOLDER, FILE}


@dataclass(frozen=True)
class Acting:
    """Where an option acts.

    Attributes:
        option: as it is typed.
        on: kinds of input.
        protocols: names; empty for all.
        purpose: what it does, where the refusal is clearer with it.
    """

    option: str
    on: frozenset[str] = _ANY
    protocols: frozenset[str] = frozenset()
    purpose: str = ""


# Of classes and prompts, the one that does not fit a model is refused where the model's conditions are made.
_DRAWN = {
    "steps": Acting("--steps", _MODEL),
    "num_steps": Acting("--steps", _MODEL),
    "schedule": Acting("--schedule", _MODEL),
    "schedules": Acting("--schedule", _MODEL),
    "temperature": Acting("--temperature", _MODEL),
    "guidance": Acting("--guidance", _MODEL),
    "classes": Acting("--class", _MODEL),
    "prompts": Acting("--prompts", _MODEL),
    "clip": Acting("--clip", frozenset({PROMPTS}), purpose="compares images with prompts"),
    "text_encoder": Acting("--text-encoder", frozenset({PROMPTS}), purpose="encodes prompts"),
    "seed": Acting("--seed", _MODEL),
    "precision": Acting("--precision", _MODEL),
    "record": Acting("--record", _MODEL),
}
_MEASURED = {"inception": Acting("--inception", protocols=INCEPTION, purpose="is for adm, paper and clean")}
ACTING: dict[str, Mapping[str, Acting]] = {
    "SampleRequest": _DRAWN,
    "EvaluateRequest": {**_DRAWN, **_MEASURED},
    "StatsRequest": _MEASURED,
}
"""By request and field. What is not here acts everywhere, or changes no number wherever it is given: batch sizes,
threads, and the device."""


def refuse_idle(request: Any, what: str, kind: str = "", protocol: str = "") -> None:
    """Refuse options that are given, and would do nothing.

    Args:
        request: of a command; an option is given where its field is not the default.
        what: the input or protocol in words, for the message.
        kind: of the input; "" if that is not known yet.
        protocol: by which is measured; "" if that is not known yet.

    Raises:
        AdaNATError: naming them.
    """
    defaults = {field.name: field.default for field in fields(request)}
    idle = [
        acting
        for name, acting in ACTING[type(request).__name__].items()
        if name in defaults and getattr(request, name) != defaults[name] and not _acts(acting, kind, protocol)
    ]
    names = ", ".join(acting.option for acting in idle)
    purpose = f" {idle[0].purpose}: it" if len(idle) == 1 and idle[0].purpose else ""
    require(not idle, f"{names}{purpose} has no meaning with {what}; leave it out.")


def _acts(acting: Acting, kind: str, protocol: str) -> bool:
    return (not kind or kind in acting.on) and (not (protocol and acting.protocols) or protocol in acting.protocols)
