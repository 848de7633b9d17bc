"""Bytes per image of a token set on disk, measured on one that is generated.

    python examples/cluster/token_bytes.py [IMAGES]

Ids are drawn evenly from a codebook of 1,024, which cannot be compressed below 10 bits: those of real images can be,
so this is the most that a set takes. 16 x 16 tokens, with those of the flipped image.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from adanat_cli.core.checkpoints.files import write_json
from adanat_cli.core.data.token_set import TokenSet
from adanat_cli.core.data.token_shards import SUMMARY, Shard, TokenSetInfo, write_shard

GRID, CODES, CLASSES = (16, 16), 1024, 1000


def main(num_images: int = 20_000) -> None:
    """Print what a shard and the order of an epoch take, in bytes per image and in time."""
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    order = rng.permutation(100 * num_images)
    seconds = time.perf_counter() - start
    size, speed = order.nbytes / len(order), len(order) / seconds
    print(f"order of an epoch: {size:.0f} bytes an image; drawn at {speed:,.0f} images/s")
    ids, flipped = rng.integers(0, CODES, (2, num_images, GRID[0] * GRID[1])).astype(np.uint16)
    labels = rng.integers(0, CLASSES, num_images)
    info = TokenSetInfo(256, GRID, CODES, "0" * 64, "class", CLASSES, True, {}, "generated")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokens-00000.parquet"
        write_json(Path(folder) / SUMMARY, {"num_shards": 1})
        for name, twin in (("with flips", flipped), ("without", None)):
            start = time.perf_counter()
            write_shard(
                file, replace(info, has_flips=twin is not None), Shard({}, 0, num_images, {}, ids, twin, labels)
            )
            written = time.perf_counter()
            tokens = TokenSet.open(Path(folder))
            opened = time.perf_counter()
            arrays = [tokens.tokens, tokens.labels, *([] if twin is None else [tokens.tokens_flipped])]
            print(
                f"{name}: {file.stat().st_size / num_images:.0f} bytes an image on disk, "
                f"{sum(array.nbytes for array in arrays if array is not None) / num_images:.0f} in memory; written at "
                f"{num_images / (written - start):,.0f}, opened at {num_images / (opened - written):,.0f} images/s"
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
