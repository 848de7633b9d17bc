"""``adanat evaluate`` on a toy model: the same numbers however it is run, and one line for every mistake."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.commands.evaluate import _absent
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import NATConfig
from adanat_cli.core.config.option import options_of
from adanat_cli.core.config.requests import EvaluateRequest, SampleRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.generation.schedules import TableSchedule
from adanat_cli.core.generation.tables import write_table
from adanat_cli.core.metrics.extraction import Extraction
from adanat_cli.core.metrics.frechet import FrechetReference
from adanat_cli.core.metrics.protocols import as_floats
from adanat_cli.core.metrics.references import read_reference
from adanat_cli.core.metrics.scores import inception_score
from adanat_cli.jobs.evaluate import evaluate as job
from adanat_cli.jobs.evaluate import rows as evaluation_run
from adanat_cli.jobs.evaluate.evaluate import evaluate
from adanat_cli.jobs.evaluate.generated_images import GeneratedImages
from adanat_cli.jobs.evaluate.stats import make_stats
from adanat_cli.jobs.resolve.models import load_features, resolve_model
from adanat_cli.jobs.resolve.schedules import ScheduleChoice, choose_schedule
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample.conditions import ClassConditions
from adanat_cli.jobs.sample.sample import sample
from adanat_cli.jobs.sample.sampler import Sampler
from adanat_cli.jobs.train.features import features_of_images
from tests.evaluation_toy import Said, evaluate_request, make_evaluation_toy, rows, stats_request
from tests.image_files import png
from tests.processes import run_two

MEASURED = ("fid", "inception_score", "precision", "recall", "density", "coverage", "kid", "accuracy")
GIVEN = {"steps": (), "num_samples": None}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_evaluation_toy(tmp_path_factory.mktemp("evaluate"))


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


class Stops(SilentReporter):
    """Acts as a task that calls a function after some images."""

    def __init__(self, after: int, act: Any) -> None:
        self.after, self.act, self.seen = after, act, 0

    def task(self, *arguments: Any, **fields: Any) -> Any:
        stops = self

        class Counted(type(SilentReporter().task("", None))):  # type: ignore[misc]
            def advance(self, amount: int = 1, **shown: Any) -> None:
                stops.seen += amount
                if stops.seen >= stops.after:
                    stops.act()

        return Counted()


def fail() -> None:
    raise RuntimeError("killed")


def parts(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.rglob("part-*"))


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


class Patches:
    """Stands in for a network with spatial features: means of patches."""

    protocol, name, weights_hash, feature_width = "adm", "patches", "0" * 64, 12

    def __call__(self, images: torch.Tensor) -> Extraction:
        floats = as_floats(images)
        features = F.adaptive_avg_pool2d(floats, 2).flatten(1)
        return Extraction(features, 10 * features, F.adaptive_avg_pool2d(floats[:, :1], 3).flatten(1))


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


def test_generated_images_are_not_rounded_before_the_protocol_says_so(toy: Path) -> None:
    (batch,) = images_of(toy, "cosine", 2).batches(0, 4)
    assert batch.images.dtype == torch.float32
    assert 0 <= float(batch.images.min()) <= float(batch.images.max()) <= 1
    assert float((255 * batch.images - (255 * batch.images).round()).abs().max()) > 0.1
    assert batch.labels is not None


def test_two_processes_measure_what_one_does(toy: Path, unbroken: dict[str, Any]) -> None:
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
    run_two(script, toy)
    row, reconstructed = json.loads((toy / "two" / "evaluation.json").read_text())["results"]
    assert row["cost"]["num_processes"] == reconstructed["cost"]["num_processes"] == 2
    assert same(row, unbroken)
    (alone,) = rows(toy, "alone", reconstruct=str(toy / "images"), **GIVEN)
    assert same(reconstructed, alone)
    assert reconstructed["metrics"]["psnr"] == pytest.approx(alone["metrics"]["psnr"])
    one, two = read_reference(toy / "stats.npz"), read_reference(toy / "two.npz")
    torch.testing.assert_close(two.gaussian.covariance, one.gaussian.covariance, rtol=1e-6, atol=1e-9)


def images_of(toy: Path, kind: str, num_steps: int, **scales: float) -> GeneratedImages:
    sampler = Sampler(ModelFolder(toy / "model"), torch.device("cpu"))
    return GeneratedImages(sampler, sampler.conditions((), (), 0), choose_schedule(kind, num_steps, **scales), 4, 0, 4)


def test_operations_of_a_step_are_those_counted_by_hand_and_double_with_guidance(toy: Path) -> None:
    guided = [images_of(toy, "halton", steps).tera_flops() for steps in (1, 2)]
    unguided = [images_of(toy, "halton", steps, guidance_scale=0.0).tera_flops() for steps in (1, 2, 3)]
    # 3 blocks of width 16 over 1 + 16 tokens, of which one joins a skip: qkv, projection and MLP are 12 squares.
    linear, attention, head = 17 * (3 * 12 + 2) * 16**2, 3 * 2 * 17**2 * 16, 16 * (16**2 + 16 * 16)
    step = 2 * (linear + attention + head) / 1e12
    assert unguided[1] - unguided[0] == pytest.approx(step)
    assert unguided[2] - unguided[1] == pytest.approx(step)
    assert guided[1] - guided[0] == pytest.approx(2 * step)
    assert unguided[0] > step  # the decoder


def test_what_any_row_lacks_is_said() -> None:
    rows = [{"absent": {"sfid": "no moments"}}, {"absent": {"sfid": "no moments", "fid": "too large", "kid_std": "x"}}]
    assert _absent(rows) == {"no moments": ["sfid"], "too large": ["fid"]}


def test_several_steps_and_schedules_make_one_table_and_a_plot(toy: Path, tmp_path: Path) -> None:
    table = tmp_path / "mine.yaml"
    names = ("remask_ratio", "sampling_temperature", "remask_temperature", "guidance_scale")
    table.write_text(yaml.safe_dump(dict(zip(names, [[0.5, 0.1], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]], strict=True))))
    line = [
        "evaluate",
        "--ref",
        toy / "stats.npz",
        "--model",
        toy / "model",
        "-n",
        22,
        "--device",
        "cpu",
        "-o",
        tmp_path,
    ]
    schedules = ["--schedule", "cosine", "--schedule", "halton", "--schedule", f"table:{table}"]
    done = CliRunner().invoke(app, [*map(str, line), "--steps", "1,2", *schedules], catch_exceptions=False)
    assert "| table:mine, 2 steps |" in done.stdout
    assert (tmp_path / "plots" / "distance.png").stat().st_size > 1000
    again = CliRunner().invoke(app, [*map(str, line), "--steps", "1", "--steps", "2", *schedules, "--json"])
    values = json.loads(again.stdout)
    measured = [(row["name"], row["settings"]["num_steps"]) for row in values["results"]]
    assert measured == [("cosine", 1), ("cosine", 2), ("halton", 1), ("halton", 2), ("table:mine", 2)]
    assert values["plot"] == str(tmp_path / "plots" / "distance.png")


def test_recorded_results_stand_in_index_and_card_once(tmp_path: Path) -> None:
    toy = make_evaluation_toy(tmp_path / "toy")
    (row,) = rows(toy, tmp_path / "one", record=True)
    rows(toy, tmp_path / "two", record=True)
    model = ModelFolder(toy / "model")
    (fid,) = [result for result in model.index.results if result["metric"] == "fid"]
    assert fid["value"] == row["metrics"]["fid"]
    assert (fid["protocol"], fid["num_steps"], fid["num_images"]) == ("small", 2, 22)
    assert str(fid["value"]) in (toy / "model" / "README.md").read_text()


def test_recorded_results_of_other_choices_stand_side_by_side(tmp_path: Path) -> None:
    toy = make_evaluation_toy(tmp_path / "toy")
    model = ModelFolder(toy / "model")
    tables = []
    for sampling in (1, 2):
        tables.append(tmp_path / str(sampling) / "same.yaml")
        tables[-1].parent.mkdir()
        write_table(tables[-1], TableSchedule([(0.5, sampling, 1, 0), (0, 1, 0, 0)]))
    choices: list[dict[str, Any]] = [
        {},
        {"guidance_scale": 2.0},
        {"remask_temperature": 2.0},
        {"classes": ("0",)},
        {"classes": ("1",)},
        *({"steps": (), "schedules": (f"table:{table}",)} for table in tables),
    ]
    for number, choice in enumerate(choices):
        rows(toy, tmp_path / f"out-{number}", **{"num_samples": 4, "schedules": ("cosine",), "record": True} | choice)
    assert len([result for result in model.index.results if result["metric"] == "fid"]) == len(choices)
    card = model.card()
    assert "| schedule cosine, num_steps 2, guidance 2.0 |" in card
    assert "only_classes 1" in card


def test_other_classes_of_the_same_images_are_measured_anew(toy: Path, tmp_path: Path) -> None:
    file, images = tmp_path / "some.npz", np.random.default_rng(0).integers(0, 255, (12, 16, 16, 3), np.uint8)

    def measured(output: str = "out", **classes: Any) -> dict[str, Any]:
        np.savez(file, arr_0=images, **classes)
        (row,) = rows(toy, tmp_path / output, samples=file, **GIVEN)
        return row

    accuracy = [measured(arr_1=np.full(12, label))["metrics"]["accuracy"] for label in range(3)]
    assert sum(accuracy) == 1
    assert "class -1 is not one of" in measured(arr_1=np.arange(12) % 3 - 1)["absent"]["accuracy"]
    assert "float64 of shape (12,)" in measured(arr_1=np.zeros(12))["absent"]["accuracy"]
    assert "int64 of shape (5,)" in measured("other", arr_1=np.arange(5))["absent"]["accuracy"]


def test_a_reference_of_another_protocol_is_refused_before_weights_are_sought(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(AdaNATError, match=r"--protocol is adm, and .*stats\.npz was made with protocol small"):
        rows(toy, tmp_path, protocol="adm", inception=tmp_path / "missing.pth")


def test_without_a_number_as_many_are_measured_as_the_model_was_trained_on(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int | None, int]] = []
    monkeypatch.setattr(job, "num_trained_on", lambda _: 300)
    monkeypatch.setattr(job, "usual_evaluation", lambda *numbers: asked.append(numbers) or 6)
    said = Said()
    (row,) = evaluate(evaluate_request(toy, tmp_path, num_samples=None), said)["results"]
    assert (row["settings"]["num_images"], asked) == (6, [(300, 50_000)])
    assert "6 images are measured, for the model was trained on 300" in " ".join(said.logged)


def test_few_images_are_warned_of(toy: Path, tmp_path: Path) -> None:
    said = Said()
    evaluate(evaluate_request(toy, tmp_path, num_samples=5), said)
    assert len(said.warned) == 1
    assert "5 images is biased upwards" in said.warned[0]
    row = json.loads((tmp_path / "evaluation.json").read_text())["results"][0]
    assert "too few" in row["absent"]["precision"]
    assert row["metrics"]["kid"] is not None


@pytest.mark.parametrize("changes", [{"mu": 1e200}, {"sigma": 1e308}, {"mu": 1e300, "sigma": 1e307}])
def test_a_distance_beyond_all_numbers_is_null_with_a_reason(
    toy: Path, tmp_path: Path, changes: dict[str, float]
) -> None:
    with np.load(toy / "stats.npz") as arrays:
        values = dict(arrays)
    values |= {"mu": values["mu"] + changes.get("mu", 0)}
    if "sigma" in changes:
        values["sigma"] = np.eye(len(values["mu"])) * changes["sigma"]
    np.savez(tmp_path / "huge.npz", **values)
    found = rows(toy, tmp_path, reference=tmp_path / "huge.npz", steps=(1, 2), num_samples=6)
    assert all(row["metrics"]["fid"] is None and "not a finite number" in row["absent"]["fid"] for row in found)
    assert all(row["metrics"]["kid"] is not None for row in found)
    json.loads((tmp_path / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert (tmp_path / "plots" / "distance.png").exists()


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


@pytest.mark.parametrize("damage", ["flipped", "cut", "no settings", "other settings", "stray"])
def test_damaged_features_are_told_in_one_line(toy: Path, tmp_path: Path, damage: str) -> None:
    rows(toy, tmp_path, keep_features=True, num_samples=10)
    (tmp_path / "evaluation.json").unlink()
    folder = tmp_path / "features" / "cosine-2"
    part, state = folder / "part-00001.safetensors", folder / "state.json"
    content = bytearray(part.read_bytes())
    if damage == "flipped":
        content[-3] ^= 1
        part.write_bytes(content)
    elif damage == "cut":
        part.write_bytes(content[:-9])
    elif damage == "stray":
        (folder / "part-a.safetensors").write_bytes(b"")
        assert rows(toy, tmp_path, num_samples=10)[0]["metrics"]["fid"] > 0
        return
    else:
        state.unlink() if damage == "no settings" else state.write_text("[]")
    with pytest.raises(
        AdaNATError, match=r"(is|or) damaged; remove .* and run|is missing or damaged; remove"
    ) as caught:
        rows(toy, tmp_path, num_samples=10)
    assert "\n" not in str(caught.value)


def broken_npz(folder: Path, how: str) -> Path:
    path, images = folder / f"{how}.npz", np.zeros((8, 16, 16, 3), np.uint8)
    if how == "pickled":
        np.savez(path, arr_0=np.array([{"a": 1}] * 8, dtype=object))
    elif how == "floats":
        np.savez(path, arr_0=images.astype(np.float32))
    elif how == "flat":
        np.savez(path, arr_0=images.reshape(8, -1))
    elif how == "other":
        np.savez(path, images=images)
    elif how == "noise":
        path.write_bytes(b"not an archive")
    elif how == "flipped":
        with zipfile.ZipFile(path, "w") as archive:
            np.savez(folder / "whole.npz", arr_0=images + 7)
            archive.writestr("arr_0.npy", zipfile.ZipFile(folder / "whole.npz").read("arr_0.npy"))
        content = bytearray(path.read_bytes())
        content[2000] ^= 255
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("pickled", "pickled objects"),
        ("floats", "expected bytes"),
        ("flat", "expected bytes"),
        ("other", "holds no arr_0"),
        ("noise", "not an .npz archive"),
        ("flipped", "damaged"),
        ("missing", "does not exist"),
    ],
)
def test_a_file_of_something_else_gets_one_line(toy: Path, tmp_path: Path, how: str, words: str) -> None:
    with pytest.raises(AdaNATError, match=words) as caught:
        rows(toy, tmp_path / "out", samples=broken_npz(tmp_path, how), **GIVEN)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((), "holds no images"),
        ((16,), "holds one image"),
        ((16, 16, 8), r"a-0.png has 16 x 16 pixels and b-2.png has 8 x 8"),
        ((8, 8), "takes images .B, 3, 16, 16."),
    ],
)
def test_a_folder_that_cannot_be_measured_gets_one_line(
    toy: Path, tmp_path: Path, sizes: tuple[int, ...], words: str
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, size in enumerate(sizes):
        (folder / f"{'b' if size != sizes[0] else 'a'}-{number}.png").write_bytes(png(number, size))
    with pytest.raises(AdaNATError, match=words) as caught:
        rows(toy, tmp_path / "out", images=folder, **GIVEN)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_samples": 1}, "--num-samples is 1"),
        ({"num_samples": 10**12}, "2 to 100,000,000 images"),
        ({"num_samples": 10**8, "protocol": "paper"}, "--protocol is paper"),
        ({"steps": (17,)}, "have 16 tokens"),
        ({"steps": (0,)}, "--steps is 0"),
        ({"schedules": ("cosin",)}, "'cosin' is not known"),
        ({"protocol": "efficientnets"}, "Protocol 'efficientnets' is not known; expected adm, paper"),
        ({"classes": ("lion",)}, "lion"),
        ({"reference": Path("/no/such.npz")}, "/no/such.npz"),
        ({"output": Path("/proc/nowhere")}, "Cannot write to /proc/nowhere"),
        ({"model": "/no/such/model"}, "/no/such/model"),
        ({"images": Path("/no/such")}, "--steps has no meaning"),
        ({"images": Path("/no/such"), "steps": ()}, "/no/such is not a folder"),
        ({"images": Path("a"), "samples": Path("b")}, "one at a time"),
        ({"batch_size": 0}, "--batch-size is 0"),
        *(
            ({kind: Path("a"), "steps": (), field: value}, f"{option} has no meaning with --{kind}")
            for kind in ("images", "samples")
            for field, value, option in (
                ("remask_temperature", 2.0, "--remask-temperature"),
                ("guidance_scale", 0.0, "--guidance-scale"),
                ("text_encoder", "a", "--text-encoder encodes prompts: it"),
                ("precision", "bf16", "--precision"),
                ("seed", 1, "--seed"),
                ("record", True, "--record"),
                ("prompts", ("a dog",), "--prompt"),
                ("prompts_file", Path("/no/such.txt"), "--prompts"),
            )
        ),
        ({"text_encoder": "a"}, "--text-encoder encodes prompts: it has no meaning with model .*classes"),
        ({"inception": Path("a")}, "--inception is for adm, paper and clean: it has no meaning with protocol small"),
    ],
)
def test_a_mistake_gets_one_line_before_anything_is_generated(
    toy: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(AdaNATError, match=words) as caught:
        rows(toy, **{"output": tmp_path, **changes})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "evaluation.json").exists()


EVERYWHERE = {
    "reference",
    "output",
    "model",
    "images",
    "samples",
    "reconstruct",
    "data",
    "protocol",
    "num_samples",
    "keep_features",
    "part_size",
}
UNFELT = {"batch_size", "workers", "device"}


def test_of_every_option_it_is_said_where_it_acts() -> None:
    named = {name for name, one in options_of(EvaluateRequest).items() if one.acts_on or one.protocols}
    assert {field.name for field in dataclasses.fields(EvaluateRequest)} - named == EVERYWHERE | UNFELT


def test_steps_beside_schedules_from_files_are_refused(toy: Path, tmp_path: Path) -> None:
    table = tmp_path / "mine.yaml"
    names = ("remask_ratio", "sampling_temperature", "remask_temperature", "guidance_scale")
    table.write_text(yaml.safe_dump({name: [0.5, 0.1] for name in names}))
    with pytest.raises(AdaNATError, match="--steps 3 has no meaning with schedules from files"):
        rows(toy, tmp_path / "out", steps=(2, 3), schedules=(f"table:{table}",))


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


def test_a_foreign_reference_needs_a_protocol(toy: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "foreign.npz", mu=np.zeros(16), sigma=np.eye(16))
    with pytest.raises(AdaNATError, match=r"does not record the protocol.*--protocol adm"):
        rows(toy, tmp_path, reference=tmp_path / "foreign.npz")
    with pytest.raises(AdaNATError, match="features of width 16"):
        rows(toy, tmp_path, reference=tmp_path / "foreign.npz", protocol="small")


def test_a_reference_of_other_weights_is_refused(toy: Path, tmp_path: Path) -> None:
    other = make_evaluation_toy(tmp_path / "other")
    config, tensors = ModelFolder(other / "model").read("features")
    ModelFolder(other / "model").write("features", config, {key: tensor + 1 for key, tensor in tensors.items()})
    with pytest.raises(AdaNATError, match="computed with weights"):
        rows(other, tmp_path, reference=toy / "stats.npz")


def test_choices_of_a_schedule_are_part_of_what_was_measured(toy: Path) -> None:
    images = images_of(toy, "cosine", 2)
    assert (
        dataclasses.replace(images, choice=ScheduleChoice("cosine", 2, guidance_scale=2)).identity()
        != images.identity()
    )


def test_results_are_recorded_under_the_words_of_earlier_versions(toy: Path) -> None:
    images = images_of(toy, "halton", 2)
    halton = dataclasses.replace(images, choice=ScheduleChoice("halton", 2, sampling_temperature=0.5)).identity()
    assert halton["temperature"] == 0.5
    assert "sampling_temperature" not in halton
    cosine = ScheduleChoice("cosine", 2, sampling_temperature=0.5, remask_temperature=0.7)
    values = dataclasses.replace(images, choice=cosine).identity()
    assert (values["sampling_temperature"], values["temperature"]) == (0.5, 0.7)


def test_a_model_of_one_class_has_no_accuracy(toy: Path) -> None:
    for num_classes, missing in ((3, ""), (1, "the model knows one class, which a classifier takes for no other")):
        config = NATConfig(codebook_size=4, grid=(4, 4), width=16, depth=2, num_heads=2, num_classes=num_classes)
        sampler, conditions = SimpleNamespace(config=config), ClassConditions(torch.arange(num_classes), {})
        images = GeneratedImages(sampler, conditions, choose_schedule("", 2, None, None), 2, 0, 2)
        assert images.missing_labels == missing
