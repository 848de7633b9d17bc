"""Folders of images that are measured as they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.evaluate.image_sets import ImageFolder
from tests.image_files import png

CPU = torch.device("cpu")


def test_every_image_counts_once_wherever_links_lead_and_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more/up").symlink_to("..")
    for name in (b"1.png", b"more/caf\xe9.png", b"grid.png", b"__MACOSX.png", b"._1.png"):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
            file.write(png(1))
    folder = ImageFolder(tmp_path, 0, CPU)
    assert folder.num_images == 3
    assert len(next(folder.batches(0, 3)).images) == 3
    assert folder.identity()["files"] == 3


def test_a_pipe_is_refused_before_it_can_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.png")
    with pytest.raises(AdaNATError, match="a pipe, a device or a folder"):
        ImageFolder(tmp_path, 0, CPU)
