"""Training states (weights, optimizer, counters) in one safetensors file, without pickle."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from adanat_cli.core.checkpoints.files import load_tensors, raw_bytes, save_tensors
from adanat_cli.core.checkpoints.header import read_header
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.reading import parse_json

_TENSOR = "__tensor__"
_INTEGER_KEYS = "__integer_keys__"
_STRUCTURE, _HASH = "structure", "sha256"


def save_tree(path: Path, tree: dict[str, Any]) -> None:
    """Write nested dicts and lists of tensors and JSON values with their hash, completely or not at all."""
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_split(tree, "", tensors))
    save_tensors(path, tensors, {_STRUCTURE: structure, _HASH: _hash(structure, tensors)})


def load_tree(path: Path) -> dict[str, Any]:
    """Read a file of ``save_tree``.

    Raises:
        AdaNATError: if the file is missing, damaged or of another kind.
    """
    tensors = load_tensors(path)
    try:
        metadata = read_header(path).metadata
        structure = metadata[_STRUCTURE]
        # States of earlier versions have no hash.
        whole = metadata.get(_HASH) in (None, _hash(structure, tensors))
        tree = _join(parse_json(structure, "its structure", infinite=True), tensors)
    except (AdaNATError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise AdaNATError(f"{path} is not a training state of adanat; give a file of a run folder.") from error
    require(whole, f"{path} is damaged: its content does not match the hash that was written with it; remove it.")
    require(isinstance(tree, dict), f"{path} is not a training state of adanat; give a file of a run folder.")
    return dict(tree)


def check_tree(tree: Any, expected: Any, name: str = "") -> None:
    """Compare a saved state with that of newly built networks.

    Args:
        tree: saved state; it may have further parts, such as an optimizer's moments.
        expected: required parts, with tensors of these shapes and types.
        name: path of ``tree`` within the whole state.

    Raises:
        AdaNATError: naming the first part that is missing or differs.
    """
    if isinstance(expected, Tensor):
        there = isinstance(tree, Tensor) and (tree.shape, tree.dtype) == (expected.shape, expected.dtype)
        found = f"{tree.dtype} {tuple(tree.shape)}" if isinstance(tree, Tensor) else type(tree).__name__
        require(there, f"{name} is {found}, expected {expected.dtype} {tuple(expected.shape)}")
    elif isinstance(expected, dict):
        require(isinstance(tree, dict) and expected.keys() <= tree.keys(), f"{name or 'it'} lacks some of its parts")
        for key, part in expected.items():
            check_tree(tree[key], part, f"{name}/{key}".lstrip("/"))
    elif isinstance(expected, list | tuple):
        require(isinstance(tree, list) and len(tree) == len(expected), f"{name} does not have {len(expected)} parts")
        for index, part in enumerate(expected):
            check_tree(tree[index], part, f"{name}/{index}")


def _hash(structure: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(structure.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(raw_bytes(tensors[name]))
    return digest.hexdigest()


def _split(node: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Move the tensors of a tree into ``tensors``, and put their names in their places."""
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
