"""On which kind of input options of `sample`, `evaluate` and `stats` act; what would do nothing is refused."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from adanat_cli.core.config.option import Option, options_of
from adanat_cli.core.errors import require

CLASSES, PROMPTS, FOLDER, FILE = "classes", "prompts", "folder", "file"
"""Images of a model, by what conditions it; and images that exist, as a folder or as one .npz."""
MODEL = frozenset({CLASSES, PROMPTS})
"""Images of a model by either; prompts for a class model, or classes for a text model, are refused elsewhere."""


def refuse_idle(request: Any, what: str, kind: str = "", protocol: str = "") -> None:
    """Refuse options that are given, and would do nothing.

    Args:
        request: request of a command; an option counts as given where its field is not the default. Options that
            name no input act everywhere, or change no number anywhere: batch sizes, threads, and the device.
        what: the input or protocol in words, for the message.
        kind: kind of the input; "" if it is not known yet.
        protocol: protocol of the measurement; "" if it is not known yet.

    Raises:
        AdaNATError: naming them.
    """
    defaults = {field.name: field.default for field in fields(request)}
    idle = [
        option
        for name, option in options_of(type(request)).items()
        if getattr(request, name) != defaults[name] and not _acts(option, kind, protocol)
    ]
    names = ", ".join(option.name for option in idle)
    purpose = f" {idle[0].purpose}: it" if len(idle) == 1 and idle[0].purpose else ""
    require(not idle, f"{names}{purpose} has no meaning with {what}; leave it out.")


def _acts(option: Option, kind: str, protocol: str) -> bool:
    on, protocols = option.acts_on, option.protocols
    return (not (kind and on) or kind in on) and (not (protocol and protocols) or protocol in protocols)
