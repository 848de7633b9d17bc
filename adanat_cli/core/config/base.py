"""What every configuration shares: a strict round trip through JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from adanat_cli.core.config.option import options_of
from adanat_cli.core.config.schema import build, field_types, in_words
from adanat_cli.core.errors import require

MAX_WIDTH = 2**16
"""Largest width of a layer: far beyond any network of this kind, and no product of two overflows."""
MAX_IMAGE_SIZE = 2**14
MAX_STEPS = 2**16

Sizes = Mapping[str, tuple[int, ...] | int]
"""Name of a tensor -> shape, or name of a numbered list of layers -> its length."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The numbers that a field can be, as part of its type: ``Annotated[int, Bounds(1)]``; they are finite.

    Attributes:
        least, most: bounds that a number may equal.
        above, below: bounds that it may not equal.
    """

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        words = {"at least": self.least, "more than": self.above, "at most": self.most, "less than": self.below}
        return " and ".join(f"{word} {bound:,}" for word, bound in words.items() if math.isfinite(bound))


Count = Annotated[int, Bounds(1)]
Natural = Annotated[int, Bounds(0)]
Width = Annotated[int, Bounds(1, MAX_WIDTH)]
Seed = Annotated[int, Bounds(0, below=2**63)]
"""What every generator takes: PyTorch's are the narrowest."""
Positive = Annotated[float, Bounds(above=0)]
NotNegative = Annotated[float, Bounds(0)]
Probability = Annotated[float, Bounds(0, 1)]
Decay = Annotated[float, Bounds(0, below=1)]


def check_fields(values: Any, noun: str = "") -> None:
    """Check what the types of a dataclass's fields say: one of a few words, or a number within bounds.

    Args:
        values: the dataclass; of a tuple, each number is checked, and None is always within bounds.
        noun: begins the message, where names of fields alone could mean others.

    Raises:
        AdaNATError: naming the field, and the flag where that has another name.
    """
    flags = {name: option.name for name, option in options_of(type(values)).items()}
    for name, hint in field_types(type(values), include_extras=True).items():  # type: ignore[arg-type]
        value = getattr(values, name)
        what = f"{noun} {name}".lstrip()
        flag = flags.get(name, "")
        if flag != f"--{name.replace('_', '-')}":
            what = f"{what} ({flag})" if flag else what
        elif not isinstance(values, Config):  # whose fields are keys of files as well
            what = flag
        check_value(value, hint, what)


def check_value(value: Any, hint: Any, what: str) -> None:
    """Check what a type with extras says of one value; ``what`` names it in the message.

    Raises:
        AdaNATError: if it is none of the words, or a number out of bounds.
    """
    if get_origin(hint) in (Union, UnionType):
        for one in get_args(hint) if value is not None else ():
            check_value(value, one, what)
    if get_origin(hint) is Literal:
        require(value in get_args(hint), f"{what} is {value!r}; expected {in_words(hint)}.")
    for bounds in getattr(hint, "__metadata__", ()):
        for number in value if isinstance(value, tuple) else (value,):
            require(number is None or number in bounds, f"{what} is {number}; expected {bounds}.")


@dataclasses.dataclass(frozen=True)
class Config:
    """A frozen dataclass that checks its fields when it is made, and round-trips through JSON."""

    noun: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_fields(self, self.noun)

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

    def sizes(self) -> Sizes:
        """Return what the weights must be like: the tensors and lists of layers that the settings decide.

        With it a configuration can be held against a file of weights before anything is built.
        """
        return {}

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed; changes that are None are left out."""
        kept = {key: value for key, value in changes.items() if value is not None}
        return dataclasses.replace(self, **kept)
