"""Webdataset tars: what their members are, and what is refused."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adanat_cli.core.data.sources import open_source
from adanat_cli.core.errors import AdaNATError
from tests.data.test_sources import config, labels, numbers, write_tar
from tests.image_files import png


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


def test_labels_that_begin_late_are_no_images_without_classes(tmp_path: Path) -> None:
    members = [f"{n}.png" for n in range(8)] + ["7.cls"]
    with tarfile.open(tmp_path / "late.tar", "w") as tar:
        for name in members:
            content = png(1) if name.endswith("png") else b"1"
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    with pytest.raises(AdaNATError, match=r"late.tar has .cls of 7, but its first images have no label"):
        open_source(config(tmp_path / "late.tar"))


def test_the_classes_of_tars_here_are_counted(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", range(6), cls=b"0%")
    write_tar(tmp_path / "train-1.tar", range(6, 8), cls=b"1%")
    assert open_source(config(tmp_path)).num_classes == 12
    write_tar(tmp_path / "train-2.tar", range(8, 9), cls=b"cat")
    assert open_source(config(tmp_path)).class_names == {0: "0", 1: "1", 2: "10", 3: "11", 4: "2", 5: "cat"}
