"""The analytic weights of the discriminator fixtures: the general rule and its exceptions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.support import analytic_weight, wave


def discriminator_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    w = wave(name, math.prod(shape)).reshape(shape)
    leaf = name.split(".")[-1]
    if leaf in ("weight_u", "weight_v"):
        values = w / np.linalg.norm(w)
    elif "mapping.fc" in name:
        values = (150 if leaf == "weight" else 10) * w
    elif leaf == "weight" and ("mapping.embed" in name or "cmapper" in name):
        values = 1.5 * w
    else:
        return analytic_weight(name, shape)
    return torch.from_numpy(values).float()


def discriminator_state(shapes: dict[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """Analytic tensors for a table of names and shapes."""
    return {name: discriminator_weight(prefix + name, tuple(shape)) for name, shape in shapes.items()}
