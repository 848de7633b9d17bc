"""What was typed becomes a complete request: before the run's own settings, the preset's and the usual ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import (
    PROJECTED_REWARD,
    RECIPES,
    TRAINING_PRESETS,
    DiscriminatorConfig,
    TokenizerTrainingConfig,
    VQAEConfig,
)
from adanat_cli.core.config.training_requests import PretrainNATRequest, TrainPolicyRequest, TrainTokenizerRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.train.nat import pretrain_nat
from adanat_cli.jobs.train.policy import train_policy
from adanat_cli.jobs.train.settings import nat_settings, policy_settings, tokenizer_settings
from tests.image_files import write_class_folder
from tests.nat_toy import make_model, make_tokens
from tests.policy_toy import make_policy_toy


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of one's own, a model of theirs and its tokens."""
    folder = tmp_path_factory.mktemp("own")
    write_class_folder(folder / "shapes", 24, ("circle", "square"), 40)
    model = make_model(folder / "model")
    make_tokens(folder / "tokens", model.fingerprint("tokenizer"), 300)
    return folder


def nat(own: Path, output: str, **training: Any) -> Any:
    asked = PretrainNATRequest(
        str(own / "shapes"),
        own / "tokens",
        output=own / output,
        model=str(own / "model"),
        training=training,
        device="cpu",
    )
    return nat_settings(asked)


def test_images_of_ones_own_are_counted_and_looked_at(own: Path) -> None:
    asked = TrainTokenizerRequest(str(own / "shapes"), output=own / "run", training={"batch_size": 8}, device="cpu")
    request = tokenizer_settings(asked)
    assert (request.data.image_size, request.tokenizer.image_size) == (32, 32)
    assert isinstance(request.tokenizer, VQAEConfig)
    assert (request.tokenizer.codebook_size, request.tokenizer.grid) == (256, (8, 8))
    assert request.training.batch_size == 8
    assert "of some 40 pixels are cut to squares of 32 x 32 pixels (--image-size sets another size)" in request.note
    assert "from 24 images on a CPU: 4,000 updates, warm-up 200, EMA decay 0.9975; options set others" in request.note


def test_what_is_typed_goes_before_what_is_usual(own: Path) -> None:
    asked = TrainTokenizerRequest(
        str(own / "shapes"),
        {"image_size": 64, "image_column": None},
        own / "run",
        codebook_size=32,
        downsampling=16,
        training={"steps": 40},
        device="cpu",
    )
    request = tokenizer_settings(asked)
    assert request.tokenizer == VQAEConfig(64, 32, channels=(32, 64, 128, 256))
    assert (request.training.steps, request.training.warmup_steps) == (40, 2)


def test_a_projected_discriminator_brings_its_settings_before_those_of_the_data(own: Path) -> None:
    def settled(**training: Any) -> Any:
        asked = TrainTokenizerRequest("digits", output=own / "projected", training=training, device="cpu")
        return tokenizer_settings(asked).training

    assert settled().perceptual_backbone == ""
    projected = settled(discriminator="efficientnet", adversarial_weight=0.2)
    assert (projected.perceptual_backbone, projected.learning_rate, projected.beta1) == ("efficientnet", 5e-4, 0.5)
    assert (projected.adversarial_weight, projected.steps) == (0.2, 1500)
    with pytest.raises(AdaNATError, match="--feature-size has no meaning"):
        settled(feature_size=64)


def test_three_hundred_images_get_a_nat_of_their_size(own: Path) -> None:
    request = nat(own, "fresh")
    assert (request.size, request.training.batch_size, request.training.steps) == ("nano", 32, 3100)
    assert "follow from 300 images on a CPU: size nano, 3,100 updates of 32 images" in request.note


def test_what_follows_from_the_data_is_named_and_nothing_that_was_given(own: Path) -> None:
    def told(**training: Any) -> str:
        return str(nat(own, "fresh", **training).note)

    assert "CPU: size nano, 3,100 updates of 32 images, warm-up 155, EMA decay 0.9968, 5 % of them held out;" in told()
    assert "CPU: size nano, 32 images an update, warm-up 2; options" in told(steps=50, ema_decay=0.9, held_out=0)
    (own / "own.yaml").write_text(
        "nat: {width: 48}\ntraining: {steps: 9, warmup_steps: 1, batch_size: 4, held_out: 0}\n"
    )
    asked = PretrainNATRequest(str(own / "shapes"), own / "tokens", model=str(own / "model"), output=own / "fresh")
    asked = replace(asked, config=own / "own.yaml", training={"ema_decay": 0.5}, device="cpu")
    assert not nat_settings(asked).note


def test_a_resumed_run_keeps_its_own_settings(own: Path) -> None:
    few = {"steps": 2, "batch_size": 4, "warmup_steps": 1, "precision": "fp32", "sample_every": 9}
    pretrain_nat(nat(own, "run", **few), SilentReporter())
    again = nat(own, "run")
    assert (again.size, again.training.steps, again.training.batch_size) == ("nano", 2, 4)
    assert not again.note
    assert pretrain_nat(again, SilentReporter())["steps"] == 2
    with pytest.raises(AdaNATError, match=r"training\.batch_size was 4, now 6"):
        pretrain_nat(nat(own, "run", batch_size=6), SilentReporter())


def test_a_run_of_an_earlier_version_goes_on(own: Path) -> None:
    few = {"steps": 2, "batch_size": 4, "warmup_steps": 1, "precision": "fp32", "sample_every": 9, "held_out": 0.0}
    pretrain_nat(nat(own, "old", **few), SilentReporter())
    config = json.loads((own / "old" / "config.json").read_text())
    del config["training"]["held_out"]
    (own / "old" / "config.json").write_text(json.dumps(config))
    assert pretrain_nat(nat(own, "old"), SilentReporter())["steps"] == 2


def test_presets_keep_their_settings_and_yield_to_what_is_typed(tmp_path: Path) -> None:
    row = TRAINING_PRESETS["digits"]
    asked = PretrainNATRequest(
        "digits", tmp_path / "tokens", output=tmp_path / "run", training={"steps": 50}, device="cpu"
    )
    request = nat_settings(asked)
    assert (request.size, request.note) == (row["size"], "")
    assert request.training.to_dict().items() >= {**row["nat"], "steps": 50, "warmup_steps": 2}.items()


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"steps": 10, "warmup_steps": 20}, "warm-up of 20 updates is longer than the run of 10"),
        ({"held_out": 0.001}, "--held-out 0.001 of 300 images is less than one"),
        ({"held_out": 0.9}, "expected at least 0 and at most 0.5"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_any_work(own: Path, training: dict[str, Any], words: str) -> None:
    with pytest.raises(AdaNATError, match=words):
        nat(own, "wrong", **training)


@pytest.mark.parametrize("dataset", ["digits", "shapes"])
def test_policies_without_pairs_take_another_baseline(own: Path, dataset: str) -> None:
    model = ModelFolder(own / "model")
    source = dataset if dataset in RECIPES else str(own / "shapes")
    others = {"kind": "adaptive", "num_steps": 4, "model": str(model.path), "device": "cpu"}
    paired = policy_settings(TrainPolicyRequest(source, **others))
    assert (paired.training.paired, paired.ppo.baseline, paired.discriminator.backbone) == (True, "pair", "classifier")
    assert paired.training.trajectories == 256
    follows = "from 24 images on a CPU: 30 updates of 256 images, 500 images to measure with, discriminator classifier;"
    assert (follows in paired.note) == (dataset == "shapes")
    alone = policy_settings(TrainPolicyRequest(source, training={"paired": False}, **others))
    assert alone.ppo == replace(paired.ppo, baseline="class")


@pytest.mark.parametrize(("kind", "length"), [("tuned", ""), ("search", "30 generations, ")])
def test_a_search_speaks_of_schedules_and_of_no_updates(own: Path, kind: str, length: str) -> None:
    others = {"kind": kind, "num_steps": 4, "model": str(own / "model"), "device": "cpu"}
    note = policy_settings(TrainPolicyRequest(str(own / "shapes"), **others)).note
    words = "256 images to measure each schedule with, 500 images to measure the best one with;"
    assert f"from 24 images on a CPU: {length}{words}" in note
    given = {"updates": 3, "trajectories": 8}
    note = policy_settings(TrainPolicyRequest(str(own / "shapes"), training=given, **others)).note
    assert "on a CPU: 500 images to measure the best one with;" in note


def test_a_dry_run_follows_from_the_same_settings(own: Path) -> None:
    line = ["pretrain-nat", "-d", str(own / "shapes"), "-t", str(own / "tokens"), "-m", str(own / "model")]
    done = CliRunner().invoke(app, [*line, "--device", "cpu", "--dry-run", "--json"], catch_exceptions=False)
    assert json.loads(done.output)["training"] == nat(own, "fresh").training.to_dict()


def test_a_dry_run_refuses_a_device_that_is_not_there(own: Path) -> None:
    source, model = str(own / "shapes"), str(own / "model")
    lines = [
        ["train-tokenizer", "-d", "digits"],
        ["pretrain-nat", "-d", "digits", "-t", str(own / "tokens"), "-m", model],
        ["train-policy", "-d", source, "-m", model, "--recipe", "default"],
    ]
    for line in lines:
        done = CliRunner().invoke(app, [*line, "--device", "abacus", "--dry-run"])
        assert str(done.exception).startswith("Device 'abacus' cannot be used here; try cpu"), line


@pytest.mark.parametrize("name", ["nophotos", "nophotos/", "./nophotos", "/nowhere/nophotos", "a/b/nophotos"])
@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_images_that_are_no_folder_and_no_id_are_refused_without_the_hub(name: str, dry_run: list[str]) -> None:
    done = CliRunner().invoke(app, ["train-tokenizer", "-d", name, "--device", "cpu", *dry_run])
    assert str(done.exception).startswith(f"{Path(name)} does not exist; expected a folder, a file, a preset or a Hub")


@pytest.mark.parametrize("name", ["imagenet256", "user/photos"])
def test_a_dry_run_plans_for_images_that_are_not_here(name: str) -> None:
    done = CliRunner().invoke(app, ["train-tokenizer", "-d", name, "--device", "cpu", "--dry-run"])
    assert done.exit_code == 0


def test_a_dry_run_refuses_an_odd_number_of_paired_trajectories(own: Path) -> None:
    line = ["train-policy", "-d", str(own / "shapes"), "-m", str(own / "model"), "--device", "cpu", "--dry-run"]
    done = CliRunner().invoke(app, [*line, "--recipe", "default", "--paired", "--trajectories", "3"])
    assert "--trajectories is 3, which cannot be split over pairs" in str(done.exception)


def test_batches_are_cut_to_what_the_memory_holds(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adanat_cli.jobs.train import nat as run
    from adanat_cli.jobs.train.plans import plan_nat

    monkeypatch.setattr(run, "device_memory", lambda _: 2**26)
    assert plan_nat(nat(own, "fresh", batch_size=2048))["accumulate"] > 1
    assert plan_nat(replace(nat(own, "fresh", batch_size=2048), accumulate=2))["accumulate"] == 2


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (
            ["--reward", "fid", "--discriminator", "efficientnet"],
            "--discriminator is for --reward adversarial: it has no meaning with --reward fid; leave it out.",
        ),
        (
            ["--kind", "search", "--augment", "color", "--discriminator-batch", "8"],
            "--discriminator-batch, --augment have no meaning with --kind search; leave them out.",
        ),
        (["--kind", "tuned", "--reward", "fid"], "--reward has no meaning with --kind tuned"),
        (["--fid-credit", "batch"], "--fid-credit is for --reward fid: it has no meaning with --reward adversarial"),
        (["--preference-model", "a"], "--preference-model is for --reward preference: it has no meaning with --reward"),
        (["--reward", "recognition", "--mismatched", "0.5"], "--mismatched is for --reward adversarial"),
    ],
)
def test_an_option_of_another_reward_is_refused(own: Path, typed: list[str], words: str) -> None:
    line = ["train-policy", "-d", str(own / "shapes"), "-m", str(own / "model"), "--device", "cpu", "--dry-run"]
    done = CliRunner().invoke(app, [*line, *typed, "--recipe", "default"])
    assert str(done.exception).startswith(words)


def test_a_text_encoder_is_refused_where_nothing_is_encoded(own: Path) -> None:
    policy = ["train-policy", "-d", str(own / "shapes"), "-m", "imagenet64", "--device", "cpu", "--dry-run"]
    done = CliRunner().invoke(app, [*policy, "--recipe", "default", "--text-encoder", "a"])
    assert str(done.exception).startswith("--text-encoder encodes prompts: it has no meaning with a NAT")
    tokens = ["pretrain-nat", "-d", str(own / "shapes"), "-t", str(own / "tokens"), "-m", str(own / "model")]
    done = CliRunner().invoke(app, [*tokens, "--device", "cpu", "--dry-run", "--text-encoder", "a"])
    assert str(done.exception).startswith("--text-encoder encodes captions: it has no meaning with a token set")


def test_a_discriminator_on_efficientnet_brings_its_settings_but_to_the_papers_recipe() -> None:
    def judge(recipe: str, **asked: Any) -> DiscriminatorConfig:
        typed = {"backbone": "efficientnet", **asked}
        request = TrainPolicyRequest("imagenet64", "imagenet64", recipe=recipe, discriminator=typed, device="cpu")
        return policy_settings(request).discriminator

    own = judge("auto")
    assert (own.learning_rate, own.warmup_updates, own.mismatched, own.updates) == (2e-3, 100, 0.5, 10)
    assert judge("auto", mismatched=0.25, learning_rate=1e-3).replace(**PROJECTED_REWARD) == own
    assert judge("auto", backbone="pyramid").mismatched == 0
    paper = judge("paper")
    assert (paper.learning_rate, paper.warmup_updates, paper.mismatched) == (1e-4, 0, 0)


def test_a_result_that_could_not_be_pushed_is_refused_by_a_dry_run() -> None:
    done = CliRunner().invoke(app, ["train-tokenizer", "-d", "digits", "--push-to-hub", "a b", "--dry-run"])
    assert str(done.exception).startswith("--push-to-hub 'a b' is not an id on the Hub")


@pytest.mark.parametrize("name", ["tf_efficientnet_lite1", "tf_efficientnet_lite1.in1k=weights.safetensors"])
def test_the_network_that_measures_trains_no_tokenizer(name: str) -> None:
    with pytest.raises(AdaNATError, match="measures with, and must not have trained what it measures"):
        TokenizerTrainingConfig(perceptual_backbone=name)
    assert TokenizerTrainingConfig(perceptual_backbone="tf_efficientnet_lite0").backbones == ("tf_efficientnet_lite0",)


def test_training_from_trained_weights_takes_a_quarter_of_the_usual_rate(own: Path) -> None:
    usual = nat(own, "fresh")
    pretrain_nat(nat(own, "base", steps=1, batch_size=4, precision="fp32"), SilentReporter())
    asked = PretrainNATRequest(
        str(own / "shapes"),
        own / "tokens",
        start=str(own / "base" / "model"),
        output=own / "further",
        device="cpu",
    )
    further = nat_settings(asked)
    assert further.training.learning_rate == usual.training.learning_rate / 4
    assert f"Peak learning rate {further.training.learning_rate:g}, for training starts" in further.note
    typed = nat_settings(replace(asked, training={"learning_rate": 0.25}))
    assert typed.training.learning_rate == 0.25
    assert "Peak learning rate" not in typed.note


def test_a_resumed_policy_keeps_its_own_settings(tmp_path: Path) -> None:
    folder = make_policy_toy(tmp_path)
    named: dict[str, Any] = {"kind": "adaptive", "num_steps": 3, "model": str(folder / "model"), "device": "cpu"}
    named |= {"output": folder / "run", "workers": 0}
    training = {"updates": 1, "trajectories": 6, "eval_images": 4, "paired": False}
    judge = {"backbone": "pyramid", "updates": 1, "warmup_updates": 0, "batch_size": 3, "width": 8}
    shape = {"hidden_width": 16, "smoothing": 0.5}
    parts = {"training": training, "ppo": {"epochs": 1}, "discriminator": judge, "policy": shape}
    first = policy_settings(TrainPolicyRequest(str(folder / "images"), **parts, **named))
    assert not first.note
    train_policy(first, SilentReporter())
    again = policy_settings(TrainPolicyRequest(str(folder / "images"), **named))
    assert again == replace(first, note="", policy={"residual": True, **first.policy})
    assert train_policy(again, SilentReporter())["updates"] == 1
    longer = policy_settings(TrainPolicyRequest(str(folder / "images"), training={"updates": 2}, **named))
    assert train_policy(longer, SilentReporter())["updates"] == 2
