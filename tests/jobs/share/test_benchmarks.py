"""The four benchmarks at full size, without data: sizes as published, and dry runs of every command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.commands.describe import benchmark_lines
from adanat_cli.core.config import BENCHMARKS, DATA_PRESETS, text_encoder_of
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.share.benchmarks import describe_benchmark

MILLION = 1_000_000


def dry(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*arguments, "--dry-run", "--json"])
    assert done.exit_code == 0, done.stderr or done.exception
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("name", "nat", "with_policy"),
    [("imagenet256", 194, 206), ("imagenet512", 194, None), ("mscoco", 46, 57), ("cc3m", None, None)],
)
def test_networks_have_the_published_sizes(name: str, nat: int | None, with_policy: int | None) -> None:
    values = describe_benchmark(name)
    counts = values["parameters"]
    if name == "cc3m":
        assert counts["nat"] == 503_628_929
    if nat:
        assert counts["nat"] == pytest.approx(nat * MILLION, rel=0.02)
    if with_policy:
        assert counts["nat"] + counts["policy"] == pytest.approx(with_policy * MILLION, rel=0.02)
    assert counts["tokenizer"] == 54_515_587
    shown = "\n".join(benchmark_lines(values))
    assert f"{counts['nat']:,}" in shown
    assert values["reference"] in shown


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_every_command_tells_a_benchmark_without_data(name: str) -> None:
    benchmark, text = BENCHMARKS[name], BENCHMARKS[name].condition == "text"
    num_tokens = 1024 if name == "imagenet512" else 256
    tokenized = dry("tokenize", "--dataset", name, "--encode-captions")
    assert (tokenized["tokens_per_image"], tokenized["num_images"]) == (num_tokens, benchmark.num_images)
    assert ("state_kilobytes_per_caption" in tokenized) == text
    trained = dry("train-tokenizer", "--dataset", name)
    assert (trained["tokens_per_image"], trained["megabytes_on_one_process"] > 1000) == (num_tokens, True)
    nat = dry("pretrain-nat", "--dataset", name, "--tokens", "nowhere")
    assert nat["nat"]["condition"] == benchmark.condition
    assert nat["nat"]["text_encoder"] == benchmark.text_encoder
    assert (nat["tokens_per_image"], nat["training"]["steps"]) == (num_tokens, benchmark.nat_steps)
    assert nat["num_parameters"] == describe_benchmark(name)["parameters"]["nat"]
    policy = dry("train-policy", "--dataset", name, "--recipe", "paper")
    assert policy["num_nat_parameters"] == nat["num_parameters"]
    # The authors' class-conditional discriminator; a text's heads map the embedding and need no mapping network.
    assert policy["num_discriminator_parameters"] < 31_951_104 if text else True
    assert text or (policy["num_discriminator_parameters"], policy["num_trained_discriminator_parameters"]) == (
        31_951_104,
        10_285_440,
    )
    assert ("text_state_megabytes" in policy) == text


def test_presets_of_data_are_the_benchmarks_rows() -> None:
    for name, benchmark in BENCHMARKS.items():
        assert DATA_PRESETS[name] == benchmark.data()


def test_a_nat_that_names_no_encoder_has_its_widths() -> None:
    assert text_encoder_of(768) == "openai/clip-vit-large-patch14"
    assert text_encoder_of(1280) == "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"
    with pytest.raises(AdaNATError, match=r"width 24 .*--text-encoder"):
        text_encoder_of(24)


def test_an_unknown_benchmark_and_captions_of_classes_are_told_in_one_line() -> None:
    with pytest.raises(AdaNATError, match=r"did you mean imagenet512\? Expected one of imagenet256"):
        describe_benchmark("imagenet51")
    done = CliRunner().invoke(app, ["info", "--dataset", "imagenet256", "--captions", "x.txt"])
    assert isinstance(done.exception, AdaNATError)
    assert "has class labels" in str(done.exception)


@pytest.mark.parametrize("model", ["", "imagenet256", "models/imagenet256"])
def test_a_published_model_that_is_not_here_is_planned_and_said_to_be_missing(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = ["--model", model] if model else []
    for command in (["tokenize"], ["pretrain-nat", "--tokens", "nowhere"], ["train-policy", "--reward", "fid"]):
        values = dry(command[0], "--dataset", "imagenet256", *command[1:], *named)
        assert "fetch it with: adanat pull imagenet256" in values["missing"][0]
    line = ["train-policy", "--dataset", "imagenet256", "--data-dir", str(tmp_path), *named]
    done = CliRunner().invoke(app, line)
    assert str(done.exception) == "Model imagenet256 is not here yet; fetch it with: adanat pull imagenet256."
    assert not list(tmp_path.iterdir())


def test_data_of_ones_own_needs_its_model(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["train-policy", "--dataset", str(tmp_path)])
    assert "No --model was given" in str(done.exception)
