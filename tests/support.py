"""The analytic weights and inputs of the reference fixtures, rebuilt from names and shapes."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)
FIXTURES = Path(__file__).parent / "fixtures"


def fixture(name: str) -> dict[str, np.ndarray]:
    """Arrays of ``fixtures/<name>.npz``."""
    with np.load(FIXTURES / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def fixture_json(name: str) -> Any:
    """Values of ``fixtures/<name>.json``."""
    return json.loads((FIXTURES / f"{name}.json").read_text())


def wave(key: str, n: int) -> np.ndarray:
    """``sin(10000 sin(0.37 i + p))`` with p from the key, in float64."""
    phase = zlib.crc32(key.encode()) % 1000
    return np.sin(10000 * np.sin(0.37 * np.arange(n, dtype=np.float64) + phase))


def analytic_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """The value that the fixtures' rule gives a state-dict entry."""
    leaf, n = name.split(".")[-1], math.prod(shape)
    w = wave(name, n)
    if leaf == "running_var":
        values = 1 + 0.02 * w
    elif leaf == "running_mean":
        values = 0.02 * w
    elif len(shape) <= 1 and leaf == "weight":
        values = 1 + 0.02 * w
    elif len(shape) <= 1 or leaf == "bias":
        values = 0.02 * w
    else:
        values = 0.2 * min(1.0, math.sqrt(64 / (n / shape[0]))) * w
    return torch.from_numpy(values.reshape(shape)).float()


def analytic_state(shapes: dict[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """Analytic tensors for a table of names and shapes."""
    return {name: analytic_weight(prefix + name, tuple(shape)) for name, shape in shapes.items()}


def fill_analytic(module: Module, prefix: str = "") -> Module:
    """Load analytic weights into a module and put it in evaluation mode."""
    state = module.state_dict()
    kept = {name: tensor for name, tensor in state.items() if name.endswith("num_batches_tracked")}
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if name not in kept}
    module.load_state_dict({**kept, **analytic_state(shapes, prefix)})
    return module.eval()


@contextmanager
def without_compiler() -> Iterator[None]:
    """Let PyTorch's compiler find no C++ compiler, and nothing that it has compiled before."""
    from torch._inductor import config  # takes long to load

    with config.patch({"cpp.cxx": (None, "/no/compiler"), "force_disable_caches": True}):
        yield


def analytic_input(key: str, shape: tuple[int, ...], amplitude: float, offset: float) -> Tensor:
    """``in(key, shape, a, o)`` of the fixtures."""
    values = offset + amplitude * wave(f"input.{key}", math.prod(shape))
    return torch.from_numpy(values.reshape(shape)).float()


def gumbel(key: str, shape: tuple[int, ...]) -> Tensor:
    """``gumbel(key, shape)`` of the fixtures."""
    uniform = np.clip(0.5 + np.arcsin(wave(key, math.prod(shape))) / np.pi, 1e-4, 1 - 1e-4)
    return torch.from_numpy((-np.log(-np.log(uniform))).reshape(shape)).float()


def token_ids(n: int, codebook_size: int) -> Tensor:
    """``ids(n, V)`` of the fixtures."""
    return (7919 * torch.arange(n) + 13) % codebook_size


def image(batch: int, height: int, width: int) -> Tensor:
    """``image(B, H, W)`` of the fixtures, (B, 3, H, W)."""
    b, c, y, x = np.meshgrid(np.arange(batch), np.arange(3), np.arange(height), np.arange(width), indexing="ij")
    j = np.arange(batch * 3 * height * width, dtype=np.float64).reshape(b.shape)
    values = 0.5 + 0.35 * np.sin(0.11 * x + 0.07 * y + 1.3 * c + 0.9 * b) + 0.15 * np.sin(0.37 * j)
    return torch.from_numpy(values).float()
