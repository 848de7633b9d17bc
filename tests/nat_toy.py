"""A toy token set whose tokens follow from class and row, with a tokenizer to go with it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from adanat_cli.core.checkpoints.files import write_json
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import NATTrainingConfig, VQAEConfig
from adanat_cli.core.config.settings import NATSettings
from adanat_cli.core.data.token_shards import SUMMARY, Shard, TokenSetInfo, write_shard
from adanat_cli.core.tokenizer.build import build_tokenizer
from adanat_cli.jobs.train import nat as runs

CODEBOOK = 16
NAMES = ("zero", "one", "two", "three")


def make_model(path: Path) -> ModelFolder:
    """A model folder with an untrained tokenizer of 4 x 4 tokens."""
    torch.manual_seed(0)
    config = VQAEConfig(image_size=16, codebook_size=CODEBOOK, code_width=4, channels=(8, 8))
    folder = ModelFolder(path)
    folder.write("tokenizer", config.to_dict(), build_tokenizer(config).state_dict())
    return folder


def make_tokens(
    path: Path,
    fingerprint: str,
    num_rows: int = 64,
    seed: int = 0,
    names: tuple[str, ...] = NAMES,
    codebook_size: int = CODEBOOK,
) -> Path:
    """Rows of four equal tokens: the class picks the pattern, chance its offset."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_rows) % len(names)
    offsets = rng.integers(0, 2, num_rows)
    ids = (4 * labels[:, None] + offsets[:, None] + np.zeros((1, 16))).astype(np.uint16) % CODEBOOK
    named = dict(enumerate(names))
    info = TokenSetInfo(16, (4, 4), codebook_size, fingerprint, "class", len(names), True, named, "toy")
    path.mkdir(parents=True)
    write_shard(path / "tokens-00000.parquet", info, Shard({}, 0, num_rows, {}, ids, ids[:, ::-1], labels))
    write_json(path / SUMMARY, {"num_shards": 1})
    return path


def make_request(folder: Path, output: str = "run", **changes: object) -> NATSettings:
    """A request of a few updates on the toy set, which is made on first use."""
    model = ModelFolder(folder / "model")
    if not model.exists():
        make_model(folder / "model")
        make_tokens(folder / "tokens", model.fingerprint("tokenizer"))
    training = NATTrainingConfig(
        **{
            "steps": 6,
            "batch_size": 8,
            "learning_rate": 1e-3,
            "warmup_steps": 2,
            "ema_decay": 0.9,
            "precision": "fp32",
            "log_every": 2,
            "save_every": 3,
            "sample_every": 1000,
            **changes,
        }
    )
    model_path, tokens = str(folder / "model"), folder / "tokens"
    return NATSettings("toy", tokens, "micro", training, folder / output, model_path, device="cpu")


@contextmanager
def without_dropout() -> Iterator[None]:
    """Presets without dropout: its draws are the one thing that depends on how a batch is cut."""
    preset = runs.nat_preset
    runs.nat_preset = functools.partial(preset, dropout=0.0)
    try:
        yield
    finally:
        runs.nat_preset = preset
