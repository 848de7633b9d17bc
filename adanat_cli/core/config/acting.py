"""On which kind of input, or with which reward, options act; what would do nothing is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from adanat_cli.core.config.option import Option, options_of
from adanat_cli.core.errors import require

CLASSES, PROMPTS, FOLDER, FILE, DATASET = "classes", "prompts", "folder", "file", "dataset"
"""Images of a model, by what conditions it; images that exist, as a folder or as one .npz; and images of a data set
that a model reconstructs."""
ADVERSARIAL, FID, PREFERENCE, RECOGNITION = "adversarial", "fid", "preference", "recognition"
"""Rewards of a policy that learns."""
REWARDS = frozenset({ADVERSARIAL, FID, PREFERENCE, RECOGNITION})
SAMPLE, TOKENIZE, TRAIN, POLICY = "sample", "tokenize", "train", "policy"
"""Work that ``adanat bench`` measures."""
MODEL = frozenset({CLASSES, PROMPTS})
"""Images of a model by either; prompts for a class model, or classes for a text model, are refused elsewhere."""


def refuse_idle(request: Any, what: str, *kinds: str, protocol: str = "") -> None:
    """Refuse options that are given, and would do nothing.

    Args:
        request: request of a command; an option counts as given where its field is not the default. Options that
            name no input act everywhere, or change no number anywhere: batch sizes, threads, and the device.
        what: the input or protocol in words, for the message.
        kinds: kinds of the input, for one of which an option must act; none if it is not known yet.
        protocol: protocol of the measurement; "" if it is not known yet.

    Raises:
        AdaNATError: naming them.
    """
    idle = [option for option in _given(request) if not _acts(option, set(kinds), protocol)]
    names = ", ".join(option.name for option in idle)
    purpose = f" {idle[0].purpose}: it" if len(idle) == 1 and idle[0].purpose else ""
    verb, it = ("has", "it") if len(idle) == 1 else ("have", "them")
    require(not idle, f"{names}{purpose} {verb} no meaning with {what}; leave {it} out.")


def _given(request: Any) -> Iterator[Option]:
    """Yield the options of a request, and of the configurations in it, that are given."""
    options = options_of(type(request))
    for field in fields(request):
        value, part = getattr(request, field.name), field.metadata.get("part")
        if part is not None:
            inner = options_of(part.kind)
            for one in (inner[name] for name, typed in value.items() if typed is not None and name in inner):
                yield replace(one, acts_on=part.acts_on or one.acts_on, purpose=part.purpose or one.purpose)
        elif field.name in options and value != field.default:
            yield options[field.name]


def _acts(option: Option, kinds: set[str], protocol: str) -> bool:
    on, protocols = option.acts_on, option.protocols
    return (not (kinds and on) or bool(kinds & on)) and (not (protocol and protocols) or protocol in protocols)
