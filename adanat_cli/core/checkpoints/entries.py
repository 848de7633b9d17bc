"""Which weights of a foreign file to take: averages or live weights, below any prefix of their names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from adanat_cli.core.checkpoints.foreign import ForeignWeights
from adanat_cli.core.errors import AdaNATError, printable

_AVERAGED = re.compile(r"(^|[._])(ema|swa|avg|averaged?|shadow)([._]|$)", re.IGNORECASE)
_WRAPPED = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Prefixes that PyTorch's wrappers add to the names of wrapped modules."""
_UNDOTTED = "model_ema."
"""Latent diffusion stores the average of ``encoder.conv_in.weight`` as ``model_ema.encoderconv_inweight``."""


def entries(weights: ForeignWeights, marks: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """Find all state dicts in a file that contain weights of given names, below any prefix.

    Args:
        weights: the file.
        marks: names by which a network is recognised.

    Returns:
        Entry -> state dict without the prefix. An entry is a location in the file, then the prefix: "model",
        "state_dict.module", "policy_old.actor"; "" if the file is the state dict.
    """
    found = {}
    for location, stored in weights.state_dicts.items():
        tensors = _dotted({_WRAPPED.sub("", name): tensor for name, tensor in stored.items()})
        heads = [name[: -len(marks[0])] for name in tensors if name.endswith(marks[0])]
        prefixes = [head for head in heads if head[-1:] in ("", ".") and all(head + mark in tensors for mark in marks)]
        for prefix in prefixes:
            inner = tuple(other for other in prefixes if other != prefix and other.startswith(prefix))
            found[".".join(filter(None, (location, prefix[:-1])))] = {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix) and not (inner and name.startswith(inner))
            }
    return found


def within(found: Collection[str], wanted: str) -> list[str]:
    """Return the wanted entry, else those within it; "" stands for all, and "." for the file itself."""
    exact = wanted.strip(".")
    if wanted and exact in found:
        return [exact]
    return [entry for entry in found if not wanted or (exact and entry.startswith(f"{exact}."))]


def is_averaged(entry: str) -> bool:
    """Whether an entry is named as an average over training."""
    return bool(_AVERAGED.search(entry))


def choose(found: Sequence[str], source: str, preferred: str = "") -> str:
    """Choose the average if there is one.

    Args:
        found: entries, at least one.
        source: the file, for the message.
        preferred: part of an entry's name that is preferred to others.

    Raises:
        AdaNATError: if several remain.
    """
    best = sorted(found, key=lambda entry: _rank(entry, preferred))
    rest = [entry for entry in best if _rank(entry, preferred) == _rank(best[0], preferred)]
    if len(rest) > 1:
        raise AdaNATError(
            f"{source} holds weights at {', '.join(map(shown, rest[:5]))}; choose one of them with --entry."
        )
    return best[0]


def shown(entry: str) -> str:
    """Name of an entry in a message."""
    return printable(entry[:100]) or ". (the file itself)"


def _rank(entry: str, preferred: str) -> tuple[bool, bool]:
    return not is_averaged(entry), bool(preferred) and preferred not in entry.split(".")


def _dotted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Restore the dots in the names of averages."""
    live = {name.replace(".", ""): name for name in tensors if _UNDOTTED not in name}
    renamed = {}
    for name, tensor in tensors.items():
        head, found, flat = name.rpartition(_UNDOTTED)
        full = live.get(head.replace(".", "") + flat) or live.get(head.replace(".", "") + "model" + flat)
        renamed[head + _UNDOTTED + full.removeprefix(head).removeprefix("model.") if found and full else name] = tensor
    return renamed
