"""Memory of a long run of ``adanat sample``: what is kept does not grow with the number of images."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from adanat_cli.core.checkpoints.folder import Component, ModelFolder
from adanat_cli.core.config import NATConfig, VQAEConfig
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.tokenizer.build import build_tokenizer
from adanat_cli.jobs.runtime.reporter import SilentReporter, Task
from adanat_cli.jobs.sample import sample as module

_PER_IMAGE = 400
"""Bytes that may stay of an image, for its path in the result; the image has 768."""


class Kept(SilentReporter):
    """Notes after every batch how much Python and PyTorch hold."""

    def __init__(self) -> None:
        self.counts: list[tuple[int, int]] = []

    def task(self, *_: Any, **__: Any) -> Task:
        return self

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the noted."""

    def advance(self, amount: int = 1, **fields: Any) -> None:
        if amount:
            gc.collect()
            tensors = sum(one.nbytes for one in gc.get_objects() if type(one) is torch.Tensor)
            self.counts.append((amount, tracemalloc.get_traced_memory()[0] + tensors))

    def slope(self) -> float:
        """Bytes an image, from the sixth batch, by which all that is shared is there, to the last."""
        (_, first), (_, last) = self.counts[5], self.counts[-1]
        return (last - first) / sum(amount for amount, _ in self.counts[6:])


@contextmanager
def traced() -> Iterator[Kept]:
    tracemalloc.start()
    try:
        yield Kept()
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    tokenizer = VQAEConfig(image_size=16, codebook_size=16, code_width=8, channels=(8, 8))
    nat = NATConfig(codebook_size=16, grid=(4, 4), width=16, depth=2, num_heads=2, num_classes=10)
    folder = ModelFolder(tmp_path_factory.mktemp("model") / "tiny")
    networks = {"tokenizer": (tokenizer, build_tokenizer(tokenizer)), "nat": (nat, UViT(nat))}
    folder.write_all([Component(name, config.to_dict(), net.state_dict()) for name, (config, net) in networks.items()])
    return str(folder.path)


def request(model: str, output: Path) -> SampleRequest:
    return SampleRequest(
        output=output, model=model, num_images=240, batch_size=20, num_steps=2, schedule="cosine", device="cpu"
    )


def test_what_is_kept_of_an_image_is_its_path(model: str, tmp_path: Path) -> None:
    with traced() as kept:
        module.sample(request(model, tmp_path), kept)
    assert len(kept.counts) == 12
    assert kept.slope() < _PER_IMAGE


def test_images_that_pile_up_are_noticed(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_GRID", 10_000)  # all images are kept for the grid
    monkeypatch.setattr(module.SampleRun, "write_grid", lambda self, images: str(len(images)))
    with traced() as kept:
        module.sample(request(model, tmp_path), kept)
    assert kept.slope() > 700
