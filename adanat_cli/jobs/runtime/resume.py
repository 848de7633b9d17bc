"""Resuming: a run that is started again continues only with the settings that it began with."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adanat_cli.core.config.schema import shown
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.reading import json_text

_HASH = re.compile("[0-9a-f]{64}")
"""A sha256; its first twelve digits are enough to distinguish two."""
_FILES = "files_digest"
_OF_FILES = frozenset({_FILES, "files", "labels_crc32", "source_images"})
"""Settings that change with the files of a data set; the first is the digest of their names, sizes and times."""
_RHYTHM = frozenset({"log_every", "save_every", "sample_every", "show_every"})
"""Settings that decide only when a training logs and saves, so that they may change."""


@dataclass(frozen=True)
class Length:
    """The setting that says how long a training is; it may grow, since it decides nothing of what is done before.

    Attributes:
        key: dotted name among the settings.
        fixed: why it may not grow; "" where it may.
    """

    key: str
    fixed: str = ""


def refuse_changes(
    saved: Mapping[str, Any], asked: Mapping[str, Any], folder: Path, content: str, length: Length | None = None
) -> None:
    """Raise if a folder holds the work of a run with other settings.

    Settings that were not recorded, because an earlier version did not have them yet, are not compared.

    Args:
        saved: settings of the earlier run; nested ones are compared key by key.
        asked: settings of this run.
        folder: where the work lies.
        content: what it is, such as "tokens".
        length: length of a training, which may also log and save at other times; None where every setting counts.

    Raises:
        AdaNATError: naming each setting that differs, with both values.
    """
    before, now = _flatten(saved), _flatten(json.loads(json_text(asked)))
    changed = [key for key in sorted(before) if before[key] != now.get(key)]
    advice = "repeat its settings to resume, or choose another --output"
    if length is not None:
        changed = [key for key in changed if _last(key) not in _RHYTHM]
        if length.key in changed:
            old, new = before[length.key], now.get(length.key)
            if isinstance(old, int) and isinstance(new, int) and old < new and not length.fixed:
                changed.remove(length.key)
            else:
                advice += f"; {length.fixed or 'a run may become longer, not shorter'}"
    if not changed:
        return
    names = set(map(_last, changed))
    if _FILES in names and names <= _OF_FILES:
        raise AdaNATError(
            f"The images have changed since {folder} was begun: names, sizes or modification times of their files "
            "differ. Restore them to resume, or choose another --output."
        )
    changes = ", ".join(f"{key} was {_shown(before[key])}, now {_shown(now.get(key))}" for key in changed)
    raise AdaNATError(f"{folder} holds {content} with other settings: {changes}; {advice}.")


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested settings into dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _shown(value: Any) -> str:
    if isinstance(value, str) and _HASH.fullmatch(value):
        value = value[:12]
    return "None" if value is None else shown(value)
