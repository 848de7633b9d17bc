"""``model_index.json``: which components a model has, where they are from, and what was measured of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adanat_cli.core.config.base import MAX_IMAGE_SIZE
from adanat_cli.core.config.schema import build, shown
from adanat_cli.core.errors import AdaNATError, require

FORMAT_VERSION = 1
COMPONENT = re.compile(r"[a-z][a-z0-9_]*(/[a-z][a-z0-9_-]*)?")
POLICY = re.compile(r"policies/steps-([1-9]\d{0,5})")


@dataclass(frozen=True)
class ModelIndex:
    """What ``model_index.json`` says.

    Attributes:
        image_size: side of the images in pixels; 0 while no component has told it.
        components: names such as "tokenizer", "nat", "policies/steps-8", sorted.
        provenance: component -> where its weights came from.
        results: measured results, one mapping each.
    """

    image_size: int = 0
    components: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    results: tuple[Mapping[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What ``parse_index`` reads."""
        return {
            "format_version": FORMAT_VERSION,
            "image_size": self.image_size,
            "components": list(self.components),
            "provenance": dict(self.provenance),
            "results": [dict(result) for result in self.results],
        }


@dataclass(frozen=True)
class _IndexFile:
    """The fields of ``model_index.json``."""

    format_version: int
    image_size: int = 0
    components: tuple[str, ...] = ()
    provenance: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    results: tuple[Mapping[str, str | bool | int | float | None], ...] = ()


def parse_index(values: Any, file: Path) -> ModelIndex:
    """Check the values of a model index."""
    version = values.get("format_version") if isinstance(values, dict) else None
    if type(version) is not int:
        raise AdaNATError(f"{file} is not a model index of this toolkit: it has no format_version.")
    if version != FORMAT_VERSION:
        raise AdaNATError(
            f"{file} has format version {version}; this toolkit reads version {FORMAT_VERSION}. "
            "Upgrade adanat, or take the model in the older format."
        )
    try:
        known = {name: values[name] for name in values if name in _IndexFile.__dataclass_fields__}
        told = build(_IndexFile, known, "a field")
        require(0 <= told.image_size <= MAX_IMAGE_SIZE, f"image_size is {told.image_size}.")
    except AdaNATError as error:
        raise AdaNATError(f"{file} is damaged ({error}); fetch or import the model again.") from error
    for name in told.components:
        if not COMPONENT.fullmatch(name):
            raise AdaNATError(f"{file} names a component {shown(name)} that cannot exist; fetch the model again.")
    return ModelIndex(told.image_size, told.components, told.provenance, told.results)
