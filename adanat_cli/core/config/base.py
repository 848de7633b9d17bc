"""What every configuration shares: a strict round trip through JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Self, get_args, get_origin

from adanat_cli.core.config.schema import build, field_types, in_words
from adanat_cli.core.errors import require

MAX_WIDTH = 2**16
"""Of a layer, in numbers; far beyond any network of this kind, near enough that no product of two overflows."""
MAX_IMAGE_SIZE = 2**14
MAX_STEPS = 2**16

Sizes = Mapping[str, tuple[int, ...] | int]
"""Name of a tensor -> shape, or name of a numbered list of layers -> its length."""


@dataclasses.dataclass(frozen=True)
class Config:
    """A frozen dataclass that validates itself in ``__post_init__`` and round-trips through JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values (tuples become lists)."""
        values = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> Self:
        """Build from JSON values.

        Args:
            values: the fields; lists become tuples.
            source: where the values came from, for the error message.

        Raises:
            AdaNATError: if a field is unknown, missing, of another type or invalid.
        """
        return build(cls, values, source)

    def check_choices(self) -> None:
        """Check the fields that are one of a few words.

        Raises:
            AdaNATError: naming the field.
        """
        for name, hint in field_types(type(self)).items():  # type: ignore[arg-type]
            if get_origin(hint) is Literal:
                value = getattr(self, name)
                require(value in get_args(hint), f"{name} is {value!r}; expected {in_words(hint)}.")

    def sizes(self) -> Sizes:
        """Return what the weights must be like: the tensors and lists of layers that the settings decide.

        With it a configuration can be held against a file of weights before anything is built.
        """
        return {}

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed; changes that are None are left out."""
        kept = {key: value for key, value in changes.items() if value is not None}
        return dataclasses.replace(self, **kept)


def require_within(what: str, value: float, least: float, most: float) -> None:
    """Refuse a setting that leaves its bounds, which are meant.

    Raises:
        AdaNATError: naming them.
    """
    require(least <= value <= most, f"{what} is {value}; expected at least {least} and at most {most:,}.")
