"""The settings and network sizes of a benchmark, and the captions that it is measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adanat_cli.core.checkpoints.files import atomic_path
from adanat_cli.core.checkpoints.strict import without_values
from adanat_cli.core.config import BENCHMARKS, PolicyConfig, nat_preset
from adanat_cli.core.data.captions import EVALUATION_SEED, evaluation_captions
from adanat_cli.core.errors import AdaNATError, not_known, require
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.policy import PolicyNetwork
from adanat_cli.core.tokenizer.build import build_tokenizer


def describe_benchmark(name: str) -> dict[str, Any]:
    """Return a benchmark's settings and the number of parameters of each network.

    Raises:
        AdaNATError: if there is no such benchmark.
    """
    if name not in BENCHMARKS:
        raise AdaNATError(not_known(f"Benchmark {name!r}", name, BENCHMARKS, f"one of {', '.join(BENCHMARKS)}"))
    benchmark = BENCHMARKS[name]
    nat = nat_preset(benchmark.nat_size, **benchmark.nat())
    with without_values():
        networks = {
            "tokenizer": build_tokenizer(benchmark.tokenizer()),
            "nat": UViT(nat),
            "policy": PolicyNetwork(PolicyConfig(nat.width, nat.grid, benchmark.policy_steps[-1])),
        }
    counts = {part: sum(weight.numel() for weight in network.parameters()) for part, network in networks.items()}
    return {"name": name, **benchmark.to_dict(), "grid": list(benchmark.grid), "parameters": counts}


def list_captions(dataset: str, path: Path, num_captions: int | None, **fields: Any) -> dict[str, Any]:
    """Write the captions that a text-to-image result is measured on, one per line.

    Args:
        dataset: name of a benchmark, or source of data with captions.
        path: text file to write, as ``adanat sample --prompts`` reads it.
        num_captions: number of captions; None for the benchmark's own.
        fields: fields of ``DataConfig``.

    Raises:
        AdaNATError: if the data cannot be read or has no captions.
    """
    benchmark = BENCHMARKS.get(dataset)
    require(
        benchmark is None or benchmark.condition == "text",
        f"{dataset} has class labels, not captions; --captions is for mscoco, cc3m and data with captions.",
    )
    # Without a local copy the data is streamed, because the images are not needed.
    captions = evaluation_captions(dataset, num_captions, **{"streaming": not fields.get("data_dir"), **fields})
    digest = write_captions(path, captions)
    return {"captions": str(path), "num_captions": len(captions), "seed": EVALUATION_SEED, "sha256": digest}


def write_captions(path: Path, captions: Sequence[str]) -> str:
    """Write captions, one per line, as ``adanat sample --prompts`` reads them; returns the file's sha256."""
    content = "".join(f"{' '.join(caption.split())}\n" for caption in captions).encode()
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()
