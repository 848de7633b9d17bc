"""Images that go away, and threads that fail while reading them, end a training and lose nothing."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from adanat_cli.core.config import TokenizerTrainingConfig, VQAEConfig, data_config
from adanat_cli.core.config.settings import TokenizerSettings
from adanat_cli.core.data.sources import TableSource
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.train.tokenizer import train_tokenizer
from tests.faults.commands import assert_same
from tests.image_files import write_class_folder
from tests.jobs.train.test_nat import At

SHAPE = VQAEConfig(image_size=16, codebook_size=16, code_width=8, channels=(16,))
TRAINING = TokenizerTrainingConfig(steps=6, batch_size=4, save_every=1, sample_every=6, precision="fp32")


def settings(folder: Path, output: str, workers: int = 2) -> TokenizerSettings:
    data = data_config(str(folder / "images"), image_size=16)
    return TokenizerSettings(data, SHAPE, TRAINING, folder / output / "run", workers=workers, device="cpu")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and an unbroken run on them."""
    folder = tmp_path_factory.mktemp("data")
    write_class_folder(folder / "images", 16, size=16)
    train_tokenizer(settings(folder, "unbroken"), SilentReporter())
    return folder


def test_images_that_go_away_end_the_run_which_goes_on_when_they_are_back(toy: Path) -> None:
    images, away = toy / "images", toy / "away"
    with pytest.raises(AdaNATError, match=r"images cannot be read: .*\.png .No such file") as caught:
        train_tokenizer(settings(toy, "away-run", workers=0), At(2, lambda: shutil.move(images, away)))
    assert "\n" not in str(caught.value)
    shutil.move(away, images)
    train_tokenizer(settings(toy, "away-run"), SilentReporter())
    assert_same(toy / "away-run" / "run", toy / "unbroken" / "run")


def test_a_thread_that_dies_while_it_reads_ends_the_run_and_no_thread_is_left(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, calls = TableSource.load, [0]

    def dies(self: TableSource, index: int) -> Any:
        calls[0] += 1
        if calls[0] == 13:
            raise MemoryError("no memory in a thread")
        return load(self, index)

    monkeypatch.setattr(TableSource, "load", dies)
    with pytest.raises(MemoryError, match="in a thread"):
        train_tokenizer(settings(toy, "thread"), SilentReporter())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    monkeypatch.undo()
    train_tokenizer(settings(toy, "thread"), SilentReporter())
    assert_same(toy / "thread" / "run", toy / "unbroken" / "run")
