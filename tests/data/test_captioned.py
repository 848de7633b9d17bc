"""Captioned images in the layouts of Conceptual Captions and MS-COCO."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from adanat_cli.core.config import data_config
from adanat_cli.core.data.captioned import is_caption_list, read_caption_list
from adanat_cli.core.data.captions import telling_words
from adanat_cli.core.data.sources import ImageSource, open_source
from adanat_cli.core.errors import AdaNATError
from tests.image_files import SIZE, png, write_class_folder


def opened(place: Path, **fields: object) -> ImageSource:
    return open_source(data_config("cc3m", data_dir=str(place), image_size=SIZE, **fields))


def write_tsv(path: Path, num_rows: int, index: bool = True) -> Path:
    """Rows of key, number, caption and base64 image; row 2's image is no image, row 3 lacks a column."""
    lines = []
    for n in range(num_rows):
        image = base64.b64encode(png(n) if n != 2 else b"no image").decode()
        lines.append(f"key{n}\t{n}\tpicture {n} of café" + ("\n" if n == 3 else f"\t{image}\n"))
    text = [line.encode() for line in lines]
    path.write_bytes(b"".join(text))
    if index:
        starts = [sum(map(len, text[:n])) for n in range(num_rows)]
        path.with_suffix(".lineidx").write_text("".join(f"{start}\n" for start in starts))
    return path


@pytest.mark.parametrize("index", [True, False], ids=["with its index", "without an index"])
def test_a_tsv_has_random_access_and_tells_bad_rows(tmp_path: Path, index: bool) -> None:
    write_tsv(tmp_path / "cc3m_train.tsv", 6, index)
    source = opened(tmp_path)
    assert (source.num_images, source.has_captions, source.num_classes) == (6, True, 1)
    record = source.load(5)
    assert record.pixels is not None
    assert record.pixels[0, 0, 0] == 5
    assert record.captions == ("picture 5 of café",)
    assert source.captions(4) == ("picture 4 of café",)
    assert [bool(record.error) for record in source.read(num_workers=2)] == [False, False, True, True, False, False]
    assert source.load(2).name == "cc3m_train.tsv (row 2)"
    assert [file.suffix for file in sorted(tmp_path.iterdir())] == ([".lineidx", ".tsv"] if index else [".tsv"])


def test_the_index_of_another_file_is_refused(tmp_path: Path) -> None:
    file = write_tsv(tmp_path / "cc3m_train.tsv", 4)
    for offsets in ("0\n17\n", "0\n999999\n", "5\n"):
        file.with_suffix(".lineidx").write_text(offsets)
        with pytest.raises(AdaNATError, match="does not fit cc3m_train") as caught:
            opened(tmp_path)
        assert "\n" not in str(caught.value)
    file.with_suffix(".lineidx").write_text("what?")
    with pytest.raises(AdaNATError, match="cannot be read"):
        opened(tmp_path)


def test_a_validation_file_without_images_serves_for_captions(tmp_path: Path) -> None:
    write_tsv(tmp_path / "cc3m_train.tsv", 2)
    (tmp_path / "cc3m_val.tsv").write_text("caption\turl\na red bus\thttp://x/1.jpg\n broken\n two dogs \thttp://x/2\n")
    with pytest.raises(AdaNATError, match=r"no images.*validation"):
        opened(tmp_path, split="validation")
    assert read_caption_list(tmp_path / "cc3m_val.tsv") == ["a red bus", "two dogs"]
    with pytest.raises(AdaNATError, match="no column caption"):
        read_caption_list(tmp_path / "cc3m_train.tsv")


def test_quotes_around_captions_are_no_part_of_them(tmp_path: Path) -> None:
    image = base64.b64encode(png(1)).decode()
    captions = ['"a ""red"" bus"', '"with a\ttab"', '"to be" or "not"', '"', '5" wide', "plain"]
    (tmp_path / "cc3m_train.tsv").write_text("".join(f"k\t1\t{caption}\t{image}\r\n" for caption in captions))
    plain = ['a "red" bus', "with a\ttab", '"to be" or "not"', '"', '5" wide', "plain"]
    assert [record.caption for record in opened(tmp_path).read()] == plain
    assert [opened(tmp_path).captions(row)[0] for row in range(6)] == plain
    (tmp_path / "cc3m_val.tsv").write_text('"caption"\t"url"\n' + "".join(f"{text}\tx\n" for text in captions))
    assert read_caption_list(tmp_path / "cc3m_val.tsv") == plain


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_caption_lists_are_read_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "cc3m_val.tsv").write_bytes("caption\turl\r\nein Café\u2028dort\tx\r\n".encode(encoding))
    assert is_caption_list(tmp_path / "cc3m_val.tsv")
    assert read_caption_list(tmp_path / "cc3m_val.tsv") == ["ein Café\u2028dort"]


def test_other_tables_beside_images_decide_nothing(tmp_path: Path) -> None:
    write_class_folder(tmp_path, 2)
    (tmp_path / "sizes.tsv").write_text("cat/000.png\t8\t8\n")
    assert open_source(data_config(str(tmp_path), image_size=SIZE)).class_names == {0: "cat", 1: "dog"}


def test_a_file_that_git_has_not_fetched_is_told(tmp_path: Path) -> None:
    for name in ("cc3m_train.tsv", "train.parquet", "train.tar"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
        for place in (tmp_path, tmp_path / name):
            with pytest.raises(AdaNATError, match=rf"{name} is a Git LFS pointer"):
                open_source(data_config(str(place), image_size=SIZE))
        (tmp_path / name).unlink()


def write_coco(folder: Path) -> Path:
    """Karpathy's four splits, one image each, five captions each."""
    rows = []
    for n, (place, split) in enumerate([("train2014", "train"), ("val2014", "val"), ("val2014", "test")] * 2):
        name = f"COCO_{place}_{n:012d}.png"
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / place / name).write_bytes(png(n))
        sentences = [{"raw": f"Picture {n}, said {voice}. "} for voice in range(5)]
        rows.append({"filepath": place, "filename": name, "split": split, "sentences": sentences})
    (folder / "dataset_coco.json").write_text(json.dumps({"images": rows, "dataset": "coco"}))
    return folder


def test_coco_is_split_into_train2014_and_val2014(tmp_path: Path) -> None:
    write_coco(tmp_path)
    sources = [
        open_source(data_config("mscoco", data_dir=str(tmp_path), image_size=SIZE, split=split))
        for split in ("train", "validation")
    ]
    assert [source.num_images for source in sources] == [2, 4]
    record = sources[0].load(1)
    assert record.pixels is not None
    assert record.pixels[0, 0, 0] == 3
    assert record.captions == tuple(f"Picture 3, said {voice}." for voice in range(5))
    assert sources[1].captions(0)[4] == "Picture 1, said 4."


def test_a_list_of_coco_never_leads_out_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_coco(tmp_path / "coco")
    (tmp_path / "outside.png").write_bytes(png(9))
    listed = (folder / "dataset_coco.json").read_text().replace("train2014/", "").replace('"train2014"', '".."')
    (folder / "dataset_coco.json").write_text(listed.replace("COCO_train2014_000000000000.png", "outside.png"))
    monkeypatch.chdir(folder)
    for place in (".", str(folder)):
        source = open_source(data_config("mscoco", data_dir=place, image_size=SIZE))
        assert source.load(0).error == "no image data, or none within the data set"


def test_missing_and_damaged_coco_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(AdaNATError, match=r"mscoco has no public home.*--data-dir"):
        open_source(data_config("mscoco"))
    row = {"filepath": "train2014", "filename": "1.jpg", "split": "train", "sentences": [{"raw": "x"}]}
    for change, told in [
        ({"sentences": [{"raw": 5}]}, "not Karpathy's list"),
        ({"split": "val"}, "no images of the train split"),
    ]:
        (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": [{**row, **change}]}))
        with pytest.raises(AdaNATError, match=told):
            open_source(data_config("mscoco", data_dir=str(tmp_path)))
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": [{**row, "filename": "\ud83d.jpg"}]}))
    source = open_source(data_config("mscoco", data_dir=str(tmp_path)))
    assert source.load(0).error
    assert source.identity()
    for damaged in ('{"images": [{}]}', "[1]", "5"):
        (tmp_path / "dataset_coco.json").write_text(damaged)
        with pytest.raises(AdaNATError, match="not Karpathy's list"):
            open_source(data_config("mscoco", data_dir=str(tmp_path)))


def test_words_that_distinguish_images_come_in_the_captions_order() -> None:
    captions = ["zebra apple", "apple zebra", "moon cat", "cat moon", "tree", "tree"]
    assert telling_words(captions) == ("zebra", "apple", "moon", "cat", "tree")
