"""The rank of this process in a group that a launcher has started, from the environment, without PyTorch."""

from __future__ import annotations

import os

from adanat_cli.core.errors import AdaNATError, require

_VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def is_main_process() -> bool:
    """Whether this process is alone, or the first of its group."""
    return rank() == 0


def rank() -> int:
    """Number of this process in its group; 0 if it is alone, whatever a launcher has left in the environment."""
    return _number("RANK") if num_processes() > 1 else 0


def num_processes() -> int:
    """Number of processes of the group; 1 if there is none."""
    return _number("WORLD_SIZE") if "WORLD_SIZE" in os.environ else 1


def settle_group() -> None:
    """Make the environment describe a complete group or none: what a launcher has left over is removed.

    Raises:
        AdaNATError: if it names several processes, but not the rank of this one.
    """
    size = num_processes()
    if size <= 1:
        for name in (*_VARIABLES, "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            os.environ.pop(name, None)
        return
    missing = [name for name in _VARIABLES if not os.environ.get(name)]
    require(
        not missing,
        f"WORLD_SIZE is {size} in the environment, which lacks {', '.join(missing)}, so the group of processes is "
        "incomplete; start it with `adanat --nproc N` or torchrun, or unset WORLD_SIZE.",
    )
    require(0 <= rank() < size, f"RANK is {rank()}; expected 0 to {size - 1}, since WORLD_SIZE is {size}.")
    _number("LOCAL_RANK")


def _number(name: str) -> int:
    text = os.environ.get(name, "0")
    try:
        return int(text)
    except ValueError as error:
        raise AdaNATError(f"{name} is {text!r} in the environment; expected a number, or nothing.") from error
