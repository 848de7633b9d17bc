"""Images to measure with are never trained on, and are called held out only where the data itself holds them out."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adanat_cli.core.config import data_config
from adanat_cli.core.data.held_out import measured_on, open_disjoint
from adanat_cli.core.data.labels import numbered_as
from adanat_cli.core.data.sources import ImageSource, open_source
from adanat_cli.core.errors import AdaNATError
from tests.data.test_captioned import write_tsv
from tests.data.test_sources import config, numbers, write_parquet, write_tar
from tests.image_files import png, write_class_folder


def parts(place: Path, **fields: object) -> tuple[ImageSource, ImageSource]:
    return open_disjoint(config(place, **fields), lambda source: source.keep(()))


def test_a_validation_part_is_what_is_held_out(tmp_path: Path) -> None:
    write_class_folder(tmp_path / "train", 6)
    write_class_folder(tmp_path / "val", 4)
    training, measured = parts(tmp_path)
    assert (training.num_images, measured.num_images) == (6, 4)
    assert measured_on(measured) == "held-out images"


@pytest.mark.parametrize("name", ["folder", "folder of validation pictures", "x.parquet", "train-0.parquet"])
def test_without_a_validation_part_a_tenth_of_every_class_is_kept_back(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    if place.suffix:
        write_parquet(place, range(60))
    else:
        write_class_folder(place, 60, ("a", "b", "c"))
    training, measured = parts(place)
    shown, kept = numbers(training), numbers(measured)
    assert sorted(shown + kept) == list(range(60))
    assert sorted(number % 3 for number in kept) == [0, 0, 1, 1, 2, 2]
    assert numbers(parts(place)[1]) == kept
    assert measured_on(measured) == "images kept from the policy's training"
    assert "no validation split" in training.describe()


def test_a_stream_keeps_every_tenth_image_back(tmp_path: Path) -> None:
    write_tar(tmp_path / "train.tar", range(40), cls=b"%")
    for place in (tmp_path, tmp_path / "train.tar"):
        training, measured = parts(place, num_classes=3)
        assert numbers(measured) == [9, 19, 29, 39]
        assert sorted(numbers(training) + numbers(measured)) == list(range(40))
        assert numbers(measured, 1, 3) == [19, 29]
        assert training.identity() != measured.identity()


def test_classes_are_chosen_before_a_share_is_kept_back(tmp_path: Path) -> None:
    write_class_folder(tmp_path, 60, ("a", "b", "c"))
    training, measured = open_disjoint(config(tmp_path), lambda source: source.keep((1,)))
    assert (training.num_images, measured.num_images) == (18, 2)
    assert {record.label for record in measured.read()} == {1}


def test_a_validation_part_that_cannot_be_read_is_an_error_and_no_reason_to_measure_on_training_images(
    tmp_path: Path,
) -> None:
    write_parquet(tmp_path / "train-0.parquet", range(40))
    (tmp_path / "validation-0.parquet").write_bytes(b"no table")
    with pytest.raises(AdaNATError, match=r"validation-0\.parquet"):
        parts(tmp_path)
    pq.write_table(pa.table({"image": [png(0)], "label": [[0]]}), tmp_path / "validation-0.parquet")
    with pytest.raises(AdaNATError, match="holds List"):
        parts(tmp_path)


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AdaNATError, match=r"holds 19 training images .* no validation split, too few"):
        parts(write_class_folder(tmp_path, 19))


def test_digits_keep_their_own_validation_part() -> None:
    training, measured = open_disjoint(data_config("digits"), lambda source: source)
    assert (training.num_images, measured.num_images) == (1438, 359)
    assert measured_on(measured) == "held-out images"


def write_words(place: Path, form: str, split: str, words: list[str]) -> None:
    """Images whose labels are words, in a table, a tar or a file beside them."""
    (place / split).mkdir(parents=True, exist_ok=True)
    if form == "parquet":
        images = [{"bytes": png(n), "path": None} for n in range(len(words))]
        pq.write_table(pa.table({"image": images, "label": words}), place / f"{split}.parquet")
        return
    if form == "tar":
        with tarfile.open(place / f"{split}.tar", "w") as tar:
            for n, word in enumerate(words):
                for name, content in ((f"{n}.png", png(n)), (f"{n}.cls", word.encode())):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
        return
    for n in range(len(words)):
        (place / split / f"{n}.png").write_bytes(png(n))
    rows = [json.dumps({"file_name": f"{n}.png", "label": word}) for n, word in enumerate(words)]
    (place / split / "metadata.jsonl").write_text("\n".join(rows))


@pytest.mark.parametrize("form", ["parquet", "tar", "metadata"])
def test_words_have_the_same_ids_in_every_split(tmp_path: Path, form: str) -> None:
    write_words(tmp_path, form, "train", ["cat", "dog", "7"])
    write_words(tmp_path, form, "validation", ["dog", "ant", "7"])
    held_out = open_source(config(tmp_path, split="validation"))
    assert [record.label for record in held_out.read()] == [2, 3, 0]
    assert held_out.class_names == {0: "7", 1: "cat", 2: "dog", 3: "ant"}
    assert held_out.num_classes == 4
    assert [record.label for record in held_out.keep((2,)).read()] == [2]


def test_words_that_are_numbers_are_names_where_the_train_split_has_others(tmp_path: Path) -> None:
    write_words(tmp_path, "parquet", "train", ["cat", "1", "7"])
    write_words(tmp_path, "parquet", "validation", ["7", "1"])
    assert [record.label for record in open_source(config(tmp_path, split="validation")).read()] == [1, 0]


def test_captions_alone_are_no_validation_part_of_images(tmp_path: Path) -> None:
    write_tsv(tmp_path / "cc3m_train.tsv", 40)
    (tmp_path / "cc3m_val.tsv").write_text("caption\turl\na cat\thttp://x\n")
    training, measured = parts(tmp_path)
    assert (training.num_images, measured.num_images) == (36, 4)
    assert not {training.captions(n) for n in range(4, 36)} & {measured.captions(n) for n in range(4)}


def test_classes_that_share_a_name_keep_their_ids() -> None:
    train = {0: "crane", 1: "crane", 2: "kite"}
    assert numbered_as(train, train) == ({0: 0, 1: 1, 2: 2}, train)
