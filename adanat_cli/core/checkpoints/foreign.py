"""Other people's weight files, read without ever running what a pickle asks for."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adanat_cli.core.checkpoints.files import load_tensors
from adanat_cli.core.errors import AdaNATError

_ALLOWED: list[Any] = [argparse.Namespace]
"""Classes beyond tensors and plain values that may be rebuilt: AdaNAT's training checkpoints hold their arguments."""

_WRAPPERS = ("model", "state_dict")
"""Entries under which the authors' programs put the weights."""


@dataclass(frozen=True)
class ForeignWeights:
    """The state dict of a foreign file.

    Attributes:
        path: the file.
        sha256: of the file's bytes.
        tensors: its weights, without wrapper entries and prefixes of parallel training.
        arguments: settings that the training program stored beside them, if any.
    """

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    arguments: dict[str, Any] = field(default_factory=dict)


def read_foreign(path: Path) -> ForeignWeights:
    """Load a file and find the weights in it.

    Raises:
        AdaNATError: if the file is missing, damaged, holds no weights, or needs code to be run.
    """
    tree = load_foreign(path)
    arguments = tree.get("args") if isinstance(tree, dict) else None
    stored = vars(arguments) if isinstance(arguments, argparse.Namespace) else {}
    return ForeignWeights(path, _sha256(path), _state_dict(tree, path), stored)


def load_foreign(path: Path) -> Any:
    """Load ``.safetensors`` or a PyTorch file to the CPU.

    Only tensors, plain values and ``argparse.Namespace`` are rebuilt; a pickle that asks for anything
    else is refused before it can run.

    Raises:
        AdaNATError: if the file is missing, damaged, or needs more than that.
    """
    if path.is_dir():
        raise AdaNATError(f"{path} is a folder; give the file of weights in it, such as {path / 'nnet_ema.pth'}.")
    if not path.is_file():
        raise AdaNATError(f"{path} does not exist; give the file of weights that was downloaded.")
    if path.suffix == ".safetensors":
        return load_tensors(path)
    try:
        with torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            # PyTorch warns about pickles of another protocol; they are read or refused like any other.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            # Mapped files stay on disk: of a training checkpoint only the policy is ever read.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise AdaNATError(_refusal(path, str(error))) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        # What a damaged pickle does to the unpickler is not specified.
        if "TorchScript" in str(error):
            raise AdaNATError(f"{path} is a TorchScript program, not a file of weights; give the weights.") from error
        raise AdaNATError(
            f"{path} is damaged or no PyTorch file ({type(error).__name__}); download it again."
        ) from error


def _refusal(path: Path, message: str) -> str:
    """Explain a refused pickle in one line."""
    asked = re.search(r"(?:GLOBAL|Unsupported class|Unsupported global: GLOBAL) ([\w.]+)", message)
    if asked:
        return (
            f"{path} is refused: beside tensors it asks for {asked[1]}, which would run code on loading; "
            "give a file that holds weights only, or convert it to safetensors where you trust it."
        )
    return f"{path} is refused: it is not a file of weights that can be read without running code, or it is damaged."


def _state_dict(tree: Any, path: Path) -> dict[str, Tensor]:
    """Find the mapping of names to tensors."""
    for wrapper in _WRAPPERS:
        if isinstance(tree, dict) and isinstance(tree.get(wrapper), dict):
            tree = tree[wrapper]
    if not isinstance(tree, dict) or not tree or not all(isinstance(value, Tensor) for value in tree.values()):
        found = f"entries {', '.join(map(str, list(tree)[:5]))}" if isinstance(tree, dict) else type(tree).__name__
        raise AdaNATError(
            f"{path} holds no state dict of weights; found {found or 'nothing'}, expected names with tensors, "
            f"possibly under {' or '.join(_WRAPPERS)}."
        )
    prefix = "module."
    if all(str(name).startswith(prefix) for name in tree):
        return {str(name)[len(prefix) :]: tensor for name, tensor in tree.items()}
    return {str(name): tensor for name, tensor in tree.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
