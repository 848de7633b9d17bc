"""``adanat info`` tells what is there, quickly, and says so when something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from adanat_cli.commands import info
from adanat_cli.commands.describe import model_lines
from adanat_cli.commands.results import result_lines
from adanat_cli.commands.wording import lines_of
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import NATConfig, PolicyConfig, VQGANConfig
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.nat import UViT
from adanat_cli.core.policy import PolicyNetwork
from adanat_cli.core.tokenizer.vqgan import VQGAN
from adanat_cli.jobs.share.info import describe


@pytest.fixture
def model(tmp_path: Path) -> ModelFolder:
    """A tiny model with every kind of component."""
    folder = ModelFolder(tmp_path / "model")
    vqgan = VQGANConfig(
        32, codebook_size=8, code_width=4, base_channels=32, channel_multipliers=(1, 1), num_res_blocks=1
    )
    folder.write("tokenizer", vqgan.to_dict(), VQGAN(vqgan).state_dict(), provenance={"kind": "vqgan", "file": "a.pth"})
    nat = NATConfig(8, (16, 16), 16, 2, 2, num_classes=3, tokenizer_fingerprint=folder.fingerprint("tokenizer"))
    folder.write("nat", nat.to_dict(), UViT(nat).state_dict(), dtype=torch.float16)
    policy = PolicyConfig(16, (16, 16), 8, hidden_width=4)
    folder.write("policies/steps-8", policy.to_dict(), PolicyNetwork(policy).state_dict())
    folder.write_labels({2: "pug", 0: "tench"})
    folder.put_results([{"metric": "fid", "value": 12.5, "dataset": "digits"}])
    return folder


def test_it_tells_what_the_folder_holds(model: ModelFolder) -> None:
    values = describe(str(model.path))
    assert values["image_size"] == 32
    assert list(values["components"]) == ["tokenizer", "nat", "policies/steps-8"]
    assert values["components"]["nat"]["formats"] == ["F16"]
    expected = sum(tensor.numel() for tensor in model.read("nat")[1].values())
    assert values["components"]["nat"]["parameters"] == expected
    assert values["policies"] == [8]
    assert values["classes"] == {"0": "tench", "2": "pug"}
    assert values["matches"] == {"nat and tokenizer": "yes", "policies/steps-8 and nat": "not recorded"}
    text = "\n".join(model_lines(values))
    for words in ("vqgan, 8 codes, 16 x 16 grid", "3 classes", "8 steps", "0 tench, 2 pug", "against digits", "12.500"):
        assert words in text


def test_how_components_were_made_is_shown_last_and_only_if_asked_for(model: ModelFolder) -> None:
    values = describe(str(model.path))
    short, full = list(model_lines(values)), list(model_lines(values, full=True))
    assert short[3].startswith("tokenizer: vqgan, 8 codes")
    assert "--full" in short[-1]
    assert not any("a.pth" in line for line in short)
    assert full[: len(short) - 1] == short[:-1]
    assert "  file: a.pth" in full[len(short) - 1 :]
    assert any(values["components"]["nat"]["fingerprint"][:16] in line for line in full)


@pytest.mark.parametrize(("update", "words"), [(57, "3 classes, after 57 of 1,400 updates"), (1400, "3 classes")])
def test_a_training_that_has_not_ended_is_told(model: ModelFolder, update: int, words: str) -> None:
    config, tensors = model.read("nat")
    model.write("nat", config, tensors, provenance={"update": update, "training": {"steps": 1400}})
    assert describe(str(model.path))["components"]["nat"]["summary"].endswith(words)


def test_it_tells_when_tokenizer_and_nat_do_not_match(model: ModelFolder) -> None:
    config, tensors = model.read("tokenizer")
    model.write("tokenizer", config, {name: tensor + 1 for name, tensor in tensors.items()})
    assert describe(str(model.path))["matches"]["nat and tokenizer"] == "no"


def test_it_needs_neither_pytorch_nor_the_weights(model: ModelFolder) -> None:
    code = f"""
import sys
from adanat_cli.jobs.share.info import describe
assert describe({str(model.path)!r})["policies"] == [8]
assert "torch" not in sys.modules and "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_damage_is_told_in_one_line(model: ModelFolder) -> None:
    weights = model.path / "nat" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(AdaNATError, match="not a complete safetensors file") as caught:
        describe(str(model.path))
    assert "\n" not in str(caught.value)


def test_the_command_prints_json_or_lines(model: ModelFolder) -> None:
    app = typer.Typer()
    app.command()(info.command)
    as_json = CliRunner().invoke(app, [str(model.path), "--json"], catch_exceptions=False)
    assert json.loads(as_json.stdout)["policies"] == [8]
    as_lines = CliRunner().invoke(app, [str(model.path)], catch_exceptions=False)
    assert "Policies    8 steps" in as_lines.stdout


def test_a_published_model_that_is_not_here_tells_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "\n".join(model_lines(describe("cc3m")))
    assert "license" in text
    assert text.endswith("Not here yet; fetch it with: adanat pull cc3m")
    with pytest.raises(AdaNATError, match="adanat info --dataset mscoco"):
        describe("mscoco")


def test_plans_and_provenances_are_folded_between_settings() -> None:
    training = {f"setting_{number}": 0.1 + number / 3 for number in range(12)}
    values = {"num_parameters": 1234567, "training": {**training, "channels": [1, 2], "note": ""}, "half": True}
    shown = list(lines_of(values))
    assert (shown[0], shown[-1]) == ("num parameters: 1,234,567", "half: yes")
    assert shown[1].startswith("training: setting_0 0.1, setting_1 0.4333")
    assert all(len(line) <= 110 for line in shown)
    assert all(line.endswith(",") for line in shown[1:-2])
    assert shown[-2].endswith("channels 1 2")
    assert list(lines_of({"settings": {"ppo": {"clip": 0.2}, "seed": 0}})) == [
        "settings:",
        "  ppo: clip 0.2",
        "  seed: 0",
    ]


def test_recorded_results_are_tables_and_strange_ones_stand_alone() -> None:
    how = {"protocol": "efficientnet", "num_images": 1000, "dataset": "birds", "seed": 1, "nat": "abc"}
    results = [
        {"metric": "top1", "value": 0.25, **how, "schedule": "cosine", "num_steps": 4},
        {"metric": "real_top1", "value": 0.5, **how, "schedule": "cosine", "num_steps": 4},
        {"metric": "fid", "value": 8.0, **how, "schedule": "cosine", "num_steps": 4, "guidance": 2.0},
        {"metric": "fid", "value": 7.0, **how, "schedule": "cosine", "num_steps": 4, "seed": 2},
        {"metric": "reconstruction_psnr", "value": 20.5, "reconstructed": "[red]birds (val)", "num_images": 9},
        {"metric": "charm", "value": "much"},
    ]
    lines = list(result_lines(results))
    assert lines[0] == "Result      metric charm, value much"
    heads = [line for line in lines if line.startswith("Results")]
    assert heads == [
        "Results     protocol efficientnet, 1,000 images, against birds, seed 1",
        "Results     protocol efficientnet, 1,000 images, against birds, seed 2",
        "Results     9 images",
    ]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert rows == [
        ["cosine, 4 steps", "—", "0.250"],
        ["cosine, 4 steps, guidance 2.0", "8.000", "—"],
        ["real images", "—", "0.500"],
        ["cosine, 4 steps", "7.000"],
        ["reconstructed [red]birds (val)", "20.50"],
    ]
