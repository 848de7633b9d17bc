"""``adanat evaluate --reconstruct``: a tokenizer is as good as its reconstructions are near to their originals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import PixelConfig, data_config
from adanat_cli.core.config.requests import EvaluateRequest
from adanat_cli.core.data.sources import open_source
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.tokenizer.build import build_tokenizer
from adanat_cli.jobs.evaluate.evaluate import evaluate
from adanat_cli.jobs.evaluate.real_images import have_imagenet_ids
from adanat_cli.jobs.evaluate.reconstructions import Reconstructions, open_reconstructions
from adanat_cli.jobs.resolve.models import load_features
from adanat_cli.jobs.runtime.reporter import SilentReporter
from tests.evaluation_toy import GIVEN, Said, Stops, evaluate_request, fail, make_evaluation_toy, parts, rows
from tests.image_files import picture, png, write_class_folder, write_imagenet64


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy, with a model for each number of grey levels, of a tokenizer and the toy's features alone."""
    folder = make_evaluation_toy(tmp_path_factory.mktemp("reconstruct"))
    features = ModelFolder(folder / "model").component("features")
    for levels in (2, 200):
        write_levels(folder / f"levels-{levels}", levels).write_all([features])
    ModelFolder(folder / "bare").write_all([features])
    return folder


def write_levels(path: Path, levels: int, **provenance: Any) -> ModelFolder:
    """Write a model of a tokenizer alone, whose tokens are pixels of grey."""
    config = PixelConfig(image_size=16, codebook_size=levels)
    model = ModelFolder(path)
    model.write("tokenizer", config.to_dict(), build_tokenizer(config).state_dict(), provenance=provenance)
    return model


def asked(toy: Path, output: Path | str, levels: int = 200, **changes: Any) -> EvaluateRequest:
    """A request to reconstruct the toy's images by grey levels."""
    fields = {"model": str(toy / f"levels-{levels}"), "reconstruct": str(toy / "images"), **GIVEN}
    return evaluate_request(toy, output, **{**fields, **changes})


def measured(toy: Path, output: Path | str, levels: int = 200, **changes: Any) -> dict[str, Any]:
    """The row of ``asked``."""
    (row,) = evaluate(asked(toy, output, levels, **changes), SilentReporter())["results"]
    return row


def opened(request: EvaluateRequest) -> Reconstructions:
    return open_reconstructions(request, ModelFolder(Path(request.model)), torch.device("cpu"), SilentReporter())


@pytest.fixture(scope="module")
def good(toy: Path) -> dict[str, Any]:
    return measured(toy, "good")


def test_a_tokenizer_of_many_levels_is_near_to_the_images_and_one_of_two_is_not(
    toy: Path, good: dict[str, Any], tmp_path: Path
) -> None:
    bad = measured(toy, tmp_path, levels=2)
    assert good["metrics"]["fid"] < 1e-3 * bad["metrics"]["fid"]
    assert good["metrics"]["psnr"] > 50
    pixels = np.stack([picture(number, 16) for number in range(24)]) / 255
    errors = ((pixels.round() - pixels) ** 2).mean()
    assert bad["metrics"]["psnr"] == pytest.approx(-10 * np.log10(errors), abs=1e-4)
    assert good["name"] == "images (train), reconstructed"
    assert good["settings"]["tokenizer"] == ModelFolder(toy / "levels-200").fingerprint("tokenizer")
    assert (good["settings"]["num_images"], good["origin"]) == (24, "levels-200")
    assert str(toy) not in (toy / "good" / "evaluation.json").read_text()


def test_labels_reach_the_measures(toy: Path, good: dict[str, Any]) -> None:
    network = load_features(ModelFolder(toy / "model"))
    source = open_source(data_config(str(toy / "images"), image_size=16))
    assert network is not None
    records = [source.load(index) for index in range(24)]
    images = torch.from_numpy(np.stack([record.pixels for record in records])).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        guesses = network(images).logits.argmax(1)
    labels = torch.tensor([record.label for record in records])
    assert good["metrics"]["accuracy"] == float((guesses == labels).double().mean())


def test_images_are_spread_over_the_data_in_its_order(toy: Path, tmp_path: Path) -> None:
    images = opened(asked(toy, tmp_path, num_samples=5))
    batches = [*images.batches(0, 3), *images.batches(3, 5)]
    records = [images.source.load(index) for index in (0, 4, 9, 14, 19)]
    pixels = np.stack([record.pixels for record in records])
    found = torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1)
    assert np.abs(255 * found.numpy() - pixels).max() < 1
    labels = torch.cat([batch.labels for batch in batches if batch.labels is not None])
    assert labels.tolist() == [record.label for record in records]
    assert images.classes(5) == {0, 1, 2}
    assert images.classes(2) == {0}


def test_classes_have_the_models_ids(tmp_path: Path) -> None:
    folder = make_evaluation_toy(tmp_path)
    ModelFolder(folder / "model").write_labels({0: "zero", 2: "one"})
    request = asked(folder, "out", model=str(folder / "model"))
    images = opened(request)
    assert (images.num_images, images.classes(16), images.missing_labels) == (16, {0, 2}, "")
    (first,) = images.batches(0, 1)
    assert first.labels is not None
    assert first.labels.tolist() == [2]  # "one" is 0 in the data
    assert opened(replace(request, classes=("zero",))).classes(8) == {0}
    every = opened(replace(request, classes=("all",)))
    assert every.num_images == 24
    assert "classes that model model does not know" in every.missing_labels.replace(folder.name, "model")


@pytest.mark.parametrize("classes", [("photos",), ("cars", "ships")])
def test_data_without_the_models_classes_is_measured_without_accuracy(
    toy: Path, tmp_path: Path, classes: tuple[str, ...]
) -> None:
    write_class_folder(tmp_path / "data", 8, classes, 16)
    row = measured(toy, tmp_path / "out", reconstruct=str(tmp_path / "data"), model=str(toy / "model"))
    assert row["metrics"]["accuracy"] is None
    assert row["absent"]["accuracy"].startswith("the classes of data" if len(classes) > 1 else "data has no classes")
    assert row["metrics"]["psnr"] > 0


def test_a_reference_of_other_data_is_named(toy: Path, tmp_path: Path) -> None:
    write_class_folder(tmp_path / "photos", 8, ("cars", "ships"), 16)
    for data, is_other in ((toy / "images", False), (tmp_path / "photos", True)):
        said = Said()
        evaluate(asked(toy, tmp_path / "out", reconstruct=str(data), model=str(toy / "model")), said)
        found = [line for line in said.warned if "and the reconstructions are of photos: unless these are the" in line]
        assert [line.startswith("The reference is of images (train, 16 pixels") for line in found] == [True] * is_other


def test_a_killed_run_and_other_parts_give_the_same_numbers(toy: Path, tmp_path: Path) -> None:
    whole = measured(toy, tmp_path / "whole", levels=2, part_size=24)
    with pytest.raises(RuntimeError, match="killed"):
        evaluate(asked(toy, tmp_path / "killed", levels=2), Stops(12, fail))
    assert len(parts(tmp_path)) == 2
    counts = Stops(10**6, fail)
    (resumed,) = evaluate(asked(toy, tmp_path / "killed", levels=2), counts)["results"]
    assert counts.seen == 14
    assert resumed["settings"] == whole["settings"]
    for name in ("fid", "psnr", "accuracy", "kid"):
        assert resumed["metrics"][name] == pytest.approx(whole["metrics"][name], rel=1e-6, abs=1e-9)


def test_of_a_stream_the_first_images_are_reconstructed(toy: Path, tmp_path: Path) -> None:
    write_imagenet64(tmp_path / "data", 20)
    data = {"data_dir": str(tmp_path / "data"), "image_size": 16}
    streamed = asked(toy, tmp_path / "out", reconstruct="imagenet64", data={**data, "streaming": True}, num_samples=20)
    local = opened(replace(streamed, data=data))
    images = opened(streamed)
    assert not images.numbered_as_imagenet  # "class 207" is no name of ImageNet's 207
    assert have_imagenet_ids(replace(images.source, class_names={207: "golden retriever"}), {}, None)
    for start, stop in ((0, 3), (8, 20), (5, 6)):
        (one,), (two,) = images.batches(start, stop), local.batches(start, stop)
        assert torch.equal(one.images, two.images)
        assert one.labels is not None
        assert two.labels is not None
        assert torch.equal(one.labels, two.labels)
    with pytest.raises(AdaNATError, match="--num-samples is 21, but the stream imagenet64 holds 20 image"):
        evaluate(replace(streamed, num_samples=21), SilentReporter())
    with pytest.raises(AdaNATError, match="is a stream, which is not counted; give --num-samples"):
        opened(replace(streamed, num_samples=None))


def test_unreadable_images_are_left_out_and_named(toy: Path, tmp_path: Path) -> None:
    write_class_folder(tmp_path / "images", 12, ("one", "two"), 16)
    (tmp_path / "images" / "one" / "002.png").write_bytes(b"no image")
    fields = {"reconstruct": str(tmp_path / "images"), "part_size": 1}
    row = measured(toy, tmp_path / "out", data={"max_bad": 0.5}, **fields)
    assert list(row["skipped"]) == ["one/002.png"]
    assert row["metrics"]["psnr"] > 50
    with pytest.raises(AdaNATError, match=r"1 of 12 images cannot be read.*--max-bad"):
        measured(toy, tmp_path / "strict", **fields)


def test_exact_reconstructions_have_no_finite_psnr(toy: Path, tmp_path: Path) -> None:
    for number in (0, 255):
        for copy in range(2):
            (tmp_path / "black" / "one").mkdir(parents=True, exist_ok=True)
            (tmp_path / "black" / "one" / f"{number}-{copy}.png").write_bytes(png(number, 16))
    row = measured(toy, tmp_path / "out", levels=2, reconstruct=str(tmp_path / "black"))
    assert row["metrics"]["psnr"] is None
    assert row["absent"]["psnr"] == "it is infinite: the reconstructions equal the images"


def test_other_images_have_no_psnr(toy: Path, tmp_path: Path) -> None:
    (row,) = rows(toy, tmp_path, images=toy / "images", **GIVEN)
    assert "psnr" not in row["metrics"]


def test_a_reconstruction_is_recorded_under_a_name_of_its_own(tmp_path: Path) -> None:
    folder = make_evaluation_toy(tmp_path)
    row = measured(folder, "out", model=str(folder / "model"), record=True)
    model = ModelFolder(folder / "model")
    recorded = {result["metric"]: result for result in model.index.results}
    assert recorded["reconstruction_fid"]["value"] == row["metrics"]["fid"]
    assert recorded["reconstruction_psnr"]["reconstructed"] == "images (train)"
    assert "fid" not in recorded
    assert "| reconstructed images (train) |" in model.card()


def test_images_that_the_tokenizer_was_trained_on_are_warned_of(tmp_path: Path) -> None:
    write_imagenet64(tmp_path / "data", 4)
    model, said = write_levels(tmp_path / "model", 2, data={"source": "imagenet64", "split": "train"}), Said()
    for split in ("validation", "train"):
        data = {"data_dir": str(tmp_path / "data"), "split": split}
        request = asked(tmp_path, "out", reconstruct="imagenet64", data=data)
        open_reconstructions(request, model, torch.device("cpu"), said)
    (warning,) = said.warned
    assert "was trained on imagenet64 (train)" in warning


def test_the_command_prints_the_row(toy: Path, tmp_path: Path) -> None:
    line = ["evaluate", "-m", toy / "levels-200", "--reconstruct", toy / "images", "--max-bad", 0.1, "-n", 6]
    line += ["--ref", toy / "stats.npz", "-o", tmp_path, "--device", "cpu"]
    shown = CliRunner().invoke(app, [*map(str, line)], catch_exceptions=False).stdout
    assert "│ images (train), reconstructed │" in shown
    assert "PSNR" in shown
    again = CliRunner().invoke(app, [*map(str, line), "--json"], catch_exceptions=False).stdout
    assert json.loads(again)["results"][0]["metrics"]["psnr"] > 50


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_samples": 25}, r"--num-samples is 25, but images \(train\) holds 24 image"),
        ({"data": {"image_size": 10}, "model": "model"}, "Images of 10 pixels do not divide into tokens of 4 pixels"),
        ({"model": "bare"}, "has no tokenizer, only features"),
        ({"reconstruct": "no/such/data"}, "no/such/data"),
        ({"classes": ("lion",)}, "lion"),
        ({"data": {"split": "validation"}}, "validation"),
        ({"steps": (2,)}, "--steps has no meaning with --reconstruct"),
        ({"seed": 1}, "--seed has no meaning with --reconstruct"),
        ({"clip": "a"}, "--clip compares images with prompts: it has no meaning with --reconstruct"),
        ({"samples": Path("a")}, "--samples and --reconstruct are both given"),
        (
            {"reconstruct": "", "images": Path("a"), "data": {"split": "train"}},
            "--split is for --reconstruct: it has no",
        ),
        ({"reconstruct": "", "model": "model", "data": {"max_bad": 0.1}}, "--max-bad is for --reconstruct: .* classes"),
    ],
)
def test_a_mistake_gets_one_line(toy: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    if "model" in changes:
        changes = {**changes, "model": str(toy / changes["model"])}
    with pytest.raises(AdaNATError, match=words) as caught:
        measured(toy, tmp_path / "out", **changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
