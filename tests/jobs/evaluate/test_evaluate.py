"""``adanat evaluate`` on a toy model: the same numbers however it is run."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.metrics.frechet import FrechetReference
from adanat_cli.core.metrics.references import read_reference
from adanat_cli.core.metrics.scores import inception_score
from adanat_cli.jobs.evaluate import rows as evaluation_run
from adanat_cli.jobs.evaluate.evaluate import evaluate
from adanat_cli.jobs.evaluate.generated_images import GeneratedImages
from adanat_cli.jobs.evaluate.stats import make_stats
from adanat_cli.jobs.resolve.models import load_features, resolve_model
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample.sample import sample
from adanat_cli.jobs.train.features import features_of_images
from tests.evaluation_toy import (
    GIVEN,
    Patches,
    Said,
    Stops,
    evaluate_request,
    fail,
    parts,
    rows,
    stats_request,
)
from tests.image_files import png
from tests.processes import run_two

MEASURED = ("fid", "inception_score", "precision", "recall", "density", "coverage", "kid", "accuracy")


@pytest.fixture(scope="module")
def unbroken(toy: Path) -> dict[str, Any]:
    """The row of one evaluation from start to end."""
    (row,) = rows(toy, "unbroken")
    return row


@pytest.fixture(scope="module")
def samples(toy: Path) -> Path:
    """The images that the evaluation generates, as `adanat sample` writes them: PNGs, and one .npz."""
    for kind in ("png", "npz"):
        request = SampleRequest(
            output=toy / "samples" / kind,
            model=str(toy / "model"),
            num_images=22,
            num_steps=2,
            image_format=kind,
            trace=kind == "png",
            device="cpu",
        )
        sample(request, SilentReporter())
    return toy / "samples"


def same(one: dict[str, Any], two: dict[str, Any], *without: str) -> bool:
    names = [name for name in MEASURED if name not in without]
    return all(one["metrics"][name] == pytest.approx(two["metrics"][name], rel=1e-6, abs=1e-6) for name in names)


def test_the_distance_is_that_of_the_images_which_sample_writes(
    toy: Path, unbroken: dict[str, Any], samples: Path
) -> None:
    network = load_features(resolve_model(str(toy / "model")))
    with np.load(samples / "npz" / "samples.npz") as arrays:
        images, labels = arrays["arr_0"], torch.from_numpy(arrays["arr_1"])
    assert network is not None
    distance = FrechetReference(read_reference(toy / "stats.npz").gaussian).distance(
        features_of_images(network, images)
    )
    assert unbroken["metrics"]["fid"] == pytest.approx(distance, rel=1e-5)
    with torch.no_grad():
        guesses = network(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).logits.argmax(1)
    assert unbroken["metrics"]["accuracy"] == float((guesses == labels).double().mean())


def test_a_row_names_all_that_decides_its_numbers(toy: Path, unbroken: dict[str, Any]) -> None:
    settings, model = unbroken["settings"], ModelFolder(toy / "model")
    assert settings["nat"] == model.fingerprint("nat")
    assert settings["weights_hash"] == model.fingerprint("features")
    assert settings["reference"] == read_reference(toy / "stats.npz").sha256
    decided = {"num_images": 22, "seed": 0, "schedule": "cosine", "num_steps": 2, "precision": "float32"}
    assert decided.items() <= settings.items()
    assert settings["protocol"] == "small"
    assert unbroken["metrics"]["sfid"] is None
    assert "spatial" in unbroken["absent"]["sfid"]
    assert unbroken["cost"]["images_per_second"] > 0
    assert json.loads((toy / "unbroken" / "evaluation.json").read_text())["results"] == [unbroken]
    assert not (toy / "unbroken" / "features").exists()


def test_folders_and_files_of_the_same_images_give_the_same_numbers(
    toy: Path, unbroken: dict[str, Any], samples: Path, tmp_path: Path
) -> None:
    (from_file,) = rows(toy, tmp_path / "file", samples=samples / "npz" / "samples.npz", **GIVEN)
    assert same(from_file, unbroken)
    # grid.png and the traces, which are of other sizes, lie among the images.
    (from_folder,) = rows(toy, tmp_path / "folder", images=samples / "png", **GIVEN)
    assert same(from_folder, unbroken, "accuracy")
    assert from_folder["metrics"]["accuracy"] is None
    assert from_folder["settings"]["num_images"] == 22


def test_a_compressed_file_is_read_as_well(toy: Path, unbroken: dict[str, Any], samples: Path, tmp_path: Path) -> None:
    with np.load(samples / "npz" / "samples.npz") as arrays:
        np.savez_compressed(tmp_path / "small.npz", **arrays)
    (row,) = rows(toy, tmp_path / "out", samples=tmp_path / "small.npz", **GIVEN)
    assert same(row, unbroken)


def test_results_do_not_tell_where_anything_lay(toy: Path, unbroken: dict[str, Any], samples: Path) -> None:
    (given,) = rows(toy, toy / "given", images=samples / "png", **GIVEN)
    assert (given["origin"], unbroken["origin"]) == ("png", toy.name)
    assert given["reference"]["file"] == unbroken["reference"]["file"] == "stats.npz"
    for folder in ("given", "unbroken"):
        assert str(toy.parent) not in (toy / folder / "evaluation.json").read_text()


@pytest.mark.parametrize("changes", [{"batch_size": 22, "part_size": 22}, {"batch_size": 3, "part_size": 8}])
def test_batches_and_parts_change_nothing(
    toy: Path, unbroken: dict[str, Any], tmp_path: Path, changes: dict[str, int]
) -> None:
    (row,) = rows(toy, tmp_path, **changes)
    assert same(row, unbroken)


def test_a_killed_evaluation_goes_on_to_the_same_numbers(toy: Path, unbroken: dict[str, Any], tmp_path: Path) -> None:
    request = evaluate_request(toy, tmp_path)
    with pytest.raises(RuntimeError, match="killed"):
        evaluate(request, Stops(12, fail))
    assert parts(tmp_path) == ["part-00000.safetensors", "part-00001.safetensors"]
    counts = Stops(10**6, fail)
    (row,) = evaluate(request, counts)["results"]
    assert counts.seen == 12  # the last three parts of 22 images
    assert row["metrics"] == unbroken["metrics"]
    assert parts(tmp_path) == []


def test_ctrl_c_keeps_whole_parts(toy: Path, unbroken: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(evaluate_request(toy, tmp_path), Stops(7, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert parts(tmp_path) == ["part-00000.safetensors"]
    (row,) = rows(toy, tmp_path)
    assert row["metrics"] == unbroken["metrics"]


def test_other_settings_in_a_half_done_folder_are_refused_by_name(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        evaluate(evaluate_request(toy, tmp_path), Stops(12, fail))
    with pytest.raises(AdaNATError, match=r"num_images was 22, now 20, seed was 0, now 3; repeat its settings"):
        rows(toy, tmp_path, num_samples=20, seed=3)
    with pytest.raises(AdaNATError, match=r"guidance was None, now 0.5"):
        rows(toy, tmp_path, guidance_scale=0.5)
    assert len(parts(tmp_path)) == 2


def test_images_that_were_replaced_are_not_mixed_with_those_before(toy: Path, samples: Path, tmp_path: Path) -> None:
    shutil.copytree(samples / "png", tmp_path / "images")
    request = evaluate_request(toy, tmp_path / "out", images=tmp_path / "images", **GIVEN)
    with pytest.raises(RuntimeError):
        evaluate(request, Stops(12, fail))
    first = min(path for path in (tmp_path / "images").iterdir() if path.suffix == ".png")
    first.write_bytes(png(9, 16))
    with pytest.raises(AdaNATError, match=r"images have changed since .*images was begun"):
        evaluate(request, SilentReporter())


def test_what_is_measured_is_not_measured_again(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = rows(toy, tmp_path)
    (other,) = rows(toy, tmp_path, seed=1)
    assert first["metrics"]["fid"] != other["metrics"]["fid"]
    monkeypatch.setattr(evaluation_run, "extract_features", lambda *_: pytest.fail("measured again"))
    assert rows(toy, tmp_path, batch_size=7) == [first]
    assert len(json.loads((tmp_path / "evaluation.json").read_text())["results"]) == 2


def test_kept_features_serve_another_reference(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows(toy, tmp_path, keep_features=True)
    assert len(parts(tmp_path / "features" / "cosine-2")) == 5
    shifted = tmp_path / "shifted.npz"
    with np.load(toy / "stats.npz") as arrays:
        np.savez(shifted, **{**arrays, "mu": arrays["mu"] + 1})
    monkeypatch.setattr(GeneratedImages, "_decode", lambda *_: pytest.fail("generated again"))
    monkeypatch.setattr(GeneratedImages, "tera_flops", lambda _: 0.0)
    (row,) = rows(toy, tmp_path, reference=shifted)
    assert row["metrics"]["fid"] > 1
    assert row["cost"]["images_per_second"] is None
    assert len(parts(tmp_path / "features" / "cosine-2")) == 5  # still: they were to be kept


def test_images_in_a_reference_stand_in_for_features(toy: Path, unbroken: dict[str, Any], tmp_path: Path) -> None:
    images = np.stack([np.full((16, 16, 3), 10 * value, np.uint8) for value in range(9)])
    with np.load(toy / "stats.npz") as arrays:
        kept = {name: arrays[name] for name in arrays.files if name != "features"}
    np.savez(tmp_path / "bare.npz", **kept)
    np.savez(tmp_path / "images.npz", **kept, arr_0=images)
    (bare,) = rows(toy, tmp_path / "one", reference=tmp_path / "bare.npz")
    (with_images,) = rows(toy, tmp_path / "two", reference=tmp_path / "images.npz")
    assert bare["metrics"]["kid"] is None
    assert "neither features nor images" in bare["absent"]["precision"]
    assert with_images["metrics"]["kid"] is not None
    assert with_images["metrics"]["fid"] == bare["metrics"]["fid"] == unbroken["metrics"]["fid"]
    assert parts(tmp_path) == []


def test_spatial_features_give_sfid_and_adm_its_own_parts(
    toy: Path, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("evaluate", "stats"):
        monkeypatch.setattr(f"adanat_cli.jobs.evaluate.{module}.load_extractor", lambda *_, **__: Patches())
    make_stats(stats_request(toy, tmp_path / "adm.npz", protocol="adm", data={"image_size": 16}), SilentReporter())
    reference = read_reference(tmp_path / "adm.npz")
    assert reference.spatial is not None
    file = samples / "npz" / "samples.npz"
    (row,) = rows(toy, tmp_path, reference=tmp_path / "adm.npz", samples=file, **GIVEN)
    with np.load(file) as arrays:
        found = Patches()(torch.from_numpy(arrays["arr_0"]).permute(0, 3, 1, 2))
    expected = FrechetReference(reference.spatial).distance(found.spatial)
    assert row["metrics"]["sfid"] == pytest.approx(expected, rel=1e-6)
    assert row["metrics"]["inception_score"] == inception_score(found.logits, 1, seed=None).mean
    assert "only the classifier of the protocol small" in row["absent"]["accuracy"]


def test_two_processes_measure_what_one_does(toy: Path, unbroken: dict[str, Any], warm: dict[str, str]) -> None:
    script = """
import sys
from pathlib import Path
from tests.evaluation_toy import evaluate_request, stats_request
from adanat_cli.jobs.evaluate.evaluate import evaluate
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.evaluate.stats import make_stats
folder = Path(sys.argv[1])
make_stats(stats_request(folder, "two.npz"), SilentReporter())
evaluate(evaluate_request(folder, "two"), SilentReporter())
images = {"reconstruct": str(folder / "images"), "steps": (), "num_samples": None}
evaluate(evaluate_request(folder, "two", **images), SilentReporter())
"""
    run_two(warm, script, toy)
    row, reconstructed = json.loads((toy / "two" / "evaluation.json").read_text())["results"]
    assert row["cost"]["num_processes"] == reconstructed["cost"]["num_processes"] == 2
    assert same(row, unbroken)
    (alone,) = rows(toy, "alone", reconstruct=str(toy / "images"), **GIVEN)
    assert same(reconstructed, alone)
    assert reconstructed["metrics"]["psnr"] == pytest.approx(alone["metrics"]["psnr"])
    one, two = read_reference(toy / "stats.npz"), read_reference(toy / "two.npz")
    torch.testing.assert_close(two.gaussian.covariance, one.gaussian.covariance, rtol=1e-6, atol=1e-9)


def test_features_are_held_of_so_many_images_at_most(
    toy: Path, unbroken: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = rows(toy, tmp_path / "first", num_samples=12)
    for module in ("measures", "rows"):
        monkeypatch.setattr(f"adanat_cli.jobs.evaluate.{module}.MOST_HELD", 12)
    (row,) = rows(toy, tmp_path / "all")
    assert row["held"] == 12
    whole = ("fid", "accuracy")
    assert {name: row["metrics"][name] for name in whole} == {name: unbroken["metrics"][name] for name in whole}
    assert row["metrics"]["inception_score"] == pytest.approx(first["metrics"]["inception_score"], rel=1e-5)
    assert row["metrics"]["inception_score"] != pytest.approx(unbroken["metrics"]["inception_score"], rel=1e-5)


def test_a_model_that_is_not_needed_is_warned_of(toy: Path, samples: Path, tmp_path: Path) -> None:
    said, anybody = Said(), tmp_path / "anybody.npz"
    np.savez(anybody, mu=np.zeros(2), sigma=np.eye(2))
    asked = {"protocol": "paper", "reference": anybody, "inception": toy, **GIVEN}
    with pytest.raises(AdaNATError, match="--inception names"):
        evaluate(evaluate_request(toy, tmp_path, samples=samples / "npz" / "samples.npz", **asked), said)
    assert any("is not used: the images exist" in line for line in said.warned)


def test_more_images_than_there_are_cannot_be_measured(toy: Path, samples: Path, tmp_path: Path) -> None:
    with pytest.raises(AdaNATError, match="--num-samples is 23, but png holds 22 images"):
        rows(toy, tmp_path, images=samples / "png", num_samples=23, steps=())
