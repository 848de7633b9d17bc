"""Foreign files: what is needed is read, what would run is refused, what is damaged is said."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from adanat_cli.core.checkpoints.convert import Network, identify, nat_config, policy_config, policy_tensors
from adanat_cli.core.checkpoints.convert import vqgan_config as read_vqgan
from adanat_cli.core.checkpoints.foreign import ForeignWeights, load_foreign, read_foreign
from adanat_cli.core.config import VQGANConfig, nat_preset
from adanat_cli.core.errors import AdaNATError
from tests.support import fixture_json


class Hostile:
    """Touches a file when a plain unpickler meets it."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.victim),)


def write_hostile(file: Path, form: str) -> Path:
    hostile, victim = Hostile(file.parent / "victim"), file.parent / "victim"
    trees = {
        "value": {"model": {"weight": torch.zeros(2)}, "extra": hostile},
        "namespace": {"model": {"weight": torch.zeros(2)}, "args": argparse.Namespace(device=hostile)},
        "key": {"weight": torch.zeros(2), "bias": hostile},
    }
    if form == "plain pickle":
        file.write_bytes(pickle.dumps({"model": hostile}))
    elif form == "legacy":
        torch.save(trees["value"], file, _use_new_zipfile_serialization=False)
    else:
        torch.save(trees[form], file)
    assert not victim.exists()
    return file


@pytest.mark.parametrize("form", ["value", "namespace", "key", "plain pickle", "legacy"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not even where the environment asks PyTorch to trust everything.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    file = write_hostile(tmp_path / "weights.pth", form)
    with pytest.raises(AdaNATError, match="is refused") as caught:
        load_foreign(file)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "victim").exists()


def test_the_refusal_names_what_the_file_asks_for(tmp_path: Path) -> None:
    with pytest.raises(AdaNATError, match=r"asks for \w+\.mkdir"):
        load_foreign(write_hostile(tmp_path / "weights.pth", "value"))


def test_the_test_pickle_is_really_hostile(tmp_path: Path) -> None:
    file = write_hostile(tmp_path / "weights.pth", "plain pickle")
    pickle.loads(file.read_bytes())  # noqa: S301 - to show what the tests above refuse
    assert (tmp_path / "victim").exists()


def test_a_training_checkpoint_gives_weights_and_arguments(tmp_path: Path) -> None:
    tree = {"model": {"module.weight": torch.ones(2)}, "args": argparse.Namespace(heu=1), "global_step": 5}
    torch.save(tree, tmp_path / "ckpt.pth")
    weights = read_foreign(tmp_path / "ckpt.pth")
    assert {place: list(tensors) for place, tensors in weights.state_dicts.items()} == {"model": ["module.weight"]}
    assert weights.arguments == {"heu": 1}


def test_reading_a_checkpoint_leaves_no_class_allowed_behind(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())  # in no order
    torch.save({"weight": torch.ones(2)}, tmp_path / "weights.pth")
    load_foreign(tmp_path / "weights.pth")
    assert set(torch.serialization.get_safe_globals()) == before


def test_safetensors_and_old_pytorch_files_are_read(tmp_path: Path) -> None:
    tensors = {"weight": torch.arange(3.0)}
    save_file(tensors, tmp_path / "a.safetensors")
    torch.save({"state_dict": tensors}, tmp_path / "b.ckpt", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "b.ckpt"):
        assert torch.equal(next(iter(read_foreign(tmp_path / name).state_dicts.values()))["weight"], tensors["weight"])


def torch_bytes(**options: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(500)}, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.pth", b""),
        ("page.pth", b"<html><body>404: not found</body></html>"),
        ("pointer.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
        ("half.pth", torch_bytes()[:1000]),
        ("noise.pth", bytes(range(256)) * 8),
        ("zeros.pth", bytes(4096)),
        ("half.safetensors", b"\x40\0\0\0\0\0\0\0{"),
    ],
)
def test_a_damaged_file_is_said_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AdaNATError, match=name) as caught:
        load_foreign(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_the_content_tells_the_format_whatever_the_suffix(tmp_path: Path) -> None:
    tensors = {"weight": torch.arange(3.0)}
    save_file(tensors, tmp_path / "a.pth")
    torch.save(tensors, tmp_path / "b.safetensors")
    for name in ("a.pth", "b.safetensors"):
        assert torch.equal(load_foreign(tmp_path / name)["weight"], tensors["weight"])


def test_a_flipped_bit_among_the_weights_is_noticed_where_the_file_has_check_sums(tmp_path: Path) -> None:
    file, weights = tmp_path / "weights.pth", torch.arange(500.0)
    for summed in (True, False):
        torch.serialization.set_crc32_options(summed)
        try:
            torch.save({"weight": weights}, file)
        finally:
            torch.serialization.set_crc32_options(True)
        assert torch.equal(load_foreign(file)["weight"], weights)
    torch.save({"weight": weights}, file)
    content = bytearray(file.read_bytes())
    content[content.find(weights.numpy().tobytes()) + 700] ^= 1
    file.write_bytes(content)
    with pytest.raises(AdaNATError, match="is damaged"):
        load_foreign(file)


def rezipped(file: Path, compression: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
    """A PyTorch archive written again, some members with other content."""
    torch.save({"weight": torch.zeros(64)}, file)
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content |= {f"{next(iter(content)).split('/')[0]}/{name.replace('_', '.')}": data for name, data in members.items()}
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return file


def pickled(operations: bytes) -> bytes:
    return b"\x80\x02" + operations + b"."


def sparse(file: Path, start: bytes, size: int) -> Path:
    """A file of any size that takes no room on the disk."""
    file.write_bytes(start)
    os.truncate(file, size)
    return file


OLD = torch_bytes(_use_new_zipfile_serialization=False)[:30]  # magic number and version
HOSTILE_SIZES = {
    "a pickle of ten million values": lambda file: rezipped(file, data_pkl=pickled(b"]" * 10_000_000)),
    "a string of two gigabytes": lambda file: sparse(file, OLD + b"\x80\x02X\xff\xff\xff\x7f", 2**31 + 2**20),
    "a line of two gigabytes": lambda file: sparse(file, OLD + b"\x80\x02c", 2**31 + 2**20),
    "an array made of a number": lambda file: rezipped(
        file, data_pkl=pickled(b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R")
    ),
    "many members": lambda file: rezipped(file, **{f"m{index}": b"x" * 2**20 for index in range(9)}),
}


@pytest.mark.parametrize("kind", HOSTILE_SIZES)
def test_a_file_whose_structure_is_huge_is_refused_before_it_is_read(tmp_path: Path, kind: str) -> None:
    file = HOSTILE_SIZES[kind](tmp_path / "weights.pth")
    tracemalloc.start()
    try:
        with pytest.raises(AdaNATError, match=r"is refused.*(over 8 MB of names|asks for __builtin__\.bytearray)"):
            load_foreign(file)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("compressed", "compressed archive"),
        ("program", "TorchScript program"),
        ("no pickle", "not one that torch.save wrote"),
        ("pointer", "Git LFS pointer"),
        ("pipe", "a pipe or device"),
        ("page", "begins with <html><body>"),
    ],
)
def test_what_is_no_file_of_weights_is_named(tmp_path: Path, kind: str, words: str) -> None:
    file = tmp_path / "weights.pth"
    if kind == "compressed":
        rezipped(file, zipfile.ZIP_DEFLATED)
    elif kind == "program":
        rezipped(file, constants_pkl=b"")
    elif kind == "no pickle":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("notes.txt", "text")
    elif kind == "pointer":
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.write_text("<html><body>404: not found</body></html>")
    with pytest.raises(AdaNATError, match=words) as caught:
        load_foreign(file)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(AdaNATError, match="does not exist"):
        load_foreign(tmp_path / "none.pth")
    with pytest.raises(AdaNATError, match=r"is a folder.*nnet_ema\.pth"):
        load_foreign(tmp_path)


def meta(table: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in table.items()}


def identified(tensors: dict[str, torch.Tensor]) -> Network:
    return identify(ForeignWeights(Path("file"), "", {"": tensors}))


@pytest.mark.parametrize(
    ("table", "preset", "fields"),
    [
        ("nat_imagenet256_L", "large", {"num_classes": 1000}),
        ("nat_cc3m", "muse", {"condition": "text", "text_width": 1280, "text_length": 77, "codebook_size": 8192}),
    ],
)
def test_the_size_of_a_released_nat_is_read_off_its_weights(table: str, preset: str, fields: dict[str, Any]) -> None:
    keys = fixture_json("nat_full_keys")[table]["keys"]
    fields = {"codebook_size": keys["token_emb.word_embeddings.weight"][0] - 1, "grid": (16, 16), **fields}
    fields["codebook_size"] = keys["token_emb.word_embeddings.weight"][0] - 1
    network = identified(meta(keys))
    assert network.kind == "nat"
    assert nat_config(network.tensors, None, "file") == nat_preset(preset, **fields)


def test_the_size_of_the_released_vqgan_is_read_off_its_weights() -> None:
    network = identified(meta(fixture_json("vqgan_keys")["f16"]["keys"]))
    assert network.kind == "vqgan"
    assert read_vqgan(network.tensors, 256, "file") == VQGANConfig()


def test_the_released_policy_checkpoint_is_known_by_its_names() -> None:
    network = identified(meta(fixture_json("policy_ckpt_keys")["keys"]))
    assert (network.kind, network.layout) == ("policy", "training")
    config = policy_config(policy_tensors(network.tensors), 8, False, 0.0, None, "file")
    assert (config.feature_width, config.grid, config.hidden_width) == (768, (16, 16), 512)
