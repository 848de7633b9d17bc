"""``model_index.json``: the components of a model, where they came from, and its measured results."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from adanat_cli.core.config.base import MAX_IMAGE_SIZE
from adanat_cli.core.config.schema import build, shown
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.reading import parse_json

FORMAT_VERSION = 1
COMPONENT = re.compile(r"[a-z][a-z0-9_]*(/[a-z][a-z0-9_-]*)?")
POLICY = re.compile(r"policies/steps-([1-9]\d{0,5})")


@dataclass(frozen=True)
class ModelIndex:
    """The fields of ``model_index.json``.

    Attributes:
        format_version: version of the file format.
        image_size: side of the images in pixels; 0 until a component sets it.
        components: names such as "tokenizer", "nat", "policies/steps-8", sorted.
        provenance: component -> where its weights came from.
        results: measured results, one mapping each.
    """

    format_version: int = FORMAT_VERSION
    image_size: int = 0
    components: tuple[str, ...] = ()
    provenance: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    results: tuple[Mapping[str, str | bool | int | float | None], ...] = ()


@lru_cache(maxsize=8)
def read_index(content: bytes, file: Path) -> ModelIndex:
    """Check the bytes of a model index.

    A command asks for its model's index dozens of times, and one with many results takes some 30 ms; the same bytes
    are read once.

    Raises:
        AdaNATError: if they are damaged or of another version.
    """
    return parse_index(parse_json(content, str(file)), file)


def parse_index(values: Any, file: Path) -> ModelIndex:
    """Check the JSON values of a model index; fields that are not known are ignored.

    Raises:
        AdaNATError: if they are damaged or of another version.
    """
    version = values.get("format_version") if isinstance(values, dict) else None
    if type(version) is not int:
        raise AdaNATError(f"{file} is not a model index: it has no format_version; give a folder that adanat wrote.")
    if version != FORMAT_VERSION:
        raise AdaNATError(
            f"{file} has format version {version}, but this adanat reads version {FORMAT_VERSION}; upgrade adanat, or "
            "use the model in the older format."
        )
    try:
        known = {name: values[name] for name in values if name in ModelIndex.__dataclass_fields__}
        index = build(ModelIndex, known, "a field")
        require(0 <= index.image_size <= MAX_IMAGE_SIZE, f"image_size is {index.image_size}.")
    except AdaNATError as error:
        raise AdaNATError(f"{file} is damaged ({error}); fetch or import the model again.") from error
    for name in index.components:
        require(
            bool(COMPONENT.fullmatch(name)),
            f"{file} lists a component with an invalid name, {shown(name)}; fetch the model again.",
        )
    return index


def component_order(name: str) -> tuple[str, int]:
    """Sort key of a component: tokenizer and nat come first, policies by number of steps."""
    if match := POLICY.fullmatch(name):
        return "policies", int(match[1])
    return {"tokenizer": "0", "nat": "1", "text": "2"}.get(name, name), 0
