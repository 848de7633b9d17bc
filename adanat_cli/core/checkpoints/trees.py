"""Whole training states (weights, optimizer, counters) in one safetensors file, without pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from adanat_cli.core.checkpoints.files import load_tensors, save_tensors
from adanat_cli.core.errors import AdaNATError

_TENSOR = "__tensor__"
_INTEGER_KEYS = "__integer_keys__"


def save_tree(path: Path, tree: dict[str, Any]) -> None:
    """Write nested dicts and lists of tensors and JSON values, whole or not at all."""
    tensors: dict[str, Tensor] = {}
    structure = _split(tree, "", tensors)
    save_tensors(path, tensors, {"structure": json.dumps(structure)})


def load_tree(path: Path) -> dict[str, Any]:
    """Read what ``save_tree`` wrote.

    Raises:
        AdaNATError: if the file is missing, damaged or of another kind.
    """
    tensors = load_tensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            structure = json.loads((file.metadata() or {})["structure"])
    except (KeyError, ValueError, SafetensorError) as error:
        raise AdaNATError(f"{path} is not a training state of this toolkit.") from error
    return _join(structure, tensors)


def _split(node: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Move the tensors of a tree into ``tensors``, leaving their names in place."""
    if isinstance(node, Tensor):
        tensors[name] = node
        return {_TENSOR: name}
    if isinstance(node, dict):
        parts = {str(key): _split(value, f"{name}/{key}".lstrip("/"), tensors) for key, value in node.items()}
        return {_INTEGER_KEYS: parts} if node and all(isinstance(key, int) for key in node) else parts
    if isinstance(node, list | tuple):
        return [_split(value, f"{name}/{index}".lstrip("/"), tensors) for index, value in enumerate(node)]
    return node


def _join(node: Any, tensors: dict[str, Tensor]) -> Any:
    """Undo ``_split``."""
    if isinstance(node, list):
        return [_join(value, tensors) for value in node]
    if not isinstance(node, dict):
        return node
    if _TENSOR in node:
        return tensors[node[_TENSOR]]
    if _INTEGER_KEYS in node:
        return {int(key): _join(value, tensors) for key, value in node[_INTEGER_KEYS].items()}
    return {key: _join(value, tensors) for key, value in node.items()}
