"""Training states survive the disk exactly, without pickle."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from adanat_cli.core.checkpoints.files import (
    atomic_path,
    check_writable,
    clear_litter,
    fingerprint,
    load_tensors,
    save_tensors,
)
from adanat_cli.core.checkpoints.trees import load_tree, save_tree
from adanat_cli.core.errors import AdaNATError
from tests.full_disk import full_disk
from tests.mutations import as_json, mutations


def test_an_optimizer_state_round_trips(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), 1e-3)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    save_tree(tmp_path / "state", {"step": 7, "layer": layer.state_dict(), "optimizer": optimizer.state_dict()})
    state = load_tree(tmp_path / "state")
    other = torch.nn.Linear(3, 2)
    other.load_state_dict(state["layer"])
    resumed = torch.optim.AdamW(other.parameters(), 1.0)
    resumed.load_state_dict(state["optimizer"])
    assert state["step"] == 7
    for module, rule in ((layer, optimizer), (other, resumed)):
        rule.zero_grad()
        module(torch.ones(1, 3)).square().sum().backward()
        rule.step()
    torch.testing.assert_close(layer.weight, other.weight, rtol=0, atol=0)


def test_nested_lists_and_empty_dicts_round_trip(tmp_path: Path) -> None:
    tree = {"a": [1, {"b": torch.arange(3)}, []], "c": {}, "d": None, "e": {0: "x", 5: torch.ones(2)}}
    save_tree(tmp_path / "tree", tree)
    read = load_tree(tmp_path / "tree")
    assert read["c"] == {}
    assert read["d"] is None
    assert read["e"][0] == "x"
    torch.testing.assert_close(read["a"][1]["b"], torch.arange(3))
    torch.testing.assert_close(read["e"][5], torch.ones(2))


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x80\x04cos\nsystem\n"])
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(AdaNATError, match="safetensors"):
        load_tree(tmp_path / "bad")


def test_foreign_safetensors_are_no_training_state(tmp_path: Path) -> None:
    save_tensors(tmp_path / "weights", {"w": torch.ones(2)})
    with pytest.raises(AdaNATError, match="not a training state"):
        load_tree(tmp_path / "weights")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_fingerprint_is_of_values_not_of_layout(tmp_path: Path) -> None:
    weights = {"b": torch.rand(3, 4).half(), "a": torch.arange(4)}
    save_tensors(tmp_path / "w", weights, {"any": "thing"})
    read = load_tensors(tmp_path / "w")
    assert fingerprint(read) == fingerprint(weights)
    assert fingerprint({"a": weights["a"], "b": weights["b"].float()}) == fingerprint(weights)
    changed = {**weights, "b": weights["b"].clone()}
    changed["b"][0, 0] += 1
    assert fingerprint(changed) != fingerprint(weights)


def test_a_file_in_the_way_of_a_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here first")
    with pytest.raises(AdaNATError, match="a file is in the way"):
        save_tensors(tmp_path / "file" / "weights", {"w": torch.ones(2)})
    with pytest.raises(AdaNATError, match="a file is in the way"):
        check_writable(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "here first"


def test_weights_can_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    save_tensors(tmp_path / "weights", {"w": torch.ones(2)})
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_same_content_gives_the_same_bytes_in_the_library_s_own_format(tmp_path: Path) -> None:
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint16, torch.uint8)
    tensors = {f"ü{kind}": torch.arange(6).reshape(2, 3).to(kind).T for kind in kinds}
    tensors |= {"flags": torch.tensor([True, False]), "one": torch.tensor(3.5), "none": torch.empty(0, 4)}
    notes = {f"key {number}": f'"quoted"\n{number} ü' for number in range(20)}
    save_tensors(tmp_path / "a", tensors, notes)
    save_tensors(tmp_path / "b", dict(reversed(tensors.items())), dict(reversed(notes.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    read = load_tensors(tmp_path / "a")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    with safe_open(tmp_path / "a", framework="pt") as file:
        assert file.metadata() == notes


def test_what_kills_have_left_is_known_by_its_name_and_nothing_else_goes(tmp_path: Path) -> None:
    litter = ["model/.nat.1.part/", "model/policies/.steps-8.1.part/", "model/policies/.steps-8.1.old/"]
    litter += ["checkpoints/.tmpA1b2C3", ".samples.npz.77.part", "features/cosine-8/.part-00001.safetensors.3.part"]
    kept = [".hidden", ".tmpA1b2C3", "notes.part", "checkpoints/step-00000001.safetensors", "mine/.x.1.part", ".lock"]
    for name in [*litter, *kept]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    (tmp_path / "model/.nat.1.part/model.safetensors").touch()
    clear_litter(tmp_path)
    assert not [name for name in litter if (tmp_path / name).exists()]
    assert all((tmp_path / name).exists() for name in kept)


def test_of_one_file_s_output_only_its_own_litter_goes(tmp_path: Path) -> None:
    for name in (".[a].npz.7.part", ".b.npz.7.part"):
        (tmp_path / name).touch()
    clear_litter(tmp_path, "[a].npz")
    assert [file.name for file in tmp_path.iterdir()] == [".b.npz.7.part"]


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, bool]] = []
    fsync = os.fsync

    def note(file: int) -> None:
        seen.append((Path(os.readlink(f"/proc/self/fd/{file}")).name, (tmp_path / "in" / "state").exists()))
        fsync(file)

    monkeypatch.setattr(os, "fsync", note)
    save_tensors(tmp_path / "in" / "state", {"w": torch.ones(2)})
    assert seen == [(f".state.{os.getpid()}.part", False), ("in", True)]


@pytest.mark.parametrize("size", [0, 100, 70_000])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path, size: int) -> None:
    save_tree(tmp_path / "state", {"w": torch.ones(1)})
    before = (tmp_path / "state").read_bytes()
    with (
        full_disk(size),
        pytest.raises(AdaNATError, match=r"Cannot write .*state: File too large; make room, then run the same"),
    ):
        save_tree(tmp_path / "state", {"w": torch.ones(100_000)})
    assert (tmp_path / "state").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_one_wrong_value_in_a_structure_is_one_line(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    save_tree(tmp_path / "state", {"step": 7, "best": float("inf"), "optimizer": optimizer.state_dict()})
    assert load_tree(tmp_path / "state")["best"] == float("inf")
    tensors = load_tensors(tmp_path / "state")
    with safe_open(tmp_path / "state", "pt") as file:
        structure = json.loads(file.metadata()["structure"])
    for _, changed in mutations(structure, sparse=5):
        save_tensors(tmp_path / "state", tensors, {"structure": as_json(changed)})  # without a hash, as older ones
        with suppress(AdaNATError):
            load_tree(tmp_path / "state")
