"""Runs in one folder stay apart: none writes over another, and the last is what is measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import NATConfig, VQAEConfig
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.config.settings import SampleSettings
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.core.tokenizer.build import build_tokenizer
from adanat_cli.jobs.evaluate.image_sets import ImageFolder
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample import npz
from adanat_cli.jobs.sample import sample as sampling_run
from adanat_cli.jobs.sample.sample import sample
from adanat_cli.jobs.sample.sample_folder import run_of


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A NAT and a tokenizer with random weights."""
    torch.manual_seed(0)
    tokenizer = VQAEConfig(image_size=16, codebook_size=16, code_width=4, channels=(8, 8))
    nat = NATConfig(codebook_size=16, grid=(4, 4), width=16, depth=2, num_heads=2, num_classes=4)
    folder = ModelFolder(tmp_path_factory.mktemp("samples") / "model")
    folder.write("tokenizer", tokenizer.to_dict(), build_tokenizer(tokenizer).state_dict())
    folder.write("nat", nat.to_dict(), UViT(nat).state_dict())
    return str(folder.path)


def draw(model: str, output: Path, **changes: Any) -> dict[str, Any]:
    fields = {"classes": ("1",), "num_images": 4, "num_steps": 1, "device": "cpu", **changes}
    return sample(SampleRequest(output=output, model=model, **fields), SilentReporter())


def measured(folder: Path) -> list[str]:
    """What `evaluate --images` would measure."""
    images = ImageFolder(folder, 0, torch.device("cpu"))
    assert images.num_images == len(images._files)
    return images._files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name[0].isdigit())


def pictures(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names(folder)}


@pytest.mark.parametrize("changes", [{"seed": 1}, {"classes": ("2",)}, {"num_images": 3}])
def test_another_run_goes_beside_and_is_measured_alone(model: str, tmp_path: Path, changes: dict[str, Any]) -> None:
    draw(model, tmp_path)
    before = pictures(tmp_path)
    drawn = sorted(Path(file).name for file in draw(model, tmp_path, **changes)["files"])
    assert measured(tmp_path) == drawn
    assert before.items() <= pictures(tmp_path).items()
    left = len(pictures(tmp_path)) - len(drawn)
    assert ("other image is" if left == 1 else f"{left} other images are") in ImageFolder(
        tmp_path, 0, torch.device("cpu")
    ).note


@pytest.mark.parametrize("first", [{}, {"image_format": "npz"}])
def test_another_runs_images_are_not_written_over(model: str, tmp_path: Path, first: dict[str, Any]) -> None:
    draw(model, tmp_path, **first)
    draw(model, tmp_path, classes=("2",))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(
        AdaNATError, match=r"belongs to another run \(4 of 1, seed 0\); choose another --output, or add --over"
    ):
        draw(model, tmp_path, num_steps=2, **first)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "mine.txt").write_text("kept")
    drawn = draw(model, tmp_path, num_steps=2, overwrite=True)
    assert names(tmp_path) == sorted(Path(file).name for file in drawn["files"])
    assert (tmp_path / "mine.txt").exists()
    assert not (tmp_path / "samples.npz").exists()


def test_the_same_command_repeats_and_a_longer_run_contains_it(model: str, tmp_path: Path) -> None:
    first = draw(model, tmp_path, trace=True)
    images = [Path(file).read_bytes() for file in first["files"]]
    assert draw(model, tmp_path, batch_size=3)["files"] == first["files"]
    assert not list(tmp_path.glob("*_trace*"))  # of the earlier run, which asked for them
    longer = draw(model, tmp_path, num_images=6)["files"]
    assert longer[:4] == first["files"]
    assert [Path(file).read_bytes() for file in longer[:4]] == images
    assert measured(tmp_path) == names(tmp_path)
    assert len(names(tmp_path)) == 6


def test_each_run_keeps_its_grid_and_a_repeated_one_rewrites_its_own(model: str, tmp_path: Path) -> None:
    first = Path(draw(model, tmp_path)["grid"])
    before = first.read_bytes()
    second = Path(draw(model, tmp_path, classes=("2",))["grid"])
    assert (first.name, second.name) == ("grid.png", "grid-2.png")
    assert first.read_bytes() == before
    assert second.read_bytes() != before
    for classes, grid in ((("1",), first), (("2",), second), (("1",), first)):
        assert draw(model, tmp_path, classes=classes)["grid"] == str(grid)
    assert first.read_bytes() == before
    assert len(measured(tmp_path)) == 4
    drawn = draw(model, tmp_path, classes=("3",), overwrite=True)
    assert [path.name for path in tmp_path.glob("grid*")] == [Path(drawn["grid"]).name] == ["grid.png"]


def test_a_class_is_the_same_however_it_is_spelt(tmp_path: Path) -> None:
    for words in ("golden_retriever", "n02099601", "+207", "GoldenRetriever"):
        draw("imagenet64", tmp_path, classes=(words,), num_images=1, num_steps=2)
    assert len(measured(tmp_path)) == 1


@pytest.mark.parametrize(
    ("fields", "digest"),
    [
        ({"classes": ("207",), "num_steps": 2, "seed": 1}, "44f552520675f7d29959387497742bf9"),
        ({"schedule": "cosine", "remask_temperature": 2.0, "guidance_scale": 0.5}, "a97bfb7fa038f6d1ef34aed5df7d2d46"),
        ({"schedule": "halton", "sampling_temperature": 0.5}, "97c34c26051b519b7ec5aa49d506dfc3"),
    ],
)
def test_records_of_the_first_builds_name_the_same_runs(tmp_path: Path, fields: dict[str, Any], digest: str) -> None:
    assert run_of(SampleSettings(output=tmp_path, num_images=4, **fields)).digest == digest


def test_images_without_a_record_are_never_written_over(model: str, tmp_path: Path) -> None:
    drawn = draw(model, tmp_path)["files"]
    (tmp_path / "samples.jsonl").unlink()
    for overwrite in (False, True):
        with pytest.raises(AdaNATError, match=r"is in the way, and no recorded run wrote it"):
            draw(model, tmp_path, overwrite=overwrite)
    assert measured(tmp_path) == sorted(Path(file).name for file in drawn)
    beside = draw(model, tmp_path, classes=("3",))["files"]
    assert measured(tmp_path) == sorted(Path(file).name for file in beside)


def test_a_measured_folder_is_that_of_its_last_run(model: str, tmp_path: Path) -> None:
    drawn = draw(model, tmp_path)["files"]
    assert not ImageFolder(tmp_path, 0, torch.device("cpu")).note
    Path(drawn[0]).rename(tmp_path / "older.png")
    images = ImageFolder(tmp_path, 0, torch.device("cpu"))
    assert images.num_images == 3
    assert "1 other image is not part of the last run" in images.note
    assert "3 of the 4 images of its run" in images.note
    draw(model, tmp_path / "npz", image_format="npz")
    with pytest.raises(AdaNATError, match=r"is measured with --samples .*npz/samples.npz"):
        measured(tmp_path / "npz")


def test_a_record_removes_nothing_elsewhere(model: str, tmp_path: Path) -> None:
    draw(model, tmp_path / "a")
    (tmp_path / "b.png").write_text("kept")
    with (tmp_path / "a" / "samples.jsonl").open("a") as record:
        record.write('["../b.png", 5, "/etc/passwd"]\n[[[\n{"a": 1}\n["00000')
    draw(model, tmp_path / "a", seed=3, overwrite=True)
    assert (tmp_path / "b.png").exists()


@pytest.mark.parametrize("record", ["", "[", "5\n", '{"digest": 5}\n', '["x"]\n'])
def test_a_damaged_record_counts_as_none(model: str, tmp_path: Path, record: str) -> None:
    draw(model, tmp_path)
    (tmp_path / "samples.jsonl").write_text(record)
    with pytest.raises(AdaNATError, match="no recorded run wrote it"):
        draw(model, tmp_path)


def test_without_an_output_each_run_finds_a_folder_of_its_own(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outputs = []
    for seed, more in ((0, ()), (1, ()), (0, ()), (1, ()), (2, ("--overwrite",))):
        words = ["sample", "-m", model, "-n", "1", "--steps", "1", "--device", "cpu", "--seed", str(seed), "--json"]
        outputs.append(json.loads(CliRunner().invoke(app, [*words, *more]).stdout)["output"])
    assert outputs == ["samples", "samples-2", "samples", "samples-2", "samples"]


def test_runs_below_a_run_are_not_measured_with_it(model: str, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "below"):
        draw(model, folder)
    assert measured(tmp_path) == names(tmp_path)
    (tmp_path / "samples.jsonl").unlink()  # a folder of runs is measured whole
    assert len(measured(tmp_path)) == 8


def test_the_first_image_of_very_many_comes_at_once(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(path: Path, _image: object, _facts: object) -> None:
        raise InterruptedError(path.name)

    monkeypatch.setattr(sampling_run, "save_png", stop)
    with pytest.raises(InterruptedError, match="00000_class1"):
        draw(model, tmp_path, num_images=10**9, batch_size=2)


def test_an_npz_that_does_not_fit_on_the_disk_is_refused_at_once(model: str, tmp_path: Path) -> None:
    with pytest.raises(AdaNATError, match=r"10,000,000,000,000 images of 16 pixels take 7.76e\+06 GB, and"):
        draw(model, tmp_path, num_images=10**13, image_format="npz")


def test_a_tokenizer_of_another_grid_is_refused(model: str, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    config = tmp_path / "model" / "tokenizer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "image_size": 32}))
    with pytest.raises(AdaNATError, match=r"generates 4 x 4 tokens, but its tokenizer gives 8 x 8 .image_size 32"):
        draw(str(tmp_path / "model"), tmp_path / "out", image_format="npz")
    assert not (tmp_path / "out").exists()


def test_labels_of_an_npz_are_written_in_parts(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "_LABELS_AT_ONCE", 2)
    draw(model, tmp_path, classes=("1", "2"), num_images=5, image_format="npz")
    with np.load(tmp_path / "samples.npz") as arrays:
        assert arrays["arr_1"].tolist() == [1, 2, 1, 2, 1]
        assert arrays["arr_1"].dtype == np.int64
