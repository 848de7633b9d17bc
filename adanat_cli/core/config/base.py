"""What every configuration shares: a strict round trip through JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from adanat_cli.core.errors import AdaNATError


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
            AdaNATError: if a field is unknown, missing or invalid.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - set(fields)):
            raise AdaNATError(f"{source}: unknown setting {', '.join(unknown)}; known: {', '.join(sorted(fields))}.")
        missing = [
            name
            for name, field in fields.items()
            if name not in values
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ]
        if missing:
            raise AdaNATError(f"{source}: missing setting {', '.join(missing)}.")
        tuples = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        try:
            return cls(**tuples)
        except (TypeError, ValueError) as error:
            raise AdaNATError(f"{source}: a setting is of the wrong type ({error}); write it again.") from error

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed; changes that are None are left out."""
        kept = {key: value for key, value in changes.items() if value is not None}
        return dataclasses.replace(self, **kept)
