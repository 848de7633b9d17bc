"""Where this process stands in a group that a launcher has started, by the environment; no PyTorch is needed."""

from __future__ import annotations

import os

from adanat_cli.core.errors import AdaNATError, require

_PLACE = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def is_main_process() -> bool:
    """Whether this process is alone, or the first of its group."""
    return rank() == 0


def rank() -> int:
    """Number of this process in its group; 0 where it is alone, whatever a launcher has left in the environment."""
    return _number("RANK") if num_processes() > 1 else 0


def num_processes() -> int:
    """Processes of the group, 1 where there is none."""
    return _number("WORLD_SIZE") if "WORLD_SIZE" in os.environ else 1


def settle_group() -> None:
    """Let the environment tell of a whole group or of none: what a launcher has left over is dropped.

    Raises:
        AdaNATError: if it tells of several processes, but not of this one's place among them.
    """
    size = num_processes()
    if size <= 1:
        for name in (*_PLACE, "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            os.environ.pop(name, None)
        return
    missing = [name for name in _PLACE if not os.environ.get(name)]
    require(
        not missing,
        f"WORLD_SIZE is {size} in the environment, which lacks {', '.join(missing)}, so it tells of no whole group of "
        "processes; start them with `adanat --nproc N` or torchrun, or unset WORLD_SIZE.",
    )
    require(0 <= rank() < size, f"RANK is {rank()}; expected 0 to {size - 1}, for WORLD_SIZE is {size}.")
    _number("LOCAL_RANK")


def _number(name: str) -> int:
    text = os.environ.get(name, "0")
    try:
        return int(text)
    except ValueError as error:
        raise AdaNATError(f"{name} is {text!r} in the environment; expected a number, or nothing.") from error
