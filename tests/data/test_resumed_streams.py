"""A resumed stream: the same batches, without reading what was used before."""

from __future__ import annotations

import dataclasses
import io
import itertools
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from adanat_cli.core.config import data_config
from adanat_cli.core.data import batches as module
from adanat_cli.core.data.batches import TrainingBatch, training_batches
from adanat_cli.core.data.image_source import StreamSource
from adanat_cli.core.data.sources import open_source

NUM_FILES, PER_FILE, SIDE = 3, 60, 160


def pictures() -> Iterator[bytes]:
    """PNG files of noise, of some 77 kB each."""
    generator = np.random.default_rng(0)
    while True:
        file = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(file, "PNG")
        yield file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same 180 images as Parquet in row groups of four, and as tars."""
    root, images = tmp_path_factory.mktemp("streams"), pictures()
    (root / "parquet").mkdir()
    (root / "tar").mkdir()
    for number in range(NUM_FILES):
        contents = list(itertools.islice(images, PER_FILE))
        labels = [label % 3 for label in range(PER_FILE)]
        column = [{"bytes": content, "path": None} for content in contents]
        table = pa.table({"image": column, "label": labels})
        pq.write_table(table, root / "parquet" / f"train-{number:05d}.parquet", row_group_size=4)
        with tarfile.open(root / "tar" / f"{number:05d}.tar", "w") as tar:
            for key, (content, label) in enumerate(zip(contents, labels, strict=True)):
                for kind, data in (("png", content), ("cls", str(label).encode())):
                    entry = tarfile.TarInfo(f"{key:05d}.{kind}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    return root


def stream(folder: Path, form: str) -> StreamSource:
    config = data_config(str(folder / form), image_size=16, num_classes=3)
    source = open_source(config.replace(streaming=form == "parquet"))
    assert isinstance(source, StreamSource)
    return source


def take(source: StreamSource, steps: int, first_step: int = 0) -> list[TrainingBatch]:
    return list(itertools.islice(training_batches(source, 4, seed=3, first_step=first_step, num_workers=0), steps))


def bytes_read(source: StreamSource, first_step: int) -> int:
    """Bytes that the process reads from files for two batches."""

    def so_far() -> int:
        return int(re.findall(r"rchar: (\d+)", Path("/proc/self/io").read_text())[0])

    before = so_far()
    take(source, 2, first_step)
    return so_far() - before


@pytest.mark.parametrize("form", ["parquet", "tar"])
@pytest.mark.parametrize("buffer", [8, 100])
@pytest.mark.parametrize("held_out", ["", "train", "held out"])
def test_a_stream_resumes_with_the_same_batches(
    folder: Path, form: str, buffer: int, held_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHUFFLE_BUFFER", buffer)
    source = stream(folder, form)
    if held_out:
        source = source.share(5, held_out == "held out", "a note")
    assert source.count() == {"": 180, "train": 144, "held out": 36}[held_out]
    assert len([*source.pending()]) == source.count()
    whole = take(source, 50)
    for first in (1, 8, 9, 20, 44, 45, 48):  # an epoch has 45 batches, 36 or 9
        for found, expected in zip(take(source, 2, first), whole[first:], strict=False):
            assert torch.equal(found.images, expected.images)
            assert torch.equal(found.labels, expected.labels)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes as Linux does")
@pytest.mark.parametrize("form", ["parquet", "tar"])
def test_what_was_used_is_not_read_again(folder: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHUFFLE_BUFFER", 4)
    source = stream(folder, form)
    size = sum(file.stat().st_size for file in (folder / form).iterdir())
    past, skipped = bytes_read(dataclasses.replace(source, count_rows=None), 30), bytes_read(source, 30)
    assert past > 0.65 * size
    assert skipped < 0.5 * past


def test_what_cannot_be_counted_is_read_past(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHUFFLE_BUFFER", 8)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        for name in sorted(path.name for path in (folder / "tar").iterdir())[:1]:
            with tarfile.open(folder / "tar" / name) as plain:
                for member in plain:
                    tar.addfile(member, plain.extractfile(member))
    source = open_source(data_config(str(tmp_path), image_size=16, num_classes=3))
    assert isinstance(source, StreamSource)
    assert source.count() is None
    assert stream(folder, "parquet").keep((1,)).count() is None
    whole = take(source, 8)
    assert torch.equal(take(source, 1, 7)[0].images, whole[7].images)
