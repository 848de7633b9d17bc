"""Folders of images as people have them: what they mean is understood, refused in one line, or told in a note."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adanat_cli.core.config import data_config
from adanat_cli.core.data import source_files
from adanat_cli.core.data.sources import ImageSource, open_source
from adanat_cli.core.data.splits import split_of_folder
from adanat_cli.core.errors import AdaNATError, MissingSplit
from tests.image_files import SIZE, png


def write(root: Path, *files: str) -> Path:
    """Images by name; what has no suffix of an image holds its own name instead."""
    for number, name in enumerate(files):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode() if file.suffix in (".txt", ".xml", ".md", "") else png(number))
    return root


def opened(place: Path, **fields: object) -> ImageSource:
    return open_source(data_config(str(place), image_size=SIZE, max_bad=0.5, **fields))


def classes(place: Path, **fields: object) -> list[str]:
    """``class: file`` of every image, in order; no image may be unreadable."""
    source = opened(place, **fields)
    records = list(source.read())
    assert not any(record.error for record in records)
    return [f"{source.class_names.get(record.label, '')}: {record.name}" for record in records]


def refusal(place: Path, **fields: object) -> str:
    with pytest.raises(AdaNATError) as caught:
        opened(place, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


CAT_DOG = ["cat: cat/1.png", "dog: dog/1.png"]


@pytest.mark.parametrize(
    "above", ["photos", "train", "data/images", "photos/train", "train/photos", "Training", "a/b/c"]
)
def test_levels_of_one_folder_are_no_classes(tmp_path: Path, above: str) -> None:
    write(tmp_path / above, "cat/1.png", "dog/1.png")
    write(tmp_path, "__MACOSX/train/cat/1.png", "@eaDir/x.png", ".hidden/x.png", above + "/cat/._1.png", "README.md")
    assert classes(tmp_path) == CAT_DOG


def test_one_folder_of_images_is_one_class(tmp_path: Path) -> None:
    assert classes(write(tmp_path, "cat/1.png", "cat/2.png")) == ["cat: cat/1.png", "cat: cat/2.png"]


def test_images_without_folders_have_no_class_of_an_empty_name(tmp_path: Path) -> None:
    source = opened(write(tmp_path / "x", "1.png", "2.png"))
    assert (source.class_names, source.num_classes) == ({}, 1)
    assert source.describe() == "x (train): 2 images without classes."


def test_an_image_beside_the_class_folders_is_left_out_and_listed(tmp_path: Path) -> None:
    write(tmp_path / "x", "cat/1.png", "dog/1.png", "preview.png")
    assert classes(tmp_path / "x") == CAT_DOG
    assert opened(tmp_path / "x").describe() == (
        "x (train): 2 images in 2 classes (cat, dog), 1 each; left out: 1 image beside the class folders (preview.png)."
    )
    write(tmp_path / "x", "another.png")
    assert "holds 2 images in folders and 2 beside them" in refusal(tmp_path / "x")


def test_images_beside_folders_of_splits_and_lone_folders_are_left_out_too(tmp_path: Path) -> None:
    write(tmp_path / "a", "photos/cat/1.png", "photos/dog/1.png", "x.png")
    write(tmp_path / "b", "train/cat/1.png", "train/dog/1.png", "val/cat/1.png", "x.png", "masks/1.png")
    assert classes(tmp_path / "a") == classes(tmp_path / "b") == CAT_DOG
    assert "left out: 1 image beside photos/ (x.png)" in opened(tmp_path / "a").notes
    assert len(opened(tmp_path / "b").notes) == 2


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("training_set", "test_set", "test"),
        ("train_images", "val_images", "validation"),
        ("train2017", "val2017", "validation"),
        ("Training", "Testing", "test"),
        ("images_train", "images-valid", "validation"),
        ("trainset", "devset", "validation"),
        ("TrainImages", "TestImages", "test"),
        ("train", "test-data", "test"),
        ("training", "evaluation", "validation"),
        ("train", "holdout_set", "validation"),
    ],
)
def test_folders_named_after_splits_are_no_classes(tmp_path: Path, train: str, other: str, split: str) -> None:
    write(tmp_path / train, "cat/1.png", "dog/1.png")
    write(tmp_path / other, "cat/1.png", "dog/2.png")
    assert classes(tmp_path) == CAT_DOG
    if split == "validation":
        assert classes(tmp_path, split="validation") == ["cat: cat/1.png", "dog: dog/2.png"]
    else:
        with pytest.raises(MissingSplit, match="it has test, train"):
            opened(tmp_path, split="validation")


@pytest.mark.parametrize("name", ["bullet_train", "test_tube", "training dogs", "trainer", "value", "devil", "images"])
def test_names_that_only_contain_a_split_are_none(name: str) -> None:
    assert split_of_folder(name) == ""


def test_splits_may_lie_in_the_class_folders(tmp_path: Path) -> None:
    write(tmp_path, *(f"{animal}/{split}/1.png" for animal in ("cat", "dog") for split in ("train", "test", "val")))
    assert classes(tmp_path) == ["cat: cat/train/1.png", "dog: dog/train/1.png"]
    assert classes(tmp_path, split="validation") == ["cat: cat/val/1.png", "dog: dog/val/1.png"]


def test_one_folder_named_after_a_split_is_a_class_unless_it_holds_classes(tmp_path: Path) -> None:
    assert classes(write(tmp_path / "a", "bus/1.png", "train/1.png")) == ["bus: bus/1.png", "train: train/1.png"]
    write(tmp_path / "b", "cat/1.png", "dog/1.png", "test/cat/1.png", "test/dog/1.png")
    assert "holds test/ with class folders of its own, and beside it cat/, dog/" in refusal(tmp_path / "b")


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "train/cat/1.png", "training/cat/1.png", "val/cat/1.png")
    assert "several folders of the train split" in refusal(tmp_path)


def test_the_validation_split_is_numbered_as_train_is(tmp_path: Path) -> None:
    write(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/dog/1.png")
    assert classes(tmp_path, split="validation") == ["dog: dog/1.png"]
    assert opened(tmp_path, split="validation").load(0).label == 1
    write(tmp_path, "val/bird/1.png", "val/images/1.png")
    assert "val has bird/, images/, which the train split lacks" in refusal(tmp_path, split="validation")
    write(tmp_path / "numbers", "train/3/1.png", "val/3/1.png", "val/1/1.png")
    assert [record.label for record in opened(tmp_path / "numbers", split="validation").read()] == [1, 3]


def test_folders_in_class_folders_belong_to_them_and_are_told(tmp_path: Path) -> None:
    write(tmp_path, "cat/batch1/1.png", "cat/batch2/1.png", "dog/batch1/1.png", "notes/x.xml")
    source = opened(tmp_path)
    assert source.class_names == {0: "cat", 1: "dog"}
    assert source.notes == (
        "classes are the outer folders, with all images in batch1/, batch2/ inside them",
        "no images in notes/",
    )


def test_links_multiply_nothing(tmp_path: Path) -> None:
    data = write(tmp_path / "data", "a/1.png", "b/1.png", "c/1.png")
    expected = ["a: a/1.png", "b: b/1.png", "c: c/1.png"]
    (data / "a/up").symlink_to("..")
    (data / "a/further").symlink_to("../..")
    (data / "a/itself").symlink_to("itself")
    (data / "a/b").symlink_to("../b")
    (data / "b/a").symlink_to(data / "a")
    assert classes(data) == expected
    for level in range(24):  # two links each: 2^24 ways to the last
        for name in "xy":
            (data / f"a/{level}").mkdir(exist_ok=True)
            (data / f"a/{level}/{name}").symlink_to(f"../{level + 1}")
    assert classes(data) == expected


def test_a_link_to_a_folder_elsewhere_is_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "store/1.png", "data/dog/1.png")
    (tmp_path / "data/cat").symlink_to(tmp_path / "store")
    assert classes(tmp_path / "data") == CAT_DOG


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "JPEG", "avif", "dib", "pbm"])
def test_images_count_whatever_their_suffix(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, f"cat/1.{suffix}", "dog/1.png")
    assert classes(tmp_path) == [f"cat: cat/1.{suffix}", "dog: dog/1.png"]


def test_images_that_cannot_be_read_here_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "cat/1.png", "cat/2.png")
    (tmp_path / "cat/3.heic").write_bytes(b"\0\0\0\x18ftypheic")
    assert [bool(record.error) for record in opened(tmp_path).read()] == [False, False, True]


def test_folders_named_by_large_numbers_are_numbered_in_order(tmp_path: Path) -> None:
    source = opened(write(tmp_path, "99999999999/1.png", "10000000000000000000000/1.png", "7/1.png"))
    assert source.num_classes == 3
    assert set(source.class_names.values()) == {"99999999999", "10000000000000000000000", "7"}


def test_names_that_are_no_text_are_escaped(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "x") + b"/caf\xe9"
    os.makedirs(folder)
    for name in (b"1\xff.png", b"2\n\x1b[31m.png"):
        with open(folder + b"/" + name, "wb") as file:
            file.write(png(1))
    write(tmp_path / "x", "dog/1.png")
    os.rename(tmp_path / "x", os.fsencode(tmp_path) + b"/x\xff")
    source = tmp_path / "x\udcff"
    assert opened(source).describe() == (
        "x\\udcff (train): 3 images in 2 classes, from 1 (dog) to 2 (caf\\udce9) each."
    )
    assert classes(source) == [
        "caf\\udce9: caf\\udce9/1\\udcff.png",
        "caf\\udce9: caf\\udce9/2\\u000a\\u001b[31m.png",
        "dog: dog/1.png",
    ]


def test_a_place_that_is_no_data_set_is_refused_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "whole file system" in refusal(Path("/"))
    monkeypatch.setattr(source_files, "_MOST_OTHERS", 20)
    write(tmp_path, "icons/1.png", *(f"etc/{n}/{n}.txt" for n in range(200)))
    assert "hardly an image" in refusal(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    (write(tmp_path, "cat/1.png", "dog/1.png") / "dog").chmod(0)
    assert "dog cannot be read" in refusal(tmp_path)
    (tmp_path / "dog").chmod(0o700)


def captions(place: Path, **fields: object) -> list[tuple[str, ...]]:
    source = opened(place, **fields)
    assert source.has_captions
    assert [source.captions(row) for row in range(source.num_images or 0)] == [r.captions for r in source.read()]
    return [record.captions for record in source.read()]


ROWS = [{"file_name": "2.png", "text": "a “dog”, here"}, {"file_name": "in/1.png", "text": "a cat\u2028there"}]
TOLD = [("a “dog”, here",), ("a cat\u2028there",)]


def write_table(place: Path, kind: str) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    csv = '"file_name","text"\r\n' + "".join(f'"{row["file_name"]}","{row["text"]}"\r\n' for row in ROWS)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), place / "metadata.parquet")
    else:
        content, encoding = (csv, kind[4:]) if kind.startswith("csv ") else (lines, kind[6:])
        (place / f"metadata.{kind.split()[0]}").write_bytes(content.encode(encoding))


@pytest.mark.parametrize(
    "kind", ["jsonl utf-8", "jsonl utf-8-sig", "jsonl utf-16", "csv utf-8-sig", "csv utf-16", "parquet"]
)
@pytest.mark.parametrize("above", ["", "train", "pictures"])
def test_captions_come_from_metadata_files(tmp_path: Path, kind: str, above: str) -> None:
    write_table(write(tmp_path / above, "2.png", "in/1.png"), kind)
    assert captions(tmp_path) == TOLD


def test_metadata_above_the_splits_and_several_captions_of_an_image(tmp_path: Path) -> None:
    write(tmp_path, "train/1.png", "val/1.png")
    rows = [("train/1.png", "a cat"), ("train/1.png", "a pet"), ("./val/1.png", "a dog"), ("val/gone.png", "x")]
    lines = [json.dumps({"file_name": file, "caption": text, "width": 8}) for file, text in rows]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    assert captions(tmp_path) == [("a cat", "a pet")]
    assert captions(tmp_path, split="validation") == [("a dog",), ("x",)]
    assert [bool(record.error) for record in opened(tmp_path, split="validation").read()] == [False, True]


def test_labels_come_from_metadata_files_too(tmp_path: Path) -> None:
    write(tmp_path, "1.png", "2.png", "3.png")
    (tmp_path / "metadata.csv").write_text("file_name,label\n1.png,dog\n2.png,cat\n3.png,dog\n")
    assert classes(tmp_path) == ["dog: 1.png", "cat: 2.png", "dog: 3.png"]
    (tmp_path / "metadata.csv").write_text("file_name,label\n1.png,2\n2.png,0\n3.png,0\n")
    assert [record.label for record in opened(tmp_path).read()] == [2, 0, 0]


def test_halves_of_characters_in_json_are_no_part_of_captions_and_class_names(tmp_path: Path) -> None:
    write(tmp_path, "1.png", "2.png")
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "1.png", "text": "a \\ud83d"}\n{"file_name": "2.png", "text": "\\ud83d\\udc36"}'
    )
    assert captions(tmp_path) == [("a \ufffd",), ("\U0001f436",)]
    (tmp_path / "2.png").unlink()
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "1.png", "label": "a \\ud83d"}')
    assert opened(tmp_path).class_names == {0: "a \\ud83d"}


def test_images_without_a_caption_are_counted_and_those_not_named_left_out(tmp_path: Path) -> None:
    write(tmp_path, "1.png", "2.png", "3.png", "4.png")
    rows = [("1.png", "a cat"), ("2.png", None), ("3.png", " ")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps({"file_name": f, "text": t}) for f, t in rows))
    source = opened(tmp_path)
    assert [record.error for record in source.read()] == ["", "it has no caption", "it has no caption"]
    assert "left out: 1 not named there (4.png)" in source.notes


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"file_name": "../secret.png", "text": "x"}', "outside the data set"),
        ('{"file_name": "/etc/x.png", "text": "x"}', "outside the data set"),
        ('{"file_name": "..\\\\secret.png", "text": "x"}', "outside the data set"),
        ('{"file_name": "\\ud83d.png", "text": "x"}', "outside the data set"),
        ('{"file_name": "a\\u0000.png", "text": "x"}', "outside the data set"),
        ("version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        ('{"text": "x"}', "row without file_name"),
        ('{"file_name": 5, "text": "x"}', "row without file_name"),
        ('{"file_name": "1.png", "text": "x"', "cannot be read as JSON"),
        ("[" * 9999, "cannot be read as JSON"),
        ('["1.png"]', "expected one JSON object per line"),
        ('{"file_name": "1.png", "text": "x"}', "does not name, such as 2.png"),
        ("\udcff", "cannot be read"),
    ],
)
def test_damaged_and_dangerous_metadata_is_refused_in_one_line(tmp_path: Path, content: str, told: str) -> None:
    write(tmp_path / "data", "1.png", "2.png", "3.png")
    (tmp_path / "data/metadata.jsonl").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert told in refusal(tmp_path / "data")


def test_metadata_that_is_a_pipe_does_not_hang(tmp_path: Path) -> None:
    for kind in ("jsonl", "parquet"):
        place = write(tmp_path / kind, "1.png")
        os.mkfifo(place / f"metadata.{kind}")
        assert "a pipe" in refusal(place)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_files_beside_images_are_captions(tmp_path: Path, encoding: str) -> None:
    write(tmp_path, "a/1.png", "a/2.jpg", "b/3.png", "README.txt")
    for name, text in (("a/1", "a red café"), ("a/2", "two\r\ncaptions\n"), ("b/3", "3 birds")):
        (tmp_path / f"{name}.txt").write_bytes(text.encode(encoding))
    assert captions(tmp_path) == [("a red café",), ("two", "captions"), ("3 birds",)]
    assert opened(tmp_path).notes == ("captions from .txt files beside the images, folders are not classes",)


def test_boxes_beside_images_are_no_captions(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png", "b/1.png")
    for name in ("a", "b"):
        (tmp_path / name / "1.txt").write_text("0 0.5 0.5 0.25 1e-3\n3 0.1 0.1 0.2 0.2\n")
    assert classes(tmp_path) == ["a: a/1.png", "b: b/1.png"]
    assert opened(tmp_path).notes == ("the .txt files beside the images hold numbers, not captions",)


@pytest.mark.parametrize("name", ["1.TXT", "1.png.txt", "1.Caption"])
def test_captions_are_found_whatever_the_capitals_and_beside_the_whole_name(tmp_path: Path, name: str) -> None:
    write(tmp_path, "1.png")
    (tmp_path / name).write_text("a red bird")
    assert captions(tmp_path) == [("a red bird",)]


def test_what_is_not_read_beside_images_without_classes_is_told(tmp_path: Path) -> None:
    write(tmp_path, "1.png", "labels.csv")
    assert opened(tmp_path).notes == ("not read: labels.csv",)


def test_an_image_of_two_labels_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "1.png")
    rows = [json.dumps({"file_name": "1.png", "label": label}) for label in ("cat", "dog")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    assert "metadata.jsonl gives 1.png several labels (cat, dog)" in refusal(tmp_path)
