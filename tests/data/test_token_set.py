from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from adanat_cli.core.data.caption_states import NULL_STATES, states_file, write_states
from adanat_cli.core.data.token_set import SUMMARY, Shard, TokenSet, TokenSetInfo, read_header, write_shard
from adanat_cli.core.errors import AdaNATError

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
    with pytest.raises(AdaNATError, match=r"tokens-00001-of-00002.states.npy holds no encoded captions"):
        TokenSet.open(tmp_path)
    write_states(states_file(tmp_path / "tokens-00001-of-00002.parquet"), [states[7:11]], (4, 3, 2))
    with pytest.raises(AdaNATError, match=r"expected \(5, 3, 2\) in float16"):
        TokenSet.open(tmp_path)
    write_states(states_file(tmp_path / "tokens-00001-of-00002.parquet"), [states[7:]], (5, 3, 2))
    opened = TokenSet.open(tmp_path).states
    assert opened is not None
    numbers = np.array([11, -1, 0, 7, 6])
    assert np.array_equal(opened.read(numbers), np.where(numbers[:, None, None] < 0, -1, states[numbers]))


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
    with pytest.raises(AdaNATError, match="not a whole shard"):
        TokenSet.open(tmp_path)


def test_a_set_without_its_last_shard_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "tokens-00001-of-00002.parquet").unlink()
    with pytest.raises(AdaNATError, match="holds 1 shards, but"):
        TokenSet.open(tmp_path)
