"""Settings for data without a preset: a table of what follows from which data and machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adanat_cli.core.config import NATTrainingConfig, PolicyTrainingConfig, PPOConfig, TokenizerTrainingConfig
from adanat_cli.core.config import own_data as usual
from adanat_cli.core.config.own_data import Scale
from adanat_cli.core.errors import AdaNATError

GB = 2**30
CPU, GPU = Scale(0, "cpu", 16 * GB), Scale(0, "cuda", 80 * GB)


@pytest.mark.parametrize(
    ("machine", "num_images", "size", "batch_size", "steps", "held_out"),
    [
        (CPU, 300, "nano", 32, 3100, 0.05),
        (CPU, 5_000, "micro", 128, 5400, 0.01),
        (CPU, 100_000, "tiny", 128, 1400, 0.01),
        (CPU, 1_281_167, "tiny", 128, 1400, 0.01),
        (GPU, 300, "nano", 32, 3100, 0.05),
        (GPU, 5_000, "tiny", 512, 2000, 0.01),
        (GPU, 100_000, "small", 2048, 9800, 0.01),
        (GPU, 1_281_167, "large", 2048, 130_000, 0.01),
        (GPU, None, "small", 2048, 9800, 0.01),
    ],
)
def test_the_nat_follows_from_the_number_of_images_and_the_machine(
    machine: Scale, num_images: int | None, size: str, batch_size: int, steps: int, held_out: float
) -> None:
    row = usual.usual_nat(replace(machine, num_images=num_images), 64, {})
    assert row.pop("size") == size
    config = NATTrainingConfig(**row)
    assert (config.batch_size, config.steps, config.held_out) == (batch_size, steps, held_out)
    assert config.warmup_steps <= config.steps / 20
    assert config.save_every <= config.steps / 4


@pytest.mark.parametrize(
    ("machine", "num_images", "batch_size", "steps"),
    [
        (CPU, 300, 32, 1000),
        (CPU, 5_000, 32, 2500),
        (CPU, 100_000, 32, 2500),
        (CPU, 1_281_167, 32, 2500),
        (GPU, 300, 32, 1000),
        (GPU, 5_000, 64, 3900),
        (GPU, 100_000, 128, 39_000),
        (GPU, 1_281_167, 128, 39_000),
    ],
)
def test_the_tokenizer_training_follows_from_the_number_of_images_and_the_machine(
    machine: Scale, num_images: int, batch_size: int, steps: int
) -> None:
    config = TokenizerTrainingConfig(**usual.usual_tokenizer_training(replace(machine, num_images=num_images), 64, {}))
    assert (config.batch_size, config.steps) == (batch_size, steps)
    assert config.warmup_steps < config.adversarial_start < config.steps


@pytest.mark.parametrize(
    ("machine", "num_images", "image_size", "updates", "trajectories", "eval_images", "backbone"),
    [
        (CPU, 300, 64, 30, 256, 500, "classifier"),
        (CPU, 100_000, 64, 30, 256, 1000, "classifier"),
        (CPU, 100_000, 256, 30, 256, 1000, "pyramid"),
        (GPU, 300, 64, 100, 256, 1000, "classifier"),
        (GPU, 5_000, 64, 300, 512, 2000, "classifier"),
        (GPU, 100_000, 256, 300, 512, 2000, "dino"),
        (GPU, 1_281_167, 256, 1000, 1024, 5000, "dino"),
    ],
)
def test_the_policy_training_follows_from_the_number_of_images_and_the_machine(
    machine: Scale,
    num_images: int,
    image_size: int,
    updates: int,
    trajectories: int,
    eval_images: int,
    backbone: str,
) -> None:
    row = usual.usual_policy(replace(machine, num_images=num_images), image_size, {})
    config = PolicyTrainingConfig(**row["training"])
    assert (config.updates, config.trajectories, config.eval_images) == (updates, trajectories, eval_images)
    assert row["discriminator"]["backbone"] == backbone
    assert config.paired == (PPOConfig(**row["ppo"]).baseline == "pair")


@pytest.mark.parametrize(("num_images", "steps"), [(40, 200), (300, 230), (5_000, 1000), (None, 1000)])
def test_a_small_classifier_of_few_images_is_trained_shortly(num_images: int | None, steps: int) -> None:
    assert usual.usual_features(replace(CPU, num_images=num_images))["steps"] == steps


@pytest.mark.parametrize(("num_images", "number"), [(300, 1000), (5_000, 5000), (1_281_167, 50_000), (None, 50_000)])
def test_an_evaluation_is_as_large_as_the_training_set(num_images: int | None, number: int) -> None:
    assert usual.usual_evaluation(num_images, 50_000) == number


def test_what_is_asked_for_goes_first_and_the_rest_follows_from_it() -> None:
    row = usual.usual_nat(replace(CPU, num_images=300), 64, {"size": "micro", "batch_size": 10, "steps": 40})
    assert (row["size"], row["batch_size"], row["steps"], row["warmup_steps"]) == ("micro", 10, 40, 2)
    assert row["ema_decay"] == 0.75


def test_a_size_that_fills_the_memory_is_not_taken() -> None:
    small = Scale(1_281_167, "cuda", 8 * GB)
    assert usual.usual_nat(small, 64, {})["size"] == "small"


@pytest.mark.parametrize(("side", "size"), [(8, 16), (28, 32), (47, 64), (64, 64), (500, 64)])
def test_images_of_any_size_get_a_usual_one(side: int, size: int) -> None:
    assert usual.usual_image_size(side) == size


@pytest.mark.parametrize(("image_size", "downsampling"), [(16, 2), (28, 4), (32, 4), (64, 8), (96, 8), (256, 16)])
def test_a_usual_grid_divides_the_image(image_size: int, downsampling: int) -> None:
    assert usual.usual_shape(replace(CPU, num_images=300), image_size)["downsampling"] == downsampling
    assert image_size % downsampling == 0


def test_a_warm_up_longer_than_the_run_is_cut_or_refused() -> None:
    assert usual.fitting_warmup(100, 100, is_asked=True) == 100
    assert usual.fitting_warmup(40, 5000, is_asked=False) == 2
    with pytest.raises(AdaNATError, match=r"warm-up of 50 updates is longer than the run of 40.*--warmup-steps"):
        usual.fitting_warmup(40, 50, is_asked=True)
