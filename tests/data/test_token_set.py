from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adanat_cli.core.data.caption_states import NULL_STATES, states_file, write_states
from adanat_cli.core.data.token_set import TokenSet
from adanat_cli.core.data.token_shards import (
    SUMMARY,
    Shard,
    TokenSetInfo,
    read_header,
    shard_files,
    write_shard,
)
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.reading import sha256_of
from tests.mutations import as_json, mutations

INFO = TokenSetInfo(
    image_size=16,
    grid=(4, 4),
    codebook_size=1024,
    tokenizer_fingerprint="f00d",
    condition="class",
    num_classes=3,
    has_flips=True,
    class_names={0: "crane", 1: "crane", 2: "cat"},
    source="test (train)",
)


def shard(start: int, stop: int, plan: str = "one", text: bool = False) -> Shard:
    rows = np.arange(start, stop)
    tokens = ((rows[:, None] * 16 + np.arange(16)) % 1024).astype(np.uint16)
    captions = [[f"image {row}", f"picture {row}"][: 1 + row % 2] for row in rows] if text else []
    return Shard({"data": plan}, start, stop, {"bad.png": "empty"}, tokens, tokens[:, ::-1].copy(), rows % 3, captions)


def write_set(folder: Path, info: TokenSetInfo = INFO, second: Shard | None = None, text: bool = False) -> Path:
    write_shard(folder / "tokens-00000-of-00002.parquet", info, shard(0, 5, text=text))
    write_shard(folder / "tokens-00001-of-00002.parquet", info, second or shard(5, 8, text=text))
    (folder / SUMMARY).write_text('{"num_shards": 2}')
    return folder


def test_a_set_comes_back_as_written(tmp_path: Path) -> None:
    tokens = TokenSet.open(write_set(tmp_path))
    assert len(tokens) == 8
    assert tokens.info == INFO
    assert tokens.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    ids, labels = tokens.batch(np.array([7, 0]), np.array([False, True]))
    assert (ids.dtype, ids.shape) == (np.int64, (2, 16))
    assert ids[0].tolist() == list(range(112, 128))
    assert ids[1].tolist() == list(range(16))[::-1]
    assert labels.tolist() == [1, 0]


def test_a_set_is_opened_without_pandas(tmp_path: Path) -> None:
    opening = f"from adanat_cli.core.data.token_set import TokenSet; TokenSet.open({str(write_set(tmp_path))!r})"
    code = f"import sys; {opening}; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_same_shard_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shard(tmp_path / name, INFO, shard(0, 5))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_datasets_opens_the_shards_with_types_and_names(tmp_path: Path) -> None:
    import datasets

    data_files = sorted(map(str, write_set(tmp_path / "").glob("*.parquet")))
    table = datasets.load_dataset("parquet", data_files=data_files, split="train", cache_dir=str(tmp_path / "cache"))
    assert table.features["tokens"] == datasets.List(datasets.Value("uint16"), length=16)
    assert table.features["label"].names == ["crane (0)", "crane (1)", "cat"]
    assert table.num_rows == 8
    assert table[1]["tokens_flipped"] == list(range(16, 32))[::-1]


def test_captions_take_the_place_of_labels(tmp_path: Path) -> None:
    info = TokenSetInfo(16, (4, 4), 1024, "f00d", "text", 1, True)
    tokens = TokenSet.open(write_set(tmp_path, info, text=True))
    assert tokens.num_captions == 12
    none = np.zeros(4, np.bool_)
    _, numbers = tokens.batch(np.array([6, 1, 1, 7]), none, np.array([0.9, 0.4, 0.5, 0.99]))
    assert tokens.captions(numbers) == ["image 6", "image 1", "picture 1", "picture 7"]
    assert tokens.captions(tokens.batch(np.array([7, 3]), none[:2])[1]) == ["image 7", "image 3"]
    assert tokens.captions(np.array([-1, 0])) == ["", "image 0"]
    with pytest.raises(AdaNATError, match="class labels"):
        TokenSet.open(write_set(tmp_path)).captions(np.array([0]))


def test_encoded_captions_are_read_from_beside_the_shards(tmp_path: Path) -> None:
    info = TokenSetInfo(16, (4, 4), 1024, "f00d", "text", 1, True, text_encoder="clip", text_width=2, text_length=3)
    write_set(tmp_path, info, text=True)
    states = np.arange(12 * 6, dtype=np.float16).reshape(12, 3, 2)
    write_states(states_file(tmp_path / "tokens-00000-of-00002.parquet"), [states[:3], states[3:7]], (7, 3, 2))
    write_states(tmp_path / NULL_STATES, [-np.ones((1, 3, 2))], (1, 3, 2))
    with pytest.raises(AdaNATError, match=r"tokens-00001-of-00002.states.npy does not hold the encoded captions"):
        TokenSet.open(tmp_path)
    write_states(states_file(tmp_path / "tokens-00001-of-00002.parquet"), [states[7:11]], (4, 3, 2))
    with pytest.raises(AdaNATError, match=r"expected \(5, 3, 2\) in float16"):
        TokenSet.open(tmp_path)
    write_states(states_file(tmp_path / "tokens-00001-of-00002.parquet"), [states[7:]], (5, 3, 2))
    opened = TokenSet.open(hashed(tmp_path)).states
    assert opened is not None
    numbers = np.array([11, -1, 0, 7, 6])
    assert np.array_equal(opened.read(numbers), np.where(numbers[:, None, None] < 0, -1, states[numbers]))
    for file in tmp_path.glob("*.npy"):
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(AdaNATError, match=f"{file.name} is not what was written"):
            TokenSet.open(tmp_path)
        file.write_bytes(whole)


def test_a_header_tells_range_and_skipped_images(tmp_path: Path) -> None:
    header = read_header(write_set(tmp_path) / "tokens-00001-of-00002.parquet")
    assert (header.start, header.stop, header.num_rows) == (5, 8, 3)
    assert header.skipped == {"bad.png": "empty"}
    assert json.dumps(header.plan) == '{"data": "one"}'


def test_incomplete_foreign_and_damaged_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AdaNATError, match="no token shards"):
        TokenSet.open(tmp_path)
    write_set(tmp_path, second=shard(5, 8, plan="two"))
    with pytest.raises(AdaNATError, match="another token set"):
        TokenSet.open(tmp_path)
    write_set(tmp_path, second=shard(6, 8))
    with pytest.raises(AdaNATError, match="missing before"):
        TokenSet.open(tmp_path)
    (tmp_path / SUMMARY).unlink()
    with pytest.raises(AdaNATError, match="not complete"):
        TokenSet.open(tmp_path)
    write_set(tmp_path)
    file = tmp_path / "tokens-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(AdaNATError, match="not a complete shard"):
        TokenSet.open(tmp_path)


def test_a_set_without_its_last_shard_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "tokens-00001-of-00002.parquet").unlink()
    with pytest.raises(AdaNATError, match="holds 1 shards, but"):
        TokenSet.open(tmp_path)


def hashed(folder: Path) -> Path:
    """The set with a summary as `tokenize` writes it."""
    shards = shard_files(folder)
    hashes = {file.name: sha256_of(file) for file in (*shards, *folder.glob("*.npy"))}
    (folder / SUMMARY).write_text(json.dumps({"num_shards": len(shards), "sha256": hashes}))
    return folder


@pytest.mark.parametrize("noted", [True, False])
def test_a_flipped_bit_never_passes(tmp_path: Path, noted: bool) -> None:
    write_set(tmp_path)
    if noted:
        hashed(tmp_path)
    file = tmp_path / "tokens-00001-of-00002.parquet"
    whole = file.read_bytes()
    # Without the hash, the checksums guard the pages, which come first; the rest is the description of the file.
    end = len(whole) if noted else pq.ParquetFile(file).metadata.row_group(0).column(0).total_compressed_size
    for place in range(4, end, 37):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(AdaNATError, match=r"tokens-00001-of-00002\.parquet|Column"):
            TokenSet.open(tmp_path)
    file.write_bytes(whole)
    assert len(TokenSet.open(tmp_path)) == 8


def test_sets_without_hashes_and_checksums_are_read(tmp_path: Path) -> None:
    file = write_set(tmp_path) / "tokens-00000-of-00002.parquet"
    table = pq.read_table(file)
    about = json.loads(table.schema.metadata[b"adanat_shard"])
    del about["skipped_at"]
    table = table.replace_schema_metadata({**table.schema.metadata, b"adanat_shard": json.dumps(about)})
    pq.write_table(table, file, compression="zstd")
    assert len(TokenSet.open(tmp_path)) == 8
    assert read_header(file).skipped_at is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": 1024}, "holds token id 1024, but the codebook has 1,024; remove it"),
        ({"tokens_flipped": 65535}, "holds token id 65535"),
        ({"labels": 3}, "holds label 3, but the set has 3 classes"),
        ({"labels": -1}, "holds label -1"),
    ],
)
def test_ids_and_labels_that_do_not_exist_are_refused(tmp_path: Path, changes: dict[str, int], message: str) -> None:
    second = shard(5, 8)
    for name, value in changes.items():
        array = getattr(second, name).copy()
        array.reshape(-1)[-1] = value
        second = replace(second, **{name: array})
    with pytest.raises(AdaNATError, match=f"tokens-00001-of-00002.parquet {message}"):
        TokenSet.open(write_set(tmp_path, second=second))


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("tokens", [[1.5] * 16] * 5),
        ("tokens", [[1] * 15] * 5),
        ("tokens", [[1] * 16] * 4 + [None]),
        ("label", [0, 1, 2, None, 1]),
        ("label", ["a"] * 5),
        ("label", None),
    ],
)
def test_columns_of_another_kind_are_refused(tmp_path: Path, name: str, column: list[object] | None) -> None:
    file = write_set(tmp_path) / "tokens-00000-of-00002.parquet"
    table = pq.read_table(file)
    metadata, place = table.schema.metadata, table.column_names.index(name)
    kind = table.schema.field(name).type if None in (column or []) else None
    table = table.remove_column(place)
    if column is not None:
        table = table.add_column(place, name, pa.array(column, kind))
    pq.write_table(table.replace_schema_metadata(metadata), file)
    with pytest.raises(AdaNATError, match=rf"olumn {name}\b.*tokenize` again"):
        TokenSet.open(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{"grid": [4]}, {"grid": [4, -4]}, {"codebook_size": 10**9}, {"num_classes": "x"}, {"condition": "z"}, {"a": 1}],
)
def test_a_shard_whose_description_cannot_be_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    file = write_set(tmp_path) / "tokens-00000-of-00002.parquet"
    table = pq.read_table(file)
    info = json.dumps({**json.loads(table.schema.metadata[b"adanat"]), **changes})
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"adanat": info}), file)
    with pytest.raises(AdaNATError, match="not a complete shard"):
        TokenSet.open(tmp_path)


@pytest.mark.parametrize("summary", ["[]", "{", '{"num_shards": 2, "sha256": [1]}'])
def test_a_damaged_summary_is_named(tmp_path: Path, summary: str) -> None:
    (write_set(tmp_path) / SUMMARY).write_text(summary)
    with pytest.raises(AdaNATError, match=r"token_set\.json"):
        TokenSet.open(tmp_path)


@pytest.mark.parametrize("key", [b"adanat", b"adanat_shard"])
def test_one_wrong_value_in_a_shards_description_is_one_line(tmp_path: Path, key: bytes) -> None:
    path = write_set(tmp_path) / "tokens-00000-of-00002.parquet"
    table = pq.read_table(path)
    metadata = dict(table.schema.metadata)
    for _, changed in mutations(json.loads(metadata[key]), sparse=7):
        pq.write_table(table.replace_schema_metadata({**metadata, key: as_json(changed)}), path)
        with suppress(AdaNATError):
            TokenSet.open(tmp_path)


def test_a_column_whose_name_is_no_text_is_one_line(tmp_path: Path) -> None:
    file = write_set(tmp_path) / "tokens-00000-of-00002.parquet"
    file.write_bytes(file.read_bytes().replace(b"label", b"lab\xff\xff"))
    with pytest.raises(AdaNATError, match="not a complete shard"):
        read_header(file)
