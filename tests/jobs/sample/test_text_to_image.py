"""Text to image from pictures with captions to prompts, with a CLIP made up on the spot."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from adanat_cli import Pipeline
from adanat_cli.cli import app
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import (
    DiscriminatorConfig,
    NATConfig,
    NATTrainingConfig,
    PolicyTrainingConfig,
    PPOConfig,
    data_config,
)
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.config.settings import NATSettings, PolicySettings
from adanat_cli.core.data.token_set import TokenSet
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.rewards.preference import PreferenceReward
from adanat_cli.core.text.encoder import TextEncoder
from adanat_cli.jobs.resolve.models import load_nat, resolve_model
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample.conditions import CaptionConditions
from adanat_cli.jobs.sample.sample import sample
from adanat_cli.jobs.train.nat import pretrain_nat
from adanat_cli.jobs.train.nat_start import fit_to_tokens
from adanat_cli.jobs.train.policy import train_policy
from tests.clip_toy import make_clip
from tests.jobs.train.test_nat import At

pytest.importorskip("transformers")
SCRIPT = Path(__file__).parents[3] / "examples" / "captions.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("captions_example", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("captions")


@pytest.fixture(scope="module")
def results(example: ModuleType, folder: Path) -> dict[str, dict[str, float]]:
    """The example's short form: pictures, tokens with encoded captions, NAT, policy, samples."""
    return example.run(folder, quick=True)


def draw(folder: Path, output: Path, **fields: Any) -> dict[str, Any]:
    request = {"model": str(folder / "nat" / "model"), "num_images": 4, "num_steps": 3, "device": "cpu", **fields}
    return sample(SampleRequest(output=output, **request), SilentReporter())


def test_the_prompt_rules_the_colour(results: dict[str, dict[str, float]]) -> None:
    # Chance is a quarter; kinds of processors differ by a few of the 48 images.
    assert results["cosine"]["colour"] > 0.65
    assert results["learned"]["colour"] > 0.65


def test_the_nat_names_its_encoder(results: dict[str, Any], folder: Path) -> None:
    nat = NATConfig.from_dict(ModelFolder(folder / "nat" / "model").config("nat"), "nat")
    assert (nat.condition, nat.text_width, nat.text_length) == ("text", 32, 6)
    assert nat.text_encoder == "clip"
    for copy in ("clip", "tokens/text", "nat/model/text"):
        assert nat.text_fingerprint == TextEncoder(str(folder / copy)).fingerprint
    assert not (folder / "nat" / "model" / "labels.json").exists()


def test_prompts_name_files_and_rule_images_alone(results: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    prompts = ("one red square", "Two (blue) squares!")
    drawn = draw(folder, tmp_path / "a", prompts=prompts, trace=True, schedule="cosine")
    assert [Path(file).name for file in drawn["files"][:2]] == [
        "00000_one-red-square_seed0.png",
        "00001_two-blue-squares_seed0.png",
    ]
    assert drawn["prompts"] == list(prompts)
    trace = json.loads((tmp_path / "a" / "00001_two-blue-squares_seed0_trace.json").read_text())
    assert trace["prompt"] == prompts[1]
    again = draw(folder, tmp_path / "b", prompts=prompts, num_images=2, batch_size=1, schedule="cosine")
    for one, two in zip(drawn["files"], again["files"], strict=False):
        assert Path(one).read_bytes() == Path(two).read_bytes()


def test_prompts_come_from_a_file_one_a_line(results: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("one red square\n\n two green squares \n")
    arguments = ["--model", str(folder / "nat" / "model"), "--steps", "2", "--device", "cpu", "--json"]
    arguments += ["--prompts", str(tmp_path / "prompts.txt"), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["sample", *arguments])
    assert json.loads(done.stdout)["prompts"] == ["one red square", "two green squares"]
    assert len(list((tmp_path / "out").glob("0*.png"))) == 2


def test_an_edit_follows_its_prompt_or_none(results: dict[str, Any], folder: Path) -> None:
    pipeline = Pipeline.from_pretrained(str(folder / "nat" / "model"), device="cpu")
    (image,) = pipeline.sample(prompts="one red square", num_steps=3, schedule="cosine").images
    asked = {"box": (0, 0, *image.size), "num_steps": 3, "schedule": "cosine"}
    edited = pipeline.edit(image, prompts=["one green square", "one red square"], **asked)
    assert edited.labels == [0, 1]
    drawn = pipeline.sample(prompts=["one green square", "one red square"], num_steps=3, schedule="cosine")
    for one, other in zip(edited.images, drawn.images, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))
    free = pipeline.edit(image, variations=2, **asked)
    assert free.labels == [0, 0]
    assert not np.array_equal(np.asarray(free.images[0]), np.asarray(edited.images[0]))


def test_python_draws_what_the_command_draws(results: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    pipeline = Pipeline.from_pretrained(str(folder / "nat" / "model"), device="cpu")
    samples = pipeline.sample(prompts=["one red square", "two blue squares"], num_steps=3, schedule="cosine")
    drawn = draw(folder, tmp_path, prompts=("one red square", "two blue squares"), num_images=2, schedule="cosine")
    assert samples.labels == [0, 1]
    for image, file in zip(samples.images, drawn["files"], strict=True):
        assert np.array_equal(np.asarray(image), np.asarray(Image.open(file)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ("3",)}, "conditioned on text; give --prompt"),
        ({}, "say what to draw: --prompt"),
        ({"prompts": ("x",), "text_encoder": "no/such-model-folder/here"}, "cannot be loaded"),
        ({"prompts": ("x",), "model": ""}, "conditioned on classes; give --class"),
    ],
)
def test_wrong_conditions_are_told_in_one_line(
    results: dict[str, Any], folder: Path, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(AdaNATError, match=message) as caught:
        draw(folder, tmp_path, **fields)
    assert "\n" not in str(caught.value)


def test_another_encoder_is_refused(results: dict[str, Any], example: ModuleType, folder: Path, tmp_path: Path) -> None:
    other = make_clip(tmp_path / "narrow", ["red"], length=6)
    with pytest.raises(AdaNATError, match=r"6 states of width 16, but .* 6 of width 32.*--text-encoder"):
        draw(folder, tmp_path, prompts=("red",), text_encoder=str(other))
    same_shape = example.write_encoder(tmp_path / "other", 8)
    weights = TextEncoder(str(same_shape)).tower
    with torch.no_grad():
        weights.text_projection.weight.add_(0.1)
    weights.save_pretrained(same_shape)
    with pytest.raises(AdaNATError, match="was trained with text encoder"):
        draw(folder, tmp_path, prompts=("red",), text_encoder=str(same_shape))


def test_a_missing_transformers_is_told_with_the_way_to_install_it(
    results: dict[str, Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(AdaNATError, match=r"pip install 'adanat\[text\]'") as caught:
        draw(folder, tmp_path, prompts=("red",))
    assert "\n" not in str(caught.value)


def test_captions_encoded_on_the_fly_are_those_that_were_stored(results: dict[str, Any], folder: Path) -> None:
    tokens, encoder = TokenSet.open(folder / "tokens"), TextEncoder(str(folder / "clip"))
    assert (tokens.num_captions, tokens.info.text_fingerprint) == (960, encoder.fingerprint)
    numbers = torch.tensor([5, -1, 959, 0, 5])
    stored, fresh = (CaptionConditions(numbers, tokens, each, torch.device("cpu")) for each in (None, encoder))
    torch.testing.assert_close(stored.encode(numbers), fresh.encode(numbers), atol=2e-3, rtol=0)
    torch.testing.assert_close(stored.null, encoder.null.states[0], atol=2e-3, rtol=0)


def test_captions_are_encoded_on_the_fly_where_none_are_stored(
    results: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    def run(command: str, *arguments: object) -> Any:
        done = CliRunner().invoke(app, [command, *map(str, arguments), "--device", "cpu"])
        assert done.exit_code == 0, done.stderr or done.exception
        return done

    data, model = ("--dataset", folder / "pictures"), ("--model", folder / "nat" / "model")
    plain = ("--image-size", 8, "--no-flips", "--output", tmp_path / "tokens")
    run("tokenize", *data, *model, *plain)
    assert not list((tmp_path / "tokens").glob("*.npy"))
    short = ("--size", "nano", "--steps", 2, "--batch-size", 32, "--precision", "fp32", "--log-every", 2)
    losses = []
    for name, tokens, encoder in (
        ("fly", tmp_path / "tokens", ("--text-encoder", folder / "clip")),
        ("stored", folder / "tokens", ()),
    ):
        run("pretrain-nat", *data, *model, *short, "--tokens", tokens, *encoder, "--output", tmp_path / name)
        lines = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        losses.append(next(line["loss"] for line in lines if "loss" in line))
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def policy_request(folder: Path, output: Path, **training: Any) -> PolicySettings:
    """A policy training of seconds."""
    source = str(folder / "pictures")
    few = {"updates": 1, "trajectories": 8, "eval_images": 8, "batch_size": 4, "precision": "fp32", "save_every": 1}
    return PolicySettings(
        dataset=source,
        data=data_config(source, image_size=1),
        num_steps=3,
        kind="adaptive",
        training=PolicyTrainingConfig(**{**few, **training}),
        ppo=PPOConfig(epochs=1),
        discriminator=DiscriminatorConfig(backbone="pyramid", batch_size=4, width=8, updates=2),
        policy={"hidden_width": 16},
        base="cosine",
        output=output,
        model=str(folder / "nat" / "model"),
        preference_model=str(folder / "clip"),
        workers=0,
        device="cpu",
    )


def test_the_preference_reward_sees_the_prompts(
    results: dict[str, Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    similarity = PreferenceReward.score

    def spy(self: PreferenceReward, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        seen.extend(prompts)
        return similarity(self, images, prompts)

    monkeypatch.setattr(PreferenceReward, "score", spy)
    request = policy_request(folder, tmp_path / "run", reward="preference")
    assert np.isfinite(train_policy(request, SilentReporter())["distance"])
    assert len(seen) == 8
    assert set(seen) <= set(TokenSet.open(folder / "tokens").captions(np.arange(960)))
    # A prompt hardly comes twice, so there is no mean of its rewards to subtract.
    assert json.loads((tmp_path / "run" / "config.json").read_text())["ppo"]["baseline"] == "none"
    with pytest.raises(AdaNATError, match=r"preference_model was '.*clip', now 'another/judge'; repeat its settings"):
        train_policy(replace(request, preference_model="another/judge"), SilentReporter())


def test_a_text_nat_is_trained_further_with_its_own_encoder(
    results: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    model, tokens = folder / "nat" / "model", TokenSet.open(folder / "tokens")
    training = NATTrainingConfig(steps=1, batch_size=4, warmup_steps=0, held_out=0.0, precision="fp32")
    request = NATSettings("pictures", folder / "tokens", "", training, tmp_path / "run", device="cpu")
    done = pretrain_nat(replace(request, start=str(model)), SilentReporter())
    further, before = load_nat(resolve_model(done["model"])), load_nat(ModelFolder(model))
    assert further.config == before.config
    # The first update's rate is 0.
    assert all(map(torch.equal, further.state_dict().values(), before.state_dict().values()))
    assert ModelFolder(done["model"]).fingerprint("text") == ModelFolder(model).fingerprint("text")
    pretrain_nat(request, SilentReporter())  # resumed
    plain = replace(tokens.info, text_width=0, text_length=0, text_fingerprint="")
    encoder = TextEncoder(str(folder / "clip"))
    assert fit_to_tokens(before.config, "", plain, encoder, "nat") == before.config
    for other, words in (
        (replace(tokens.info, text_fingerprint="f00d"), "encoded by clip f00d"),
        (replace(tokens.info, text_length=7), "as 7 x 32 states, but the NAT of --from nat reads 6 x 32"),
        (
            replace(tokens.info, condition="class"),
            "class labels, but the NAT of --from nat is conditioned on cap",
        ),
    ):
        with pytest.raises(AdaNATError, match=words):
            fit_to_tokens(before.config, "", other, None, "nat")


def test_a_stopped_policy_training_on_captions_goes_on_to_the_same_state(
    results: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    for name in ("whole", "stopped"):
        request = policy_request(folder, tmp_path / name, updates=2)
        if name == "stopped":
            with pytest.raises(KeyboardInterrupt):
                train_policy(request, At(1, lambda: os.kill(os.getpid(), signal.SIGINT)))
        train_policy(request, SilentReporter())
    files = [tmp_path / name / "checkpoints" / "step-00000002.safetensors" for name in ("whole", "stopped")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_evaluation_captions_are_the_same_for_everybody(
    results: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    shown = []
    for name in ("a", "b"):
        arguments = ["info", "--dataset", str(folder / "pictures"), "--captions", str(tmp_path / name)]
        done = CliRunner().invoke(app, [*arguments, "--num-captions", "70", "--json"])
        shown.append(json.loads(done.stdout))
    assert shown[0]["sha256"] == shown[1]["sha256"]
    lines = (tmp_path / "a").read_text().splitlines()
    assert (len(lines), shown[0]["num_captions"]) == (70, 70)
    # 60 held-out pictures of 24 combinations: all come, one caption each, before any comes again.
    assert len({tuple(sorted(line.replace("of", "").split())) for line in lines[:60]}) == 24
