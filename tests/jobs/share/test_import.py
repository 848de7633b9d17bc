"""Importing the authors' files: what comes out computes what the reference computes, and nothing hostile runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from adanat_cli.commands import import_
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import PolicyConfig
from adanat_cli.core.config.share_requests import ImportRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.resolve.models import load_nat, load_policy, load_tokenizer
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.share.import_weights import import_weights
from tests.jobs.share.foreign_files import nat_state, policy_state, saved, training_checkpoint, vqgan_state
from tests.support import analytic_input, fixture, token_ids


def imported(output: Path, *files: Path, **fields: Any) -> dict[str, Any]:
    return import_weights(ImportRequest(files, output, **fields), SilentReporter())


@torch.inference_mode()
def test_an_imported_vqgan_decodes_as_the_reference(tmp_path: Path) -> None:
    file = saved(tmp_path / "vqgan.pth", {"state_dict": vqgan_state(), "epoch": 3})
    result = imported(tmp_path / "model", file, image_size=64)
    model = load_tokenizer(ModelFolder(tmp_path / "model"))
    expected = fixture("vqgan")["tiny.decode_strided"]
    images = model.decode(token_ids(16, 64)[None])
    np.testing.assert_allclose(images[:, :, ::2, ::2].numpy(), expected.clip(0, 1), rtol=0, atol=1e-4)
    assert result["components"][0]["parameters"] == 2_398_147
    assert not model.training


def test_the_other_published_spelling_gives_the_same_vqgan(tmp_path: Path) -> None:
    renamed = {
        name.replace(".mid.block_1.", ".mid.0.")
        .replace(".mid.block_2.", ".mid.1.")
        .replace(".upsample.conv.", ".upsample_conv."): tensor
        for name, tensor in vqgan_state().items()
    }
    imported(tmp_path / "one", saved(tmp_path / "a.bin", renamed))
    imported(tmp_path / "two", saved(tmp_path / "b.pth", vqgan_state()))
    fingerprints = {ModelFolder(tmp_path / name).fingerprint("tokenizer") for name in ("one", "two")}
    assert len(fingerprints) == 1


@pytest.mark.parametrize("condition", ["class", "text"])
@torch.inference_mode()
def test_an_imported_nat_computes_as_the_reference(tmp_path: Path, condition: str) -> None:
    state = {f"module.{name}": tensor for name, tensor in nat_state(condition).items()}
    state["module.token_emb.position_ids"] = torch.arange(256)[None]
    imported(tmp_path / "model", saved(tmp_path / "nnet_ema.pth", state), num_heads=4)
    nat, arrays = load_nat(ModelFolder(tmp_path / "model")), fixture(f"nat_{condition}")
    ids = torch.from_numpy(arrays["input_ids"].astype(np.int64))
    if condition == "class":
        assert nat.config.num_classes == 10
        states = torch.tensor([3, 10])
    else:
        assert (nat.config.text_width, nat.config.text_length) == (24, 77)
        states = analytic_input("text", (2, 77, 24), 1, 0)
    np.testing.assert_allclose(nat(ids, states).logits.numpy(), arrays["logits"], rtol=0, atol=3e-5)
    assert ModelFolder(tmp_path / "model").index.image_size == 256


@torch.inference_mode()
def test_an_imported_policy_gives_the_references_values_in_our_order(tmp_path: Path) -> None:
    config = PolicyConfig(feature_width=32, grid=(16, 16), num_steps=16)
    imported(tmp_path / "model", saved(tmp_path / "maskgit_policy.pth", policy_state("", config)), num_steps=16)
    policy = load_policy(ModelFolder(tmp_path / "model"), 16)
    assert policy is not None
    raw = policy(analytic_input("feat", (3, 256, 32), 1, 0), torch.tensor([0, 3, 7]))
    np.testing.assert_allclose(raw.numpy(), fixture("policy")["out_c32"][:, [0, 2, 1, 3]], rtol=0, atol=1e-5)
    assert (policy.config.residual, policy.config.smoothing) == (True, 0.8)


@pytest.mark.parametrize(("arguments", "residual"), [({}, False), ({"heu": 0}, False), ({"heu": 1}, True)])
def test_of_a_training_checkpoint_the_evaluated_policy_is_taken(
    tmp_path: Path, arguments: dict[str, int], residual: bool
) -> None:
    file = saved(tmp_path / "ckpt_1000.pth", training_checkpoint(**arguments))
    imported(tmp_path / "model", file, num_steps=8)
    policy = load_policy(ModelFolder(tmp_path / "model"), 8)
    expected = policy_state("policy_old.actor.")
    assert policy is not None
    assert torch.equal(policy.linear1.weight, expected["policy_old.actor.linear1.weight"])
    assert torch.equal(policy.linear3.bias, expected["policy_old.actor.linear3.bias"][[0, 2, 1, 3]])
    assert (policy.config.residual, policy.config.smoothing) == (residual, 0.0)


def test_flags_beat_what_the_layout_says(tmp_path: Path) -> None:
    state = policy_state("actor.") | policy_state("critic.")
    imported(
        tmp_path / "model", saved(tmp_path / "ppo.pth", state), num_steps=8, residual=True, smoothing=0.4, kind="policy"
    )
    config = ModelFolder(tmp_path / "model").config("policies/steps-8")
    assert (config["residual"], config["smoothing"]) == (True, 0.4)


def test_a_model_grows_file_by_file(tmp_path: Path) -> None:
    output = tmp_path / "model"
    files = [saved(tmp_path / "vqgan.pth", vqgan_state()), saved(tmp_path / "nat.pth", nat_state())]
    imported(output, *files, num_heads=4)
    index = ModelFolder(output).index
    assert (index.image_size, index.components) == (256, ("tokenizer", "nat"))
    assert index.provenance["nat"]["file"] == "nat.pth"
    assert len(index.provenance["tokenizer"]["sha256"]) == 64
    config = PolicyConfig(feature_width=32, grid=(16, 16), num_steps=8, hidden_width=4)
    imported(output, saved(tmp_path / "policy.pth", policy_state("", config)), num_steps=8)
    assert ModelFolder(output).policy_steps() == [8]
    assert load_policy(ModelFolder(output), 12) is None
    assert "`nat.pth`" in (output / "README.md").read_text()
    with pytest.raises(AdaNATError, match="--replace"):
        imported(output, files[1], num_heads=4)
    imported(output, files[1], num_heads=4, replace=True)


def test_a_model_of_a_thousand_classes_gets_imagenets_names(tmp_path: Path) -> None:
    state = nat_state()
    state["context_embed.word_embeddings.weight"] = torch.zeros(1001, 32)
    imported(tmp_path / "model", saved(tmp_path / "nat.pth", state), num_heads=4)
    labels = ModelFolder(tmp_path / "model").labels()
    assert (len(labels), labels[207], labels[0]) == (1000, "golden retriever", "tench")


class Told(SilentReporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, message: str) -> None:
        self.lines.append(message)

    warn = log


def test_an_average_is_taken_before_live_weights_and_both_are_named(tmp_path: Path) -> None:
    averaged = {name: tensor + 1 for name, tensor in policy_state().items()}
    file, told = saved(tmp_path / "ckpt.pth", {"model": policy_state(), "ema": averaged}), Told()
    for entry, expected in (("", averaged), ("model", policy_state())):
        output = tmp_path / f"model{entry}"
        import_weights(ImportRequest((file,), output, num_steps=4, entry=entry), told)
        _, tensors = ModelFolder(output).read("policies/steps-4")
        assert torch.equal(tensors["linear1.weight"], expected["linear1.weight"])
        assert ModelFolder(output).index.provenance["policies/steps-4"]["entry"] == (entry or "ema")
    assert told.lines[0].endswith("; taken from ema, not from model (choose with --entry)")
    assert told.lines[1].endswith("; taken from model")


def test_a_policys_own_number_of_steps_is_used_and_another_is_warned_of(tmp_path: Path) -> None:
    file, told = saved(tmp_path / "ckpt.pth", training_checkpoint(gen_steps=6)), Told()
    import_weights(ImportRequest((file,), tmp_path / "model"), told)
    import_weights(ImportRequest((file,), tmp_path / "model", num_steps=8), told)
    assert ModelFolder(tmp_path / "model").policy_steps() == [6, 8]
    assert [line for line in told.lines if "was trained for 6 steps" in line] == [told.lines[1]]
    for steps in (0, "6", float("nan"), None, torch.ones(2)):
        saved(file, training_checkpoint(gen_steps=steps))
        with pytest.raises(AdaNATError, match="give --steps"):
            imported(tmp_path / "none", file)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensor: tensor * torch.nan, "holds values that are not finite"),
        (lambda tensor: tensor.double() * 1e300, "holds values that are not finite"),
        (lambda tensor: tensor.char(), "is of type int8; expected floating-point numbers"),
        (lambda tensor: tensor.bool(), "is of type bool; expected floating-point numbers"),
        (lambda tensor: tensor.to(torch.complex64), "is of type complex64; expected floating-point numbers"),
        (lambda tensor: torch.zeros(1).expand(2000, 512), "more than the file can hold"),
    ],
)
def test_weights_that_are_no_plain_numbers_are_refused(tmp_path: Path, change: Any, words: str) -> None:
    state = policy_state()
    state["linear2.weight"] = change(state["linear2.weight"])
    if "file can hold" in words:
        state |= {f"linear{index}.weight": state["linear2.weight"] for index in range(9, 99)}
    with pytest.raises(AdaNATError, match=words) as caught:
        imported(tmp_path / "model", saved(tmp_path / "file.pth", state), num_steps=8)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_weights_of_8_bits_are_widened(tmp_path: Path) -> None:
    state = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in policy_state().items()}
    imported(tmp_path / "model", saved(tmp_path / "file.pth", state), num_steps=4)
    tensors = ModelFolder(tmp_path / "model").read("policies/steps-4")[1]
    assert torch.equal(tensors["linear1.weight"], state["linear1.weight"].float())


def test_odd_names_of_files_and_entries_are_escaped_where_they_are_kept(tmp_path: Path) -> None:
    for name in (os.fsdecode(b"\xff.pth"), "a\x1b[2Jb|c\n.pth"):
        with (tmp_path / name).open("wb") as file:
            torch.save({"x\x1b[2J\ud800": policy_state()}, file)
        imported(tmp_path / "model", tmp_path / name, num_steps=4, replace=True)
        folder = ModelFolder(tmp_path / "model")
        told = folder.index.provenance["policies/steps-4"]
        assert told["entry"] == r"x\u001b[2J\ud800"
        assert told["file"] in (r"\udcff.pth", r"a\u001b[2Jb|c\u000a.pth")
        row = next(line for line in folder.card().splitlines() if line.startswith("| policies/steps-4"))
        assert row.replace(r"\|", "").count("|") == 4
        assert "Parts of a model" in folder.card()


def without(state: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("tree", "fields", "words"),
    [
        (lambda: without(nat_state(), "norm.weight"), {"num_heads": 4}, "missing norm.weight"),
        (lambda: nat_state() | {"extra.weight": torch.zeros(1)}, {"num_heads": 4}, "unknown extra.weight"),
        (lambda: nat_state() | {"norm.bias": torch.zeros(3)}, {"num_heads": 4}, r"norm.bias is \(3,\) instead of"),
        (lambda: nat_state(), {}, "--num-heads"),
        (lambda: nat_state(), {"num_heads": 5}, "not a multiple of its 5 heads"),
        (lambda: nat_state(), {"kind": "vqgan"}, "is not a VQGAN"),
        (lambda: vqgan_state(), {"image_size": 72}, "not a multiple of the tokenizer's downsampling"),
        (lambda: without(vqgan_state(), "decoder.conv_in.bias"), {}, "missing decoder.conv_in.bias"),
        (lambda: policy_state(), {}, "--steps"),
        (lambda: policy_state() | {"linear3.weight": torch.zeros(1, 512)}, {"num_steps": 8}, "gives 1 values"),
        (lambda: {"stem.weight": torch.zeros(2)}, {}, "no known network"),
        (lambda: {"epoch": 3, "model": {}}, {}, "holds no state dict"),
        (lambda: [1, 2], {}, "found list"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_and_nothing_is_written(
    tmp_path: Path, tree: Any, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(AdaNATError, match=words) as caught:
        imported(tmp_path / "deep" / "model", saved(tmp_path / "file.pth", tree()), **fields)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "deep").exists()


def test_networks_that_do_not_belong_together_are_refused_as_a_whole(tmp_path: Path) -> None:
    vqgan, nat = saved(tmp_path / "vqgan.pth", vqgan_state()), saved(tmp_path / "nat.pth", nat_state())
    policy = saved(tmp_path / "policy.pth", policy_state())
    output = tmp_path / "model"
    with pytest.raises(AdaNATError, match="has 64 codes on 4 x 4 at 64 pixels"):
        imported(output, vqgan, nat, num_heads=4, image_size=64)
    with pytest.raises(AdaNATError, match="the NAT's is 16 x 16"):
        imported(output, nat, policy, num_heads=4, num_steps=8)
    wide = PolicyConfig(feature_width=6, grid=(16, 16), num_steps=8, hidden_width=4)
    with pytest.raises(AdaNATError, match="features of width 6, but the NAT's have width 32"):
        imported(output, nat, saved(tmp_path / "wide.pth", policy_state("", wide)), num_heads=4, num_steps=8)
    with pytest.raises(AdaNATError, match="Two of the files are a nat"):
        imported(output, nat, nat, num_heads=4)
    assert not output.exists()


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    file = saved(tmp_path / "vqgan.pth", vqgan_state())
    with pytest.raises(AdaNATError, match="is not a model folder and is not empty"):
        imported(tmp_path, file)
    assert [path.name for path in tmp_path.iterdir()] == ["vqgan.pth"]


def test_the_command_prints_one_json_object_on_stdout(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(import_.command)
    file = saved(tmp_path / "ckpt.pth", training_checkpoint(heu=1))
    arguments = [str(file), "--output", str(tmp_path / "model"), "--steps", "8", "--no-residual", "--json"]
    outcome = CliRunner().invoke(app, arguments, catch_exceptions=False)
    values = json.loads(outcome.stdout)
    assert values["components"][0]["component"] == "policies/steps-8"
    assert values["components"][0]["layout"] == "training"
    assert values["components"][0]["config"]["residual"] is False
    assert "becomes policies/steps-8" in outcome.stderr
