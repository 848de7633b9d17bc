from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adanat_cli.core.config import DataConfig, data_config
from adanat_cli.core.data.records import SkippedImages
from adanat_cli.core.data.sources import ImageSource, open_source
from adanat_cli.core.errors import AdaNATError
from tests.data.test_captioned import write_tsv
from tests.image_files import SIZE, picture, png, write_class_folder


def config(source: Path | str, **fields: object) -> DataConfig:
    return data_config(str(source), image_size=SIZE, **fields)


def numbers(source: ImageSource, start: int = 0, stop: int | None = None) -> list[int]:
    records = list(source.read(start, stop))
    assert all(not record.error and record.pixels is not None for record in records)
    return [int(record.pixels[0, 0, 0]) for record in records if record.pixels is not None]


def write_parquet(file: Path, rows: range, kind: str = "struct") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    images = [png(n) if kind == "bytes" else {"bytes": png(n), "path": f"{n}.png"} for n in rows]
    table = pa.table({"image": images, "label": [n % 3 for n in rows]})
    if kind == "feature":
        features = {"image": {"_type": "Image"}, "label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, file)
    return file


def write_tar(file: Path, rows: range, **extras: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for n in rows:
            for suffix, content in {"png": png(n), **extras}.items():
                content = content.replace(b"%", str(n % 3).encode()) if suffix != "png" else content
                entry = tarfile.TarInfo(f"{n:04d}.{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return file


def test_folder_names_are_the_classes(tmp_path: Path) -> None:
    source = open_source(config(write_class_folder(tmp_path, 5)))
    assert source.class_names == {0: "cat", 1: "dog"}
    assert (source.num_images, source.num_classes) == (5, 2)
    assert numbers(source) == [0, 2, 4, 1, 3]
    assert [record.label for record in source.read()] == [0, 0, 0, 1, 1]
    assert source.load(3).name == "dog/001.png"


@pytest.mark.parametrize(
    ("classes", "fields", "told"),
    [
        (("cat", "dog"), {}, "5 images in 2 classes, from 2 (dog) to 3 (cat) each."),
        (("cat", "dog"), {"classes": (1,)}, "2 images in 1 of 2 classes (dog)."),
        (("a", "b", "c", "d", "e"), {}, "5 images in 5 classes, 1 each."),
        (("3", "7"), {}, "5 images in 2 of 8 classes, from 2 (7) to 3 (3) each."),
        (("a", "b", "c", "d", "e"), {"classes": (0, 4)}, "2 images in 2 of 5 classes (a, e), 1 each."),
        (("cat",), {}, "5 images in 1 class (cat)."),
    ],
)
def test_one_line_tells_what_was_understood(
    tmp_path: Path, classes: tuple[str, ...], fields: dict[str, object], told: str
) -> None:
    source = open_source(config(write_class_folder(tmp_path / "pets", 5, classes), **fields))
    assert source.describe() == f"pets (train): {told}"


def test_one_line_tells_what_a_stream_is(tmp_path: Path) -> None:
    write_tar(tmp_path / "labels.tar", range(2), cls=b"%")
    write_tar(tmp_path / "texts.tar", range(2), txt=b"cat %")
    told = [open_source(config(tmp_path / f"{name}.tar", num_classes=3)).describe() for name in ("labels", "texts")]
    assert told == [
        "labels.tar (train): a stream of images of 3 classes.",
        "texts.tar (train): a stream of images with captions.",
    ]


def test_synset_folders_get_imagenet_numbers_and_names(tmp_path: Path) -> None:
    source = open_source(config(write_class_folder(tmp_path, 2, ("n02099601", "n01440764"))))
    assert [record.label for record in source.read()] == [0, 207]
    assert (source.class_names[207], source.num_classes) == ("golden retriever", 1000)


def test_whole_numbers_as_folder_names_stand_for_themselves(tmp_path: Path) -> None:
    source = open_source(config(write_class_folder(tmp_path, 3, ("2", "10", "0"))))
    assert [record.label for record in source.read()] == [0, 10, 2]


def test_split_folders_are_told_apart(tmp_path: Path) -> None:
    write_class_folder(tmp_path / "train", 4)
    write_class_folder(tmp_path / "val", 2)
    assert open_source(config(tmp_path)).num_images == 4
    assert open_source(config(tmp_path, split="validation")).num_images == 2


def test_a_class_called_train_is_no_split(tmp_path: Path) -> None:
    assert open_source(config(write_class_folder(tmp_path, 4, ("bus", "train")))).class_names == {0: "bus", 1: "train"}


def test_a_missing_split_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(AdaNATError, match="has no validation split"):
        open_source(config(write_class_folder(tmp_path, 2), split="validation"))


@pytest.mark.parametrize("kind", ["struct", "bytes", "feature"])
def test_parquet_images_open_in_every_column_type(tmp_path: Path, kind: str) -> None:
    source = open_source(config(write_parquet(tmp_path / "data.parquet", range(5), kind)))
    assert numbers(source) == [0, 1, 2, 3, 4]
    assert [record.label for record in source.read()] == [0, 1, 2, 0, 1]
    assert source.class_names == ({0: "a", 1: "b", 2: "c"} if kind == "feature" else {})
    assert source.num_classes == 3


def test_parquet_folder_is_read_by_split_in_file_order(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data/train-00001-of-00002.parquet", range(3, 5))
    write_parquet(tmp_path / "data/train-00000-of-00002.parquet", range(3))
    write_parquet(tmp_path / "data/validation-00000-of-00001.parquet", range(7, 9))
    assert numbers(open_source(config(tmp_path))) == [0, 1, 2, 3, 4]
    assert numbers(open_source(config("imagenet256", data_dir=str(tmp_path), split="validation"))) == [7, 8]


def test_nothing_is_written_into_the_data_folder(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data.parquet", range(3))
    list(open_source(config(tmp_path)).read())
    assert [file.name for file in tmp_path.iterdir()] == ["data.parquet"]


def test_streamed_parquet_gives_the_same_images(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data.parquet", range(6), "feature")
    table, stream = (open_source(config(tmp_path, streaming=streaming)) for streaming in (False, True))
    assert stream.num_images is None
    assert numbers(stream) == numbers(table)
    assert numbers(stream, 2, 4) == [2, 3]
    with pytest.raises(AdaNATError, match="stream"):
        stream.load(0)


def labels(source: ImageSource) -> list[int]:
    return [record.label for record in source.read() if not record.error]


@pytest.mark.parametrize("write", [write_tar, write_parquet])
def test_a_leftover_beside_class_folders_decides_nothing(tmp_path: Path, write: Callable[..., Path]) -> None:
    write_class_folder(tmp_path, 4)
    write(tmp_path / ("x.tar" if write is write_tar else "x.parquet"), range(2))
    with pytest.raises(AdaNATError, match=r"several forms \(x\.(tar|parquet), .*/"):
        open_source(config(tmp_path))


def test_a_mistyped_path_is_not_looked_up_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: pytest.fail("asked the Hub"))
    with pytest.raises(AdaNATError, match="data/photoz does not exist, though data does"):
        open_source(config("data/photoz"))


def test_class_filter_keeps_numbers_and_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "data.parquet", range(9), "feature")
    with monkeypatch.context() as patch:
        patch.setattr("adanat_cli.core.data.records.read_pixels", lambda *_: pytest.fail("decoded"))
        source = open_source(config(tmp_path, classes=(2,)))
        assert (source.num_images, source.num_classes, source.class_names) == (3, 3, {2: "c"})
    assert numbers(source) == [2, 5, 8]
    assert numbers(open_source(config(tmp_path, classes=(2,), streaming=True))) == [2, 5, 8]
    with pytest.raises(AdaNATError, match="No image of class 7"):
        open_source(config(tmp_path, classes=(7,)))


def test_an_unreadable_image_is_a_record_with_a_reason(tmp_path: Path) -> None:
    write_class_folder(tmp_path, 3)
    (tmp_path / "cat/002.png").write_bytes(png(2)[:60])
    (tmp_path / "dog/001.png").write_bytes(b"")
    records = list(open_source(config(tmp_path)).read(num_workers=2))
    assert [bool(record.error) for record in records] == [False, True, True]
    assert records[1].pixels is None
    assert "not an image file" in records[2].error


def test_unreadable_images_are_tolerated_up_to_the_limit() -> None:
    skipped = SkippedImages(max_bad=0.02, num_images=100)
    skipped.add({"a.png": "truncated", "b.png": "truncated"})
    skipped.add({"b.png": "truncated"})
    with pytest.raises(AdaNATError, match=r"3 of 100 .*a\.png \(truncated\).*--max-bad"):
        skipped.add({"c.png": "empty"})


def test_digits_are_upscaled_and_split() -> None:
    train, validation = (open_source(data_config("digits", split=split)) for split in ("train", "validation"))
    assert (train.num_images, validation.num_images, train.num_classes) == (1438, 359, 10)
    record = train.load(0)
    assert record.pixels is not None
    assert record.pixels.shape == (16, 16, 3)
    assert record.label == 0
    assert record.pixels.max() > 200


def test_a_preset_is_told_from_a_folder_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "preset" not in open_source(data_config("digits")).describe()
    for name in ("digits", "imagenet64"):
        write_class_folder(tmp_path / name, 2)
    note = "digits is a preset; ./digits takes what lies here under this name"
    assert open_source(data_config("digits")).describe().endswith(f"; {note}.")
    assert open_source(config("./digits")).describe() == "digits (train): 2 images in 2 classes (cat, dog), 1 each."
    with pytest.raises(AdaNATError, match=r"no public home.*\(imagenet64 is a preset; \./imagenet64 takes"):
        open_source(data_config("imagenet64"))
    assert "preset" not in data_config("digits").to_dict()


def test_missing_scikit_learn_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(AdaNATError, match=r"pip install 'adanat\[digits\]'"):
        open_source(data_config("digits"))


@pytest.mark.parametrize(
    ("source", "fields", "message"),
    [
        ("imagenet64", {}, "--data-dir"),
        ("/no/such/folder", {}, "does not exist"),
        ("x" * 300, {}, "does not exist"),
        ("nul\0", {}, "does not exist"),
        ("~nobody-of-this-name/x", {}, "does not exist"),
        ("https://host/x.tar?a b", {}, "holds spaces"),
        ("s3://me:secret@bucket/x.tar?sign=secret", {}, r"^s3://…@bucket/x.tar is a URL .* expected http://"),
        ("folder/train-{0000..0003}.tar", {}, "give the folder of the files"),
        ("./no-such-folder", {}, "no-such-folder does not exist; expected"),
        ("digits", {"data_dir": "https://me:pw@host/x"}, "is a URL"),
        ("imagenet256", {"data_dir": "/no/such/folder"}, "does not exist"),
    ],
)
def test_missing_data_is_told_in_one_line(source: str, fields: dict[str, str], message: str) -> None:
    with pytest.raises(AdaNATError, match=message) as caught:
        open_source(config(source, **fields))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ("images", "image_column"),
        ("images", "label_column"),
        ("images", "caption_column"),
        ("digits", "image_column"),
        ("digits", "data_dir"),
    ],
)
def test_an_option_that_would_choose_nothing_is_refused(tmp_path: Path, source: str, field: str) -> None:
    write_class_folder(tmp_path / "images", 2)
    place = str(tmp_path / "images") if source == "images" else source
    with pytest.raises(AdaNATError, match=f"--{field.replace('_', '-')} has no meaning with"):
        open_source(data_config(place, image_size=16, **{field: "x"}))


def test_pixels_reach_the_reader_unchanged(tmp_path: Path) -> None:
    source = open_source(config(write_class_folder(tmp_path, 3)))
    pixels = source.load(1).pixels
    assert pixels is not None
    assert np.array_equal(pixels, picture(2))


@pytest.mark.parametrize("kind", ["folder", "parquet", "tar", "tsv"])
def test_the_identity_follows_the_files_wherever_they_lie(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "data"
    place.mkdir()
    if kind == "folder":
        write_class_folder(place, 4)
    elif kind == "tsv":
        write_tsv(place / "x_train.tsv", 4)
    else:
        {"parquet": write_parquet, "tar": write_tar}[kind](place / f"train.{kind}", range(4))
    before = open_source(config(place)).identity()
    moved = shutil.copytree(place, tmp_path / "elsewhere/data")
    assert open_source(config(moved)).identity() == before
    assert str(tmp_path) not in str(before)
    file = max((file for file in moved.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    os.utime(file, ns=(1, 1))
    assert open_source(config(moved)).identity() != before
