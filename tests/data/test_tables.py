"""Parquet and other tables: labels, captions and columns of every kind, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adanat_cli.core.data.sources import open_source
from adanat_cli.core.errors import AdaNATError, MissingSplit
from tests.data.test_sources import config, labels, numbers, write_parquet
from tests.image_files import png


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


def test_rows_of_which_none_has_a_label_are_refused_however_many_may_be_bad(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [png(0)], "label": [-1]}), tmp_path / "x.parquet")
    with pytest.raises(AdaNATError, match=r"1 of the 1 images .* no label"):
        open_source(config(tmp_path, max_bad=1.0))


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


def test_columns_that_are_not_read_are_told_where_there_are_no_classes(tmp_path: Path) -> None:
    table = pa.table({"image": [{"bytes": png(1), "path": None}], "breed": ["pug"]})
    pq.write_table(table, tmp_path / "train.parquet")
    told = open_source(config(tmp_path)).notes
    assert told == ("not read: breed (--label-column and --caption-column take a column)",)
