"""``adanat stats`` on toy images: moments, features and words of the file, and that it can be killed."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.checkpoints.files import write_json
from adanat_cli.core.checkpoints.folder import REFERENCE_FILES, ModelFolder
from adanat_cli.core.config import FEATURE_TRAINING, data_config
from adanat_cli.core.data.sources import open_source
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.metrics.references import read_reference
from adanat_cli.core.reading import read_json
from adanat_cli.jobs.evaluate.evaluate import evaluate
from adanat_cli.jobs.evaluate.stats import _open, make_stats
from adanat_cli.jobs.resolve.classes import shared_ids
from adanat_cli.jobs.resolve.models import load_features
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.train.features import feature_moments, features_of_images
from tests.evaluation_toy import (
    Patches,
    Said,
    Stops,
    evaluate_request,
    fail,
    make_evaluation_toy,
    parts,
    rows,
    stats_request,
)
from tests.image_files import write_class_folder
from tests.policy_toy import make_policy_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_evaluation_toy(tmp_path_factory.mktemp("stats"))


def run(toy: Path, output: Path, **changes: Any) -> dict[str, Any]:
    return make_stats(stats_request(toy, output, **changes), SilentReporter())


def test_what_the_data_is_comes_first(toy: Path, tmp_path: Path) -> None:
    said = Said()
    make_stats(stats_request(toy, tmp_path / "stats.npz"), said)
    assert said.logged[0] == "images (train): 24 images in 3 classes (one, two, zero), 8 each."


def same(one: Path, two: Path) -> bool:
    with np.load(one) as first, np.load(two) as second:
        return first.files == second.files and all(np.array_equal(first[name], second[name]) for name in first.files)


def test_the_file_holds_moments_and_features_of_all_images(toy: Path) -> None:
    reference, network = read_reference(toy / "stats.npz"), load_features(ModelFolder(toy / "model"))
    assert network is not None
    source = open_source(data_config(str(toy / "images"), image_size=16))
    expected = feature_moments(network, source)
    torch.testing.assert_close(reference.gaussian.mean, expected.mean, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(reference.gaussian.covariance, expected.covariance, rtol=1e-5, atol=1e-9)
    pixels = np.stack([source.load(index).pixels for index in range(24)])
    torch.testing.assert_close(reference.features, features_of_images(network, pixels), rtol=1e-5, atol=1e-6)
    assert (reference.num_images, reference.protocol) == (24, "small")
    assert reference.weights_hash == ModelFolder(toy / "model").fingerprint("features")
    assert reference.source == "images (train, 16 pixels)"
    assert reference.spatial is None


def test_the_stored_features_are_a_seeded_choice(toy: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(toy, tmp_path / f"{name}.npz", num_features=6, seed=seed)
    a, b, c = (read_reference(tmp_path / f"{name}.npz").features for name in "abc")
    whole = read_reference(toy / "stats.npz").features
    assert a is not None
    assert whole is not None
    assert len(a) == 6
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert all(any(torch.equal(row, other) for other in whole) for row in a)


def test_a_killed_run_goes_on_to_the_same_file(toy: Path, tmp_path: Path) -> None:
    output = tmp_path / "stats.npz"
    with pytest.raises(RuntimeError, match="killed"):
        make_stats(stats_request(toy, output), Stops(15, fail))
    assert parts(tmp_path) == ["part-00000.safetensors", "part-00001.safetensors"]
    with pytest.raises(AdaNATError, match="num_images was None, now 20"):
        run(toy, output, num_images=20)
    counts = Stops(10**6, fail)
    make_stats(stats_request(toy, output), counts)
    assert counts.seen == 24 - 14
    assert same(output, toy / "stats.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["stats.npz"]


def test_features_of_files_that_have_changed_since_are_not_gone_on_with(toy: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(toy / "images", tmp_path / "images")
    request = stats_request(toy, tmp_path / "stats.npz", dataset=str(copy))
    with pytest.raises(RuntimeError, match="killed"):
        make_stats(request, Stops(15, fail))
    os.utime(max(copy.rglob("*.png")), ns=(1, 1))
    with pytest.raises(AdaNATError, match="images have changed"):
        make_stats(request, SilentReporter())


def test_a_stream_goes_on_past_what_is_there(tmp_path: Path, toy: Path) -> None:
    from tests.image_files import write_imagenet64

    write_imagenet64(tmp_path / "data", 20)
    fields = {"data_dir": str(tmp_path / "data"), "image_size": 16}
    streamed = {**fields, "streaming": True}
    output = tmp_path / "streamed.npz"
    with pytest.raises(RuntimeError):
        make_stats(stats_request(toy, output, dataset="imagenet64", data=streamed), Stops(15, fail))
    run(toy, output, dataset="imagenet64", data=streamed)
    run(toy, tmp_path / "local.npz", dataset="imagenet64", data=fields)
    one, two = read_reference(output), read_reference(tmp_path / "local.npz")
    assert one.num_images == two.num_images == 20
    torch.testing.assert_close(one.gaussian, two.gaussian, rtol=1e-9, atol=1e-12)


def test_unreadable_images_are_left_out_and_named(toy: Path, tmp_path: Path) -> None:
    write_class_folder(tmp_path / "images", 12, ("one", "two"), 16)
    (tmp_path / "images" / "one" / "002.png").write_bytes(b"no image")
    values = run(toy, tmp_path / "stats.npz", dataset=str(tmp_path / "images"))
    assert values["num_images"] == 11
    assert list(values["skipped"]) == ["one/002.png"]
    with pytest.raises(AdaNATError, match="--max-bad"):
        run(toy, tmp_path / "strict.npz", dataset=str(tmp_path / "images"), data={"max_bad": 0.01})


def test_real_images_are_nearer_to_themselves_than_generated_ones(toy: Path, tmp_path: Path) -> None:
    fields = {"steps": (), "num_samples": None}
    (real,) = rows(toy, tmp_path / "real", images=toy / "images", **fields)
    (generated,) = rows(toy, tmp_path / "generated")
    assert real["metrics"]["fid"] == pytest.approx(0, abs=1e-6)
    assert real["metrics"]["precision"] == real["metrics"]["recall"] == 1
    assert generated["metrics"]["fid"] > 1e-3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_images": -4}, "is -4; expected at least 2"),
        ({"classes": ("all", "lion")}, "give no other beside it"),
        ({"dataset": "no/such/data", "data": {"image_size": 16}}, "no/such/data"),
        ({"data": {"image_size": 8}}, "is for 16"),
        (
            {"protocol": "efficientnet", "model": ""},
            "of one size, which the protocol then resizes",
        ),
        ({"classes": ("lion",)}, "lion"),
        ({"output": Path("/proc/nowhere/stats.npz")}, "Cannot write"),
        ({"output": Path("/tmp")}, "is a folder"),
        ({"num_features": -1}, "--num-features is -1"),
        ({"num_features": 50_001}, "expected 0 to 50,000"),
        ({"inception": Path("a")}, "has no meaning with protocol small"),
        ({"model": "/no/such/model"}, "/no/such/model"),
    ],
)
def test_a_mistake_gets_one_line(toy: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    changes = {"output": tmp_path / "wrong.npz", **changes}
    with pytest.raises(AdaNATError, match=words) as caught:
        run(toy, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("job", ["stats", "evaluate"])
def test_a_model_that_cannot_be_written_is_told_before_any_work(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    writable = tempfile.TemporaryFile

    def refuse(**where: Any) -> Any:
        if Path(where["dir"]).is_relative_to(toy / "model"):
            raise OSError(errno.EROFS, "Read-only file system")
        return writable(**where)

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # tests may run as root, who may write anywhere
    monkeypatch.setattr(f"adanat_cli.jobs.evaluate.{job}.load_extractor", lambda *_, **__: pytest.fail("worked"))
    new = tmp_path / "new"
    work = {
        "stats": lambda: run(toy, new / "a.npz", install=True),
        "evaluate": lambda: rows(toy, new, record=True),
    }
    with pytest.raises(AdaNATError, match=r"Cannot write to .*model.*Read-only.*leave --(install|record) out"):
        work[job]()
    assert not new.exists()


@pytest.mark.parametrize("content", [{"arr_0": np.zeros((2, 4, 4, 3))}, None])
def test_a_file_of_something_else_is_not_replaced(toy: Path, tmp_path: Path, content: Any) -> None:
    output = tmp_path / "precious.npz"
    output.write_bytes(b"precious") if content is None else np.savez(output, **content)
    before = output.read_bytes()
    with pytest.raises(AdaNATError, match="is not a file of statistics"):
        run(toy, output)
    assert output.read_bytes() == before


@pytest.mark.parametrize("job", ["stats", "evaluate"])
def test_a_run_that_cannot_start_leaves_nothing(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    def absent(*_: Any, **__: Any) -> None:
        raise AdaNATError("no network")

    monkeypatch.setattr(f"adanat_cli.jobs.evaluate.{job}.load_extractor", absent)
    new = tmp_path / "new" / "place"
    work = {"stats": lambda: run(toy, new / "a.npz"), "evaluate": lambda: rows(toy, new)}
    with pytest.raises(AdaNATError, match="no network"):
        work[job]()
    assert not new.parent.exists()


def test_statistics_of_another_network_are_not_installed(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(AdaNATError, match="protocol small or efficientnet in a model folder"):
        run(toy, tmp_path / "stats.npz", install=True, protocol="adm")


@pytest.mark.parametrize("changes", [{"updates": 3}, {"half": True}])
def test_the_length_of_a_training_that_does_not_happen_is_refused(
    toy: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(AdaNATError, match=r"--(updates|half) .*--install"):
        run(toy, tmp_path / "stats.npz", **changes)
    with pytest.raises(AdaNATError, match=r"--(updates|half) .*protocol efficientnet"):
        run(toy, tmp_path / "stats.npz", install=True, protocol="efficientnet", **changes)


def test_a_network_of_the_asked_length_is_installed_in_half_with_statistics_in_its_features(tmp_path: Path) -> None:
    folder = make_policy_toy(tmp_path)
    model = ModelFolder(folder / "model")
    values = read_json(model.path / "model_index.json")
    write_json(model.path / "model_index.json", {**values, "components": ["tokenizer", "nat"]})
    for _ in range(2):  # the second run trains nothing, and is not refused for it
        make_stats(stats_request(folder, install=True, updates=3, half=True), SilentReporter())
        assert model.index.provenance["features"]["training"]["steps"] == 3
    assert {weight.dtype for weight in model.read("features")[1].values()} == {torch.float16}
    with np.load(model.path / REFERENCE_FILES["small"]) as reference:
        assert set(reference) == {"features", "metadata"}
        assert reference["features"].dtype == np.float16
    assert rows(folder, "out", reference=None)[0]["metrics"]["fid"] > 0


def test_a_model_without_features_needs_a_protocol(toy: Path, tmp_path: Path) -> None:
    from tests.nat_toy import make_model

    make_model(tmp_path / "bare")
    with pytest.raises(AdaNATError, match=r"has no features/.*--protocol adm"):
        run(toy, tmp_path / "wrong.npz", model=str(tmp_path / "bare"))


def test_the_lines_of_a_fresh_model_lead_to_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = make_policy_toy(tmp_path)
    model = ModelFolder(toy / "model")
    model.write_all([replace(model.component("nat"), provenance={"data": "sklearn-digits (train)"})])
    values = read_json(model.path / "model_index.json")
    write_json(model.path / "model_index.json", {**values, "components": ["tokenizer", "nat"]})
    shutil.rmtree(model.path / "features")
    with pytest.raises(AdaNATError) as caught:
        rows(toy, "out", reference=None)
    line = shlex.split(str(caught.value).split("`")[1])
    assert line[:4] == ["adanat", "stats", "--dataset", "digits"]
    line[3], line[-1] = str(toy / "images"), str(tmp_path / "stats.npz")
    monkeypatch.setitem(FEATURE_TRAINING, line[3], {"shape": {"channels": (8, 8)}, "training": {"steps": 2}})
    done = CliRunner().invoke(app, [*line[1:], "--device", "cpu"], catch_exceptions=False)
    assert f"adanat evaluate --model {model.path}" in done.stdout
    assert "features" in model.card()
    assert rows(toy, "out", reference=None)[0]["metrics"]["fid"] > 0


def test_the_command_says_what_it_wrote(toy: Path, tmp_path: Path) -> None:
    line = ["stats", "-d", toy / "images", "-m", toy / "model", "-o", tmp_path / "s.npz", "--class", "two", "--json"]
    done = CliRunner().invoke(app, [*map(str, line), "--device", "cpu"], catch_exceptions=False)
    values = json.loads(done.stdout)
    assert (values["num_images"], values["num_features"], values["protocol"]) == (8, 8, "small")
    assert values["source"] == "images (train, 16 pixels, 1 classes)"


@pytest.fixture(scope="module")
def fewer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has seen two of the three classes of the data."""
    folder = make_evaluation_toy(tmp_path_factory.mktemp("fewer"))
    ModelFolder(folder / "model").write_labels({0: "one", 2: "zero"})
    return folder


def test_statistics_for_a_model_are_of_its_classes_and_its_size(fewer: Path, tmp_path: Path) -> None:
    said = Said()
    for protocol in ("small", "adm"):
        request = stats_request(fewer, tmp_path / f"{protocol}.npz", protocol=protocol)
        source, num_kept, ids = _open(request, ModelFolder(fewer / "model"), protocol, said)
        assert (source.num_images, num_kept, source.config.image_size) == (16, 2, 16)
        assert ids == {0: 0, 2: 2}
    assert "2 classes that model" in said.logged[0]
    values = run(fewer, tmp_path / "own.npz")
    assert values["source"] == "images (train, 16 pixels, 2 classes)"
    assert read_reference(tmp_path / "own.npz").classes == {0: 8, 2: 8}
    run(fewer, tmp_path / "every.npz", classes=("all",))
    assert read_reference(tmp_path / "every.npz").classes == {0: 8, 1: 8, 2: 8}


@pytest.mark.parametrize(
    ("names", "num_classes", "labels", "ids"),
    [
        ({0: "cat", 1: "dog", 2: "Golden_Retriever"}, 3, {0: "dog", 1: "golden retriever, dog"}, {1: 0, 2: 1}),
        ({0: "dog"}, 1, {0: "cat", 1: "dog"}, {0: 1}),
        ({}, 1000, {207: "golden retriever"}, {207: 207}),
        ({0: "dog", 1: "car"}, 2, {207: "dog", 208: "cat"}, None),
        ({0: "a", 1: "b"}, 2, {0: "x"}, None),
        ({0: "ant", 1: "cat"}, 1000, {0: "cat", 1: "dog"}, None),
        ({0: "n01440764", 207: "207"}, 1000, {0: "tench", 207: "golden retriever"}, {0: 0, 207: 207}),
    ],
)
def test_a_models_classes_are_found_by_name_or_by_the_same_numbering(
    names: dict[int, str], num_classes: int, labels: dict[int, str], ids: dict[int, int] | None
) -> None:
    assert shared_ids(names, num_classes, labels, 1000) == ids


def test_data_that_is_numbered_otherwise_is_not_cut_by_the_models_ids(toy: Path, tmp_path: Path) -> None:
    said = Said()
    write_class_folder(tmp_path / "photos", 8, ("cars", "ships"), 16)
    request = stats_request(toy, tmp_path / "own.npz", dataset=str(tmp_path / "photos"))
    assert make_stats(request, said)["num_images"] == 8
    assert "all of these are used" in said.warned[0]


def test_a_reference_of_other_classes_is_told_before_during_and_after(fewer: Path, tmp_path: Path) -> None:
    words = "reference is of 3 classes and the images are of 2, with 2 in common"
    said = Said()
    request = evaluate_request(fewer, tmp_path, num_samples=6, record=True)
    (row,) = evaluate(request, said)["results"]
    assert any(words in line for line in said.warned)
    assert row["classes"] == {"reference": 3, "images": 2, "shared": 2}
    assert words in ModelFolder(fewer / "model").card()
    run(fewer, tmp_path / "own.npz")
    same = evaluate_request(fewer, tmp_path, num_samples=6, reference=tmp_path / "own.npz")
    line = ["--ref", request.reference, "-m", request.model, "-n", 6, "--steps", 2, "-o", tmp_path, "--device", "cpu"]
    shown = CliRunner().invoke(app, ["evaluate", *map(str, line)], catch_exceptions=False).stdout
    assert words in shown
    assert "3 classes" in shown
    said = Said()
    (row,) = evaluate(same, said)["results"]
    assert "classes" not in row
    assert row["reference"]["num_classes"] == 2
    assert not any("classes" in line for line in said.warned)


def test_a_reference_of_other_sizes_is_warned_of(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for job in ("stats", "evaluate"):
        monkeypatch.setattr(f"adanat_cli.jobs.evaluate.{job}.load_extractor", lambda *_, **__: Patches())
    run(toy, tmp_path / "adm.npz", protocol="adm", data={"image_size": 8})
    said = Said()
    evaluate(evaluate_request(toy, tmp_path, reference=tmp_path / "adm.npz", num_samples=6), said)
    assert any("images of 8 pixels, and these have 16" in line for line in said.warned)


def test_installed_statistics_are_what_evaluate_takes_by_default(tmp_path: Path) -> None:
    folder = make_evaluation_toy(tmp_path)
    make_stats(stats_request(folder, install=True), SilentReporter())
    assert rows(folder, "own", reference=None)[0]["metrics"] == rows(folder, "given")[0]["metrics"]
    ModelFolder(folder / "model").write("features", *ModelFolder(folder / "model").read("features"))
    assert ModelFolder(folder / "model").reference() is None, "they belong to the features that are gone"
    with pytest.raises(AdaNATError, match="brings no reference statistics"):
        rows(folder, "without", reference=None)
