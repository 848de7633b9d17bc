"""Schedules in YAML files: AutoNAT's format, and ours with the names of the four values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

from adanat_cli.core.config.schema import shown
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.generation.actions import ACTION_NAMES
from adanat_cli.core.generation.schedules import AutoNATSchedule, TableSchedule
from adanat_cli.core.reading import read_yaml

Table = TypeVar("Table", bound=TableSchedule)
_RATIO, _REMASKING, _SAMPLING, _GUIDANCE = "manual_ratios", "manual_temp", "manual_samp_temp", "manual_cfg"

_MAX_BYTES, _MAX_DEPTH = 2**17, 3
"""Limits of a schedule file; enough for thousands of steps."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""A number of YAML 1.2, in which `5e-1` is one."""


def read_autonat(path: Path) -> AutoNATSchedule:
    """Read AutoNAT's format: T - 1 ratios and re-masking temperatures, T sampling temperatures and guidance scales.

    The last step's ratio and re-masking temperature are 0.

    Raises:
        AdaNATError: if the file is missing or is not such YAML, list lengths differ, or a value is out of range.
    """
    lists = _read_lists(path, (_RATIO, _REMASKING, _SAMPLING, _GUIDANCE))
    num_steps = len(lists[_SAMPLING])
    expected = {_RATIO: num_steps - 1, _REMASKING: num_steps - 1, _SAMPLING: num_steps, _GUIDANCE: num_steps}
    _check_lengths(path, lists, expected)
    columns = ([*lists[_RATIO], 0.0], lists[_SAMPLING], [*lists[_REMASKING], 0.0], lists[_GUIDANCE])
    return _build(path, AutoNATSchedule, list(zip(*columns, strict=True)))


def read_table(path: Path) -> TableSchedule:
    """Read T values of each of ``ACTION_NAMES``.

    Raises:
        AdaNATError: as ``read_autonat``.
    """
    lists = _read_lists(path, ACTION_NAMES)
    num_steps = len(lists[ACTION_NAMES[0]])
    _check_lengths(path, lists, dict.fromkeys(ACTION_NAMES, num_steps))
    return _build(path, TableSchedule, list(zip(*(lists[name] for name in ACTION_NAMES), strict=True)))


def write_table(path: Path, schedule: TableSchedule) -> None:
    """Write a schedule so that it reads back the same: in AutoNAT's format if it has AutoNAT's counting rule."""
    import yaml

    columns = dict(zip(ACTION_NAMES, schedule.table.T.tolist(), strict=True))
    if isinstance(schedule, AutoNATSchedule):
        ratios, sampling, remasking, guidance = columns.values()
        columns = {_RATIO: ratios[:-1], _REMASKING: remasking[:-1], _SAMPLING: sampling, _GUIDANCE: guidance}
    path.write_text(yaml.safe_dump(columns), encoding="utf-8")


def _build(path: Path, kind: type[Table], rows: list[tuple[float, ...]]) -> Table:
    """Build the schedule; errors about its values name the file."""
    try:
        return kind(rows)
    except AdaNATError as error:
        raise AdaNATError(f"Schedule file {path}: {error}") from error


def _read_lists(path: Path, keys: tuple[str, ...]) -> dict[str, list[float]]:
    """Read a YAML mapping of these keys to lists of numbers."""
    expected = f"expected YAML with the keys {', '.join(keys)}"
    require(path.exists(), f"Schedule file {path} does not exist; {expected}.")
    values = _read_yaml(path)
    missing = [key for key in keys if not isinstance(values, dict) or key not in values]
    require(len(missing) < len(keys), f"{path} is not a schedule file of this kind; {expected}.")
    require(not missing, f"Schedule file {path} lacks {', '.join(missing)}; {expected}.")
    return {key: _numbers(path, key, values[key]) for key in keys}


def _read_yaml(path: Path) -> Any:
    """Read lists and mappings whose scalars stay text, since YAML versions disagree on numbers and dates."""
    try:
        return read_yaml(path, _MAX_BYTES, _MAX_DEPTH, as_text=True)
    except AdaNATError as error:
        raise AdaNATError(f"Schedule file {error}") from error


def _numbers(path: Path, key: str, values: Any) -> list[float]:
    if isinstance(values, list) and all(isinstance(value, str) and _NUMBER.fullmatch(value) for value in values):
        return [float(value) for value in values]
    raise AdaNATError(
        f"Schedule file {path}: {key} is {shown(values)}; expected a list of numbers such as 0.5 or 1e-3."
    )


def _check_lengths(path: Path, lists: dict[str, list[float]], expected: dict[str, int]) -> None:
    if any(len(lists[key]) != length for key, length in expected.items()):
        found = ", ".join(f"{len(lists[key])} {key} (expected {length})" for key, length in expected.items())
        raise AdaNATError(f"Schedule file {path} has lists of the wrong length: {found}; correct the file.")
