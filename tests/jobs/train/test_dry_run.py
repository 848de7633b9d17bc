"""A dry run looks at images of one's own: it says what it understands of them, and refuses what the run would."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.data.token_shards import TokenSetInfo
from adanat_cli.jobs.runtime.devices import device_memory
from tests.image_files import write_class_folder
from tests.policy_toy import make_policy_toy

LINES = {
    "tokenize": ["tokenize", "--tokenizer", "{toy}/model"],
    "train-tokenizer": ["train-tokenizer", "--image-size", "16"],
    "train-policy": ["train-policy", "--model", "{toy}/model", "--steps", "3"],
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_policy_toy(tmp_path_factory.mktemp("dry"))
    (folder / "empty").mkdir()
    return folder


def dry(command: str, toy: Path, data: object, *words: str) -> dict[str, str]:
    line = [word.format(toy=toy) for word in LINES[command]]
    line += ["-d", str(data), "--device", "cpu", "--dry-run", "--json", *words]
    return dict(json.loads(CliRunner().invoke(app, line, catch_exceptions=False).stdout))


@pytest.mark.parametrize("command", LINES)
def test_it_says_how_many_images_of_which_classes_and_size_there_are(toy: Path, command: str) -> None:
    every = "24 images in 3 classes (one, two, zero), 8 each. "
    kept = "22 images in 3 classes, from 7 (two) to 8 (one) each; it has no validation split"
    said = dry(command, toy, toy / "images")["images"]
    assert said.startswith(f"images (train): {kept if command == 'train-policy' else every}")
    assert ". Their shorter side is about 16 pixels." in said
    assert ("To measure with: images (train): 2 images" in said) == (command == "train-policy")


@pytest.mark.parametrize("command", LINES)
@pytest.mark.parametrize(
    ("data", "words"), [("none", "none does not exist; expected a folder"), ("empty", "empty holds no images")]
)
def test_a_folder_without_images_is_refused(toy: Path, command: str, data: str, words: str) -> None:
    with pytest.raises(Exception, match=words):
        dry(command, toy, toy / data)


def test_images_of_other_classes_than_the_models_are_refused_to_a_policy(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="names its classes cat, dog, but the NAT of"):
        dry("train-policy", toy, write_class_folder(tmp_path, 20))
    with pytest.raises(
        Exception, match="but the NAT of imagenet64 knows goldfish, jellyfish, king penguin and 17 more;"
    ):
        dry("train-policy", toy, tmp_path, "--model", "imagenet64")


def test_tokens_of_the_classes_and_images_that_are_asked_for_are_counted(toy: Path) -> None:
    assert dry("tokenize", toy, toy / "images", "-c", "two")["num_images"] == 8
    assert dry("tokenize", toy, toy / "images", "--num-images", "5")["num_images"] == 5


@pytest.mark.parametrize("command", LINES)
def test_images_on_other_machines_stay_there(toy: Path, command: str) -> None:
    assert "images" not in dry(command, toy, "user/photos")


def test_tokens_of_other_images_than_those_that_are_named_are_told(toy: Path, tmp_path: Path) -> None:
    def said(*words: str) -> str:
        done = CliRunner().invoke(app, [*words, "--device", "cpu"], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout + done.stderr

    images, model, tokens = str(toy / "images"), str(toy / "model"), str(tmp_path / "tokens")
    said("tokenize", "-d", images, "-m", model, "-o", tokens)
    line = ["pretrain-nat", "-t", tokens, "-m", model, "--size", "nano", "-d"]
    other = "The tokens are those of images (train), not of nowhere/, which is not read here."
    assert other not in said(*line, images, "--dry-run", "--json")
    assert other in said(*line, "nowhere/", "--dry-run", "--json")
    once = ["--updates", "1", "--warmup-steps", "0", "--batch-size", "2", "-o", str(tmp_path / "run")]
    assert other in said(*line, "nowhere/", *once)


def test_tokens_of_a_preset_are_those_of_its_source() -> None:
    info = TokenSetInfo(16, (4, 4), 8, "", "class", 10, False, source="sklearn-digits (train)")
    assert [bool(info.instead_of(name)) for name in ("digits", "imagenet64", "./sklearn-digits/")] == [
        False,
        True,
        False,
    ]
    assert not replace(info, source="").instead_of("photos")
    assert info.instead_of("https://me:word@host/a.tar?key=1").count("word") == 0


@pytest.mark.parametrize("command", ["train-tokenizer", "train-policy"])
def test_what_takes_more_memory_than_there_is_says_so(toy: Path, command: str) -> None:
    assert "memory" not in dry(command, toy, toy / "images")
    megabytes = device_memory(torch.device("cpu")) // 2**20
    plan = dry(command, toy, toy / "images", "--batch-size", "100000000")
    assert plan["memory"] == f"more than the {megabytes:,} MB of this machine"
    assert int(plan["megabytes_on_one_process"]) > megabytes
