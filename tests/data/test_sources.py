from __future__ import annotations

import gzip
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
from adanat_cli.core.errors import AdaNATError, MissingSplit
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


@pytest.mark.parametrize(
    ("extras", "labels", "captions"),
    [
        ({"cls": b"%"}, [0, 1, 2, 0], ["", "", "", ""]),
        ({"json": b'{"label": %, "caption": "cat %"}'}, [0, 1, 2, 0], ["cat 0", "cat 1", "cat 2", "cat 0"]),
        ({"txt": b"cat %"}, [0, 0, 0, 0], ["cat 0", "cat 1", "cat 2", "cat 0"]),
    ],
)
def test_tars_stream_with_labels_or_captions(
    tmp_path: Path, extras: dict[str, bytes], labels: list[int], captions: list[str]
) -> None:
    write_tar(tmp_path / "train-0000.tar", range(2), **extras)
    write_tar(tmp_path / "train-0001.tar", range(2, 4), **extras)
    source = open_source(config(tmp_path, num_classes=3))
    records = list(source.read())
    assert numbers(source) == [0, 1, 2, 3]
    assert [record.label for record in records] == labels
    assert [record.caption for record in records] == captions
    assert source.has_captions == ("txt" in extras)


def test_a_broken_tar_is_told_in_one_line(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "train.tar", range(40), cls=b"%")
    file.write_bytes(file.read_bytes()[:30_512])
    source = open_source(config(file, num_classes=3))
    with pytest.raises(AdaNATError, match="broke off"):
        list(source.read())


def labels(source: ImageSource) -> list[int]:
    return [record.label for record in source.read() if not record.error]


@pytest.mark.parametrize(
    ("column", "expected", "names"),
    [
        (pa.array(["cat", "owl", "cat", "dog"]), [0, 2, 0, 1], {0: "cat", 1: "dog", 2: "owl"}),
        (pa.array(["cat", "owl", "cat", "dog"]).dictionary_encode(), [0, 2, 0, 1], {0: "cat", 1: "dog", 2: "owl"}),
        (pa.array(["n02099601", "n01440764"] * 2), [207, 0, 207, 0], None),
        (pa.array(["2", "0", "2", "1"]), [2, 0, 2, 1], {}),
        (pa.array([2.0, 0.0, 2.0, 1.0]), [2, 0, 2, 1], {}),
        (pa.array([2.0, 0.0, 2.0, 1.0], pa.float64()).cast(pa.float16()), [2, 0, 2, 1], {}),
        (pa.array([True, False, True, True]), [1, 0, 1, 1], {}),
        (pa.array([2, 0, 2, 1], pa.uint8()), [2, 0, 2, 1], {}),
    ],
    ids=["words", "categories", "synsets", "numerals", "floats", "halves", "truth", "bytes"],
)
def test_labels_of_every_type_are_classes(
    tmp_path: Path, column: pa.Array, expected: list[int], names: dict[int, str] | None
) -> None:
    pq.write_table(pa.table({"image": [png(n) for n in range(4)], "label": column}), tmp_path / "x.parquet")
    source = open_source(config(tmp_path))
    assert labels(source) == expected
    assert names is None or source.class_names == names
    assert source.num_classes == (1000 if names is None else max(expected) + 1)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.array([0, None, 1, 0]), "1 of the 4 images .* no label"),
        (pa.array(["a", None, "b", ""]), "2 of the 4 images .* no label"),
        (pa.array([0.0, float("nan"), 1.0, 0.0]), "1 of the 4 images .* no label"),
        (pa.array([-1, -1, -1, -1]), "4 of the 4 images .* no label"),
        (pa.nulls(4), "4 of the 4 images .* no label"),
        (pa.array([0.5, 1.0, 0.0, 1.0]), r"'label' .* holds \[0.5\]"),
        (pa.array([[0], [1], [0], [1]]), "'label' .* holds List.*--label-column"),
        (pa.array([0, 10**7, 1, 1]), "labels up to 10000000.*--num-classes"),
    ],
)
def test_what_is_no_label_is_refused_and_never_class_0(tmp_path: Path, column: pa.Array, words: str) -> None:
    pq.write_table(pa.table({"image": [png(n) for n in range(4)], "label": column}), tmp_path / "x.parquet")
    with pytest.raises(AdaNATError, match=words):
        open_source(config(tmp_path))


def test_some_rows_without_label_or_caption_are_skipped_by_name(tmp_path: Path) -> None:
    images = [png(n) for n in range(4)]
    pq.write_table(pa.table({"image": images, "label": [1, None, -1, 0]}), tmp_path / "x.parquet")
    records = list(open_source(config(tmp_path, max_bad=0.5)).read())
    assert open_source(config(tmp_path, max_bad=0.5)).describe().endswith("1 each; 2 without a label.")
    assert [record.error for record in records] == ["", "it has no label", "it has no label", ""]
    pq.write_table(pa.table({"image": images, "text": ["a", None, " ", "b"]}), tmp_path / "x.parquet")
    records = list(open_source(config(tmp_path, max_bad=0.5)).read())
    assert [(record.error, record.caption) for record in records][1:] == [
        ("it has no caption", ""),
        ("it has no caption", ""),
        ("", "b"),
    ]


def test_captions_in_lists_of_structs_are_read(tmp_path: Path) -> None:
    captions = [
        [{"raw": "a cat", "tokens": ["a", "cat"]}, {"raw": "one cat", "tokens": []}],
        [{"raw": "b", "tokens": []}],
    ]
    pq.write_table(pa.table({"image": [png(0), png(1)], "sentences": captions}), tmp_path / "x.parquet")
    source = open_source(config(tmp_path))
    assert source.has_captions
    assert (source.load(0).captions, source.captions(1)) == (("a cat", "one cat"), ("b",))


def test_parquet_files_that_differ_are_read_the_same_way_or_named(tmp_path: Path) -> None:
    first = pa.table({"image": [png(0)], "label": pa.array([0], pa.int32())})
    second = pa.table({"image": [png(1)], "label": pa.array([1], pa.int64()), "extra": ["x"]})
    pq.write_table(first, tmp_path / "train-0.parquet")
    pq.write_table(second, tmp_path / "train-1.parquet")
    assert labels(open_source(config(tmp_path))) == [0, 1]
    for column, there in (({"image": [png(1)], "label": ["b"]}, "label"), ({"label": [1]}, "image")):
        pq.write_table(pa.table(column), tmp_path / "train-1.parquet")
        with pytest.raises(AdaNATError, match=f"Column '{there}' is .* in train-1.parquet"):
            open_source(config(tmp_path))


def test_paths_in_a_table_never_lead_out_of_the_data_set(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside.png", tmp_path / "data/pictures/0.png"
    inside.parent.mkdir(parents=True)
    for file in (outside, inside):
        file.write_bytes(png(7))
    paths = ["pictures/0.png", str(inside), str(outside), "../outside.png", "pictures/../../outside.png"]
    images = [{"bytes": None, "path": path} for path in paths]
    table = pa.table({"image": pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()}))})
    pq.write_table(table, tmp_path / "data/train.parquet")
    for streaming in (False, True):
        records = list(open_source(config(tmp_path / "data", max_bad=1.0, streaming=streaming)).read())
        assert [bool(record.error) for record in records] == [False, False, True, True, True]


def test_a_folder_of_save_to_disk_is_read_by_split(tmp_path: Path) -> None:
    import datasets

    part = datasets.Dataset.from_dict({"image": [png(0), png(1)], "label": ["b", "a"]})
    part.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": part, "valid": part.select([1])}).save_to_disk(str(tmp_path / "two"))
    assert labels(open_source(config(tmp_path / "one"))) == [1, 0]
    assert numbers(open_source(config(tmp_path / "two", split="validation"))) == [1]
    with pytest.raises(MissingSplit, match="no validation split"):
        open_source(config(tmp_path / "one", split="validation"))


@pytest.mark.parametrize("name", ["train.tar", "train.tar.gz", "train.tgz"])
def test_words_as_labels_of_tars_are_classes(tmp_path: Path, name: str) -> None:
    file = write_tar(tmp_path / "plain", range(7), json=b'{"label": "kind %"}')
    content = file.read_bytes()
    file.unlink()
    (tmp_path / name).write_bytes(gzip.compress(content) if "gz" in name else content)
    source = open_source(config(tmp_path))
    assert labels(source) == [0, 1, 2, 0, 1, 2, 0]
    assert source.class_names == {0: "kind 0", 1: "kind 1", 2: "kind 2"}


@pytest.mark.parametrize(
    ("extras", "errors"),
    [
        ({"cls": b"1\n"}, ""),
        ({"cls": b" 2.0 "}, ""),
        ({"json": b'{"label": "1"}'}, ""),
        ({"json": b'{"label": true}'}, ""),
        ({"cls": b""}, "it has no label"),
        ({"json": b'{"label": 7}'}, "its label is 7"),
        ({"json": b'{"label": 0.5}'}, "it has no label"),
        ({"cls": b"9" * 5000}, "it has no label"),
        ({"cls": b"x" * 5000}, "it has no label"),
    ],
)
def test_labels_of_tars_are_read_or_the_image_is_skipped(tmp_path: Path, extras: dict[str, bytes], errors: str) -> None:
    write_tar(tmp_path / "x.tar", range(2), **extras)
    for record in open_source(config(tmp_path, num_classes=3)).read():
        assert record.error.startswith(errors)
        assert bool(record.error) == bool(errors)
        assert errors or record.label > 0


def test_tars_hold_images_of_several_kinds_and_members_that_are_not_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        members = {"0.png": png(0), "0.pkl": b"cos\nsystem\n", "0.txt": b"a", "1.PPM": b"P5 8 8 255\n" + bytes(64)}
        for name, content in {**members, "1.txt": b"b", "._1.txt": b"litter", "1.npy": b""}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    records = list(open_source(config(tmp_path)).read())
    assert [(record.error, record.caption) for record in records] == [("", "a"), ("", "b")]


def test_a_tar_with_an_endless_name_is_refused_unread(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**33
    (tmp_path / "x.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(AdaNATError, match="damaged from its beginning"):
        open_source(config(tmp_path))


def test_a_part_of_a_hub_data_set_is_found_by_any_of_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(name: str, split: str, **_: object) -> datasets.Dataset:
        if split not in there:
            raise ValueError(f"Unknown split {split!r}.")
        return datasets.Dataset.from_dict({"image": [png(len(split))], "label": [0]})

    monkeypatch.setattr("datasets.load_dataset", load)
    monkeypatch.setattr("datasets.get_dataset_split_names", lambda *_, **__: there)
    there = ["train", "valid"]
    assert numbers(open_source(config("user/name", split="validation"))) == [5]
    there = ["train", "test"]
    with pytest.raises(MissingSplit, match="user/name has no validation split; it has train, test"):
        open_source(config("user/name", split="validation"))


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (["0.jpg", "0.pkl"], "never read"),
        (["cat/0.jpg", "dog/0.jpg"], "folders of images"),
        (["0.txt"], "begins without images"),
        ([], "no members"),
    ],
)
def test_a_tar_that_is_not_understood_is_refused(tmp_path: Path, members: list[str], words: str) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in members:
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(AdaNATError, match=words):
        open_source(config(tmp_path, num_classes=2))


def test_tables_of_metadata_beside_tars_are_no_images(tmp_path: Path) -> None:
    write_tar(tmp_path / "00000.tar", range(3), txt=b"cat %")
    pq.write_table(pa.table({"url": ["http://x"], "caption": ["y"]}), tmp_path / "00000.parquet")
    assert numbers(open_source(config(tmp_path))) == [0, 1, 2]


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
    assert open_source(config("./digits")).describe() == "digits (train): 2 images in 2 classes, 1 each."
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
        ("digits", {"data_dir": "https://me:pw@host/x"}, "is an address"),
        ("imagenet256", {"data_dir": "/no/such/folder"}, "does not exist"),
    ],
)
def test_missing_data_is_told_in_one_line(source: str, fields: dict[str, str], message: str) -> None:
    with pytest.raises(AdaNATError, match=message) as caught:
        open_source(config(source, **fields))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "field"), [("images", "image_column"), ("digits", "image_column"), ("digits", "data_dir")]
)
def test_an_option_that_would_choose_nothing_is_refused(tmp_path: Path, source: str, field: str) -> None:
    write_class_folder(tmp_path / "images", 2)
    place = str(tmp_path / "images") if source == "images" else source
    with pytest.raises(AdaNATError, match=f"--{field.replace('_', '-')} has no meaning with"):
        open_source(data_config(place, image_size=16, **{field: "x"}))


def test_unfit_columns_are_told_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "x.parquet")
    with pytest.raises(AdaNATError, match="no image column; it has a, b"):
        open_source(config(tmp_path))
    write_parquet(tmp_path / "x.parquet", range(2))
    with pytest.raises(AdaNATError, match="no column 'kind'"):
        open_source(config(tmp_path, label_column="kind"))
    with pytest.raises(AdaNATError, match="labels from 0 to 1; expected 0 to 0"):
        open_source(config(tmp_path, num_classes=1))


@pytest.mark.parametrize(
    "words", [b"5", b"{", b'{"info": 5}', b"[" * 50_000, b"\xff", b'{"info": {"features": {"a": 1}}}']
)
def test_a_description_of_columns_that_makes_no_sense_is_told_in_one_line(tmp_path: Path, words: bytes) -> None:
    table = pa.table({"image": [png(0)], "label": [0]}).replace_schema_metadata({b"huggingface": words})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(AdaNATError, match=r"cannot be opened: x\.parquet") as caught:
        open_source(config(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_damaged_parquet_file_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(AdaNATError, match="cannot be opened") as caught:
        open_source(config(tmp_path))
    assert "\n" not in str(caught.value)


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
