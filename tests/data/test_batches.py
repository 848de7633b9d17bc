from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import tarfile
from pathlib import Path

import pytest
import torch

from adanat_cli.core.config import data_config
from adanat_cli.core.data.batches import TrainingBatch, training_batches
from adanat_cli.core.data.records import Row
from adanat_cli.core.data.sources import ImageSource, open_source
from adanat_cli.core.errors import AdaNATError
from tests.image_files import SIZE, png, write_class_folder


def folder_source(root: Path, num_images: int, max_bad: float = 0.01) -> ImageSource:
    return open_source(data_config(str(write_class_folder(root, num_images)), image_size=SIZE, max_bad=max_bad))


def take(source: ImageSource, steps: int, **arguments: int) -> list[TrainingBatch]:
    arguments = {"batch_size": 4, "seed": 0, **arguments}
    return list(itertools.islice(training_batches(source, **arguments), steps))


def shown(batch: TrainingBatch) -> list[int]:
    """Numbers of a batch's images, negative where flipped."""
    left, right = batch.images[:, 0, 0, 0].tolist(), batch.images[:, 0, 0, -1].tolist()
    return [min(a, b) if a < b else -min(a, b) for a, b in zip(left, right, strict=True)]


def test_batches_are_bytes_with_labels(tmp_path: Path) -> None:
    pixels, labels, captions = take(folder_source(tmp_path, 6), 1)[0]
    assert captions == [""] * 4
    assert (pixels.dtype, tuple(pixels.shape)) == (torch.uint8, (4, 3, SIZE, SIZE))
    assert (labels.dtype, tuple(labels.shape)) == (torch.int64, (4,))
    numbers = torch.minimum(pixels[:, 0, 0, 0], pixels[:, 0, 0, -1])
    assert torch.equal(numbers.long() % 2, labels)


def test_every_epoch_shows_every_image_once_in_a_new_order(tmp_path: Path) -> None:
    batches = take(folder_source(tmp_path, 12), 6)
    first, second = ([n for batch in part for n in shown(batch)] for part in (batches[:3], batches[3:]))
    assert sorted(map(abs, first)) == sorted(map(abs, second)) == list(range(12))
    assert list(map(abs, first)) != list(map(abs, second))
    assert 0 < sum(number < 0 for number in first + second) < 24


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_a_run_resumes_with_the_same_batches(tmp_path: Path, num_workers: int) -> None:
    source = folder_source(tmp_path, 10)
    whole, resumed = take(source, 9), take(source, 4, first_step=5, num_workers=num_workers)
    for batch, expected in zip(resumed, whole[5:], strict=True):
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.labels, expected.labels)


def test_every_epoch_draws_a_caption_for_every_image_anew(tmp_path: Path) -> None:
    lines = [f"{n}\t{n}\tpicture {n}\t{base64.b64encode(png(n)).decode()}\n" for n in range(8)]
    (tmp_path / "x.tsv").write_text("".join(lines))
    source = open_source(data_config(str(tmp_path / "x.tsv"), image_size=SIZE))
    source = dataclasses.replace(
        source, fetch=lambda row: Row(png(row), (f"a {row}", f"b {row}", f"c {row}"), ""), read_captions=None
    )
    batches = take(source, 40)
    drawn = [caption.split() for batch in batches for caption in batch.captions]
    numbers = [abs(number) for batch in batches for number in shown(batch)]
    assert [int(number) for _, number in drawn] == numbers
    assert {len({word for word, number in drawn if int(number) == image}) for image in range(8)} == {3}
    resumed = take(source, 2, first_step=5, num_workers=0)
    assert [batch.captions for batch in resumed] == [batch.captions for batch in batches[5:7]]
    halves = [take(source, 1, batch_size=2, rank=rank, world_size=2)[0].captions for rank in range(2)]
    assert sorted(halves[0] + halves[1]) == sorted(batches[0].captions)


def test_seeds_give_different_orders(tmp_path: Path) -> None:
    source = folder_source(tmp_path, 12)
    assert shown(take(source, 1)[0]) != shown(take(source, 1, seed=1)[0])


def test_ranks_share_the_images_of_a_step(tmp_path: Path) -> None:
    source = folder_source(tmp_path, 12)
    alone = [shown(batch) for batch in take(source, 3)]
    ranks = [[shown(batch) for batch in take(source, 3, batch_size=2, rank=r, world_size=2)] for r in (0, 1)]
    assert [[a, c, b, d] for (a, b), (c, d) in zip(*ranks, strict=True)] == [[a, c, b, d] for a, c, b, d in alone]


def test_unreadable_images_are_replaced_by_others(tmp_path: Path) -> None:
    source = folder_source(tmp_path, 10, max_bad=0.2)
    (tmp_path / "cat/004.png").write_bytes(b"nothing")
    (tmp_path / "dog/005.png").write_bytes(png(5)[:45])
    numbers = {abs(number) for batch in take(source, 10) for number in shown(batch)}
    assert numbers == set(range(10)) - {4, 5}


def test_too_many_unreadable_images_stop_the_run(tmp_path: Path) -> None:
    source = folder_source(tmp_path, 10, max_bad=0.1)
    for file in ("cat/004.png", "dog/005.png"):
        (tmp_path / file).write_bytes(b"nothing")
    with pytest.raises(AdaNATError, match=r"2 of 10 images cannot be read.*--max-bad"):
        take(source, 10)


def test_streams_are_shuffled_for_ever_and_resume(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for number in range(12):
            for suffix, content in (("png", png(number)), ("cls", b"0")):
                entry = tarfile.TarInfo(f"{number:03d}.{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    source = open_source(data_config(str(tmp_path), image_size=SIZE, num_classes=1))
    whole = [shown(batch) for batch in take(source, 6)]
    assert sorted(abs(number) for batch in whole[:3] for number in batch) == list(range(12))
    assert [abs(number) for batch in whole[:3] for number in batch] != list(range(12))
    assert [shown(batch) for batch in take(source, 2, first_step=4)] == whole[4:]
