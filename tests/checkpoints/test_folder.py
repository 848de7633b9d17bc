"""The model folder: whole or absent, and strict about what it reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from adanat_cli.core.checkpoints import folder as folder_module
from adanat_cli.core.checkpoints import staging
from adanat_cli.core.checkpoints.card import model_card, write_card
from adanat_cli.core.checkpoints.files import atomic_path, fingerprint
from adanat_cli.core.checkpoints.folder import Component, ModelFolder
from adanat_cli.core.checkpoints.header import read_header
from adanat_cli.core.checkpoints.strict import load_strict
from adanat_cli.core.config import PixelConfig, nat_preset
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.nat import UViT
from adanat_cli.core.tokenizer.build import build_tokenizer
from adanat_cli.jobs.resolve.models import load_nat, resolve_model

TENSORS = {"weight": torch.arange(6.0).view(2, 3), "ids": torch.arange(3)}


@pytest.fixture
def model(tmp_path: Path) -> ModelFolder:
    folder = ModelFolder(tmp_path / "model")
    folder.write("nat", {"width": 2}, TENSORS, image_size=64)
    return folder


def names(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*"))


def test_what_is_written_is_read(model: ModelFolder) -> None:
    config, tensors = model.read("nat")
    assert config == {"width": 2}
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert names(model.path) == ["model_index.json", "nat", "nat/config.json", "nat/model.safetensors"]
    assert model.fingerprint("nat") == fingerprint(TENSORS)
    assert model.header("nat").num_parameters == 9


def test_a_number_format_can_be_chosen_and_the_fingerprint_is_of_what_is_stored(model: ModelFolder) -> None:
    model.write("nat", {"width": 2}, {**TENSORS, "weight": TENSORS["weight"] / 3}, dtype=torch.float16)
    stored = model.read("nat")[1]
    assert (stored["weight"].dtype, stored["ids"].dtype) == (torch.float16, torch.int64)
    assert model.fingerprint("nat") == fingerprint(stored)


def test_a_file_without_a_noted_fingerprint_has_one_all_the_same(model: ModelFolder) -> None:
    save_file(TENSORS, model.path / "nat" / "model.safetensors")
    assert model.fingerprint("nat") == fingerprint(TENSORS)


def test_components_keep_a_sensible_order(model: ModelFolder) -> None:
    for name in ("policies/steps-16", "policies/steps-8", "tokenizer"):
        model.write(name, {}, TENSORS)
    assert model.index.components == ("tokenizer", "nat", "policies/steps-8", "policies/steps-16")
    assert model.policy_steps() == [8, 16]
    assert model.index.image_size == 64


def test_replacing_a_component_keeps_the_rest(model: ModelFolder) -> None:
    model.write("tokenizer", {"image_size": 32}, TENSORS, provenance={"file": "a.pth"})
    model.put_results([{"metric": "fid", "value": 3.0}])
    model.write("nat", {"width": 4}, {"other": torch.zeros(1)})
    assert model.index.components == ("tokenizer", "nat")
    assert model.index.provenance["tokenizer"] == {"file": "a.pth"}
    assert model.index.results == ({"metric": "fid", "value": 3.0},)
    assert list(model.read("nat")[1]) == ["other"]
    assert not [name for name in names(model.path) if "part" in name or "old" in name]


def test_labels_survive_and_are_optional(model: ModelFolder) -> None:
    assert model.labels() == {}
    model.write_labels({207: "golden retriever", 3: "shark"})
    assert json.loads((model.path / "labels.json").read_text()) == {"3": "shark", "207": "golden retriever"}
    assert model.labels() == {3: "shark", 207: "golden retriever"}


def test_a_file_never_takes_the_name_of_a_pipe_or_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AdaNATError, match="it is a device or a pipe"), atomic_path(tmp_path / "pipe"):
        pytest.fail("was written to")
    assert (tmp_path / "pipe").is_fifo()


def test_a_failure_while_writing_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    components = [Component("tokenizer", {}, TENSORS), Component("nat", {"not": {1, 2}}, TENSORS)]
    with pytest.raises(TypeError):  # a set is not JSON: the second component fails after the first was staged
        ModelFolder(tmp_path / "a" / "model").write_all(components)
    monkeypatch.setattr(staging, "save_tensors", full)
    with pytest.raises(AdaNATError, match="No space left"):
        ModelFolder(tmp_path / "a" / "model").write("nat", {}, TENSORS)
    assert names(tmp_path) == []


def test_a_failed_replacement_leaves_the_old_component(model: ModelFolder) -> None:
    with pytest.raises(TypeError):
        model.write("nat", {"not": {1, 2}}, TENSORS)
    assert model.config("nat") == {"width": 2}
    assert names(model.path) == ["model_index.json", "nat", "nat/config.json", "nat/model.safetensors"]


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from adanat_cli.core.checkpoints import folder, staging
real = staging.save_tensors
def save_tensors(path, tensors, metadata):
    real(path, tensors, metadata)
    if "nat" in str(path.parent.name):
        os.kill(os.getpid(), signal.SIGKILL)
staging.save_tensors = save_tensors
parts = [folder.Component(name, {}, {"w": torch.zeros(2)}) for name in ("tokenizer", "nat")]
folder.ModelFolder(Path(sys.argv[1])).write_all(parts)
"""


def test_a_writer_killed_half_way_leaves_no_model_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "model")
    process = subprocess.run([sys.executable, "-c", KILLED, str(folder.path)], cwd=Path(__file__).parents[2])
    assert process.returncode == -signal.SIGKILL
    assert not folder.exists()
    assert not [name for name in names(folder.path) if not name.startswith(".")]
    for name in ("tokenizer", "nat"):
        folder.write(name, {}, TENSORS)
    assert not [name for name in names(folder.path) if name.startswith(".")]
    assert folder.index.components == ("tokenizer", "nat")


def test_a_swap_that_is_interrupted_never_leaves_a_component_listed_but_gone(
    model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder_module, "_swap_in", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.write("nat", {}, TENSORS)
    assert model.index.components == ()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "no format_version"),
        ('{"components": []}', "no format_version"),
        ('{"format_version": 2}', "format version 2, but this adanat reads version 1"),
        ('{"format_version": 1, "components": "nat"}', "is damaged"),
        ('{"format_version": 1, "components": ["../nat"]}', "invalid name"),
        ('{"format_version": 1, "components": ["/etc"]}', "invalid name"),
    ],
)
def test_a_wrong_index_is_said_in_one_line(model: ModelFolder, content: str, words: str) -> None:
    (model.path / "model_index.json").write_text(content)
    with pytest.raises(AdaNATError, match=words) as caught:
        model.read("nat")
    assert "\n" not in str(caught.value)


def test_an_index_is_parsed_once_and_anew_when_it_has_changed(model: ModelFolder) -> None:
    model.write("nat", {}, TENSORS)
    before = model.index
    assert ModelFolder(model.path).index is before
    model.write("tokenizer", {}, TENSORS)
    assert before.components == ("nat",)
    assert ModelFolder(model.path).index.components == ("tokenizer", "nat")


def damage_weights(path: Path) -> None:
    file = path / "nat" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])


def change_one_bit(path: Path) -> None:
    file = path / "nat" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def remove_weights(path: Path) -> None:
    (path / "nat" / "model.safetensors").unlink()


def remove_config(path: Path) -> None:
    (path / "nat" / "config.json").unlink()


def remove_folder(path: Path) -> None:
    for file in (path / "nat").iterdir():
        file.unlink()
    (path / "nat").rmdir()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change_one_bit, "its weights do not match the hash"),
        (damage_weights, "not a complete safetensors file"),
        (remove_weights, "does not exist"),
        (remove_config, "does not exist"),
        (remove_folder, "lists nat, but that folder is missing"),
    ],
)
def test_a_damaged_component_is_said_in_one_line(
    model: ModelFolder, damage: Callable[[Path], None], words: str
) -> None:
    damage(model.path)
    with pytest.raises(AdaNATError, match=words) as caught:
        model.read("nat")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff" * 16, b"\x02\0\0\0\0\0\0\0[]", b"\x02\0\0\0\0\0\0\0{}rest"])
def test_a_header_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(AdaNATError, match="not a complete safetensors file"):
        read_header(tmp_path / "a.safetensors")


def test_a_component_that_is_not_there_is_said_with_what_is(model: ModelFolder) -> None:
    with pytest.raises(AdaNATError, match="has no tokenizer, only nat"):
        model.read("tokenizer")
    with pytest.raises(AdaNATError, match="not a valid name"):
        model.write("../nat", {}, TENSORS)


def test_a_model_is_found_by_folder_and_refused_with_known_names(tmp_path: Path, model: ModelFolder) -> None:
    assert resolve_model(str(model.path)).path == model.path
    with pytest.raises(AdaNATError, match="neither a folder nor a known name"):
        resolve_model("imagenet17")
    with pytest.raises(AdaNATError, match=r"run folder; give the model in it, .*model"):
        resolve_model(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(AdaNATError, match="is not a model folder"):
        resolve_model(str(tmp_path / "empty"))


def test_a_network_loads_strictly_and_computes_the_same(tmp_path: Path) -> None:
    config = nat_preset("micro", codebook_size=8, grid=(2, 2), num_classes=3)
    nat, folder = UViT(config).eval(), ModelFolder(tmp_path / "model")
    folder.write("nat", config.to_dict(), nat.state_dict(), image_size=16)
    loaded = load_nat(folder)
    ids, labels = torch.tensor([[8, 1, 2, 8]]), torch.tensor([3])
    assert torch.equal(loaded(ids, labels).logits, nat(ids, labels).logits)
    assert not loaded.training
    state = nat.state_dict()
    del state["norm.weight"]
    with pytest.raises(AdaNATError, match=r"missing norm\.weight"):
        load_strict(lambda: UViT(config), state, "here")
    folder.write("nat", {**config.to_dict(), "depth": 6}, nat.state_dict())
    with pytest.raises(AdaNATError, match="do not fit the network"):
        load_nat(folder)


def test_changing_loaded_weights_does_not_change_the_file(model: ModelFolder) -> None:
    model.read("nat")[1]["weight"].zero_()
    assert torch.equal(model.read("nat")[1]["weight"], TENSORS["weight"])


def test_a_nat_refuses_the_tokenizer_of_another(tmp_path: Path) -> None:
    folder, pixels = ModelFolder(tmp_path / "model"), PixelConfig(image_size=2, codebook_size=8)
    folder.write("tokenizer", pixels.to_dict(), build_tokenizer(pixels).state_dict())
    right = nat_preset("micro", codebook_size=8, grid=(2, 2), tokenizer_fingerprint=folder.fingerprint("tokenizer"))
    nat = UViT(right)
    folder.write("nat", right.to_dict(), nat.state_dict())
    assert load_nat(folder).config == right
    folder.write("nat", right.replace(tokenizer_fingerprint="0" * 64).to_dict(), nat.state_dict())
    with pytest.raises(AdaNATError, match="trained with tokenizer 000000000000"):
        load_nat(folder)


def test_a_card_of_a_runs_model_has_the_runs_name(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "digits-nat" / "model")
    folder.write("other", {}, {"weight": torch.zeros(1)})
    write_card(folder)
    assert "\n# digits-nat\n" in folder.card()


def test_a_card_tells_whether_a_model_was_measured_in_training_only(model: ModelFolder) -> None:
    assert "No quality metric has been measured" in model_card(model)
    facts = {"distance": 9.4, "fixed_distance": 11.7}
    model.write("policies/steps-4", {}, {"weight": torch.zeros(1)}, provenance=facts)
    assert "No quality metric" not in model_card(model)
    assert "in training: 9.4; fixed schedule 11.7" in model_card(model)
    assert "measured in training only" in model_card(model)


def test_the_model_card_lists_results_for_the_hub_and_spares_what_others_wrote(model: ModelFolder) -> None:
    model.put_results([{"metric": "fid", "value": 2.5, "dataset": "imagenet-1k", "protocol": "adm"}])
    assert write_card(model)
    card = (model.path / "README.md").read_text()
    for words in ("model-index:", "value: 2.5", "type: imagenet-1k", "| nat | 9 |", "protocol adm"):
        assert words in card
    (model.path / "README.md").write_text("# mine\n")
    assert not write_card(model)
    assert (model.path / "README.md").read_text() == "# mine\n"
