"""Training states survive the disk exactly, without pickle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adanat_cli.core.checkpoints.files import atomic_path, check_writable, fingerprint, load_tensors, save_tensors
from adanat_cli.core.checkpoints.trees import load_tree, save_tree
from adanat_cli.core.errors import AdaNATError


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
