"""Independent random streams from one seed."""

from __future__ import annotations

import numpy as np


def stream_seed(*parts: int) -> int:
    """Mix numbers such as (purpose, seed, update, rank) into one seed for PyTorch's generators."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
