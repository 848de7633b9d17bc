"""Protocol efficientnet from real images to the table: how many images are recognised as their class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core import efficientnet
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import NATConfig
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.metrics.frechet import Gaussian
from adanat_cli.core.metrics.recognition import Recognition
from adanat_cli.core.metrics.references import Reference, read_reference
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.jobs.evaluate.feature_store import FeatureStore
from adanat_cli.jobs.evaluate.measures import Measured, measure
from adanat_cli.jobs.evaluate.stats import make_stats
from adanat_cli.jobs.resolve.classes import numbered_as_imagenet
from adanat_cli.jobs.resolve.extractors import load_extractor
from adanat_cli.jobs.runtime.reporter import SilentReporter
from tests.evaluation_toy import rows, stats_request
from tests.image_files import write_class_folder
from tests.policy_toy import make_policy_toy

SYNSETS = {"n01443537": 1, "n02099601": 207, "n02129165": 291}
NAMES = {1: "goldfish, Carassius auratus", 207: "golden retriever", 291: "lion"}
REFERENCE = "references/efficientnet.npz"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with ImageNet's numbers that brings statistics of 12 ``real/`` images, which ``real.npz`` holds too."""
    folder = make_policy_toy(tmp_path_factory.mktemp("recognition"))
    model = ModelFolder(folder / "model")
    nat = NATConfig.from_dict({**model.config("nat"), "num_classes": 1000}, "nat")
    model.write("nat", nat.to_dict(), UViT(nat).state_dict())
    model.write_labels(NAMES)
    write_class_folder(folder / "real", 12, tuple(SYNSETS), 16)
    files = sorted((folder / "real").rglob("*.png"))
    images = np.stack([np.asarray(Image.open(file)) for file in files])
    np.savez(folder / "real.npz", arr_0=images, arr_1=np.array([SYNSETS[file.parent.name] for file in files]))
    request = stats_request(
        folder, "stats.npz", dataset=str(folder / "real"), protocol="efficientnet", install=True, workers=0
    )
    make_stats(request, SilentReporter())
    return folder


def test_real_images_are_recognised_as_often_as_the_reference_says(toy: Path, tmp_path: Path) -> None:
    with np.load(toy / "real.npz") as arrays:
        images, labels = torch.from_numpy(arrays["arr_0"]).permute(0, 3, 1, 2), torch.from_numpy(arrays["arr_1"])
    logits = load_extractor("efficientnet")(images).logits
    assert logits is not None
    top5 = (logits.topk(5).indices == labels[:, None]).any(1).double().mean().item()
    asked = torch.tensor(sorted(NAMES))
    among = (asked[logits[:, asked].argmax(1)] == labels).double().mean().item()
    expected = Recognition((logits.argmax(1) == labels).double().mean().item(), top5, among)
    reference = read_reference(toy / "model" / REFERENCE)
    assert reference.recognition == expected
    assert reference.classes == dict.fromkeys(NAMES, 4)

    fields = {"reference": None, "steps": (), "num_samples": None, "protocol": "efficientnet"}
    (row,) = rows(toy, tmp_path, samples=toy / "real.npz", **fields)
    metrics = row["metrics"]
    assert [metrics[name] for name in ("top1", "top5", "among", "among_of_real")] == [*vars(expected).values(), 1]
    assert metrics["fid"] < 1e-4 * float(reference.gaussian.covariance.trace())
    assert metrics["precision"] == metrics["recall"] == 1
    assert metrics["inception_score"] is None
    assert row["reference"]["recognition"] == vars(expected)
    assert row["reference"]["file"].endswith(f"/{REFERENCE}")


def test_generated_images_stand_above_the_real_ones_in_table_and_record(toy: Path, tmp_path: Path) -> None:
    line = ["evaluate", "-m", toy / "model", "--protocol", "efficientnet", "-n", 7, "--steps", 2, "-o", tmp_path]
    done = CliRunner().invoke(
        app, [*map(str, line), "--device", "cpu", "--record", "--table", "markdown"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    head, _, generated, real = [row for row in done.stdout.splitlines() if row.startswith("|")]
    assert "| top-1 | top-5 | among | among/real | images |" in head
    assert generated.startswith("| cosine, 2 steps |")
    assert real.startswith("| real images | — |")
    assert real.endswith("| 12 | — |")
    (row,) = json.loads((tmp_path / "evaluation.json").read_text())["results"]
    shares = row["reference"]["recognition"]
    model = ModelFolder(toy / "model")
    recorded = {one["metric"]: one["value"] for one in model.index.results}
    assert {name: recorded[f"real_{name}"] for name in shares} == shares
    assert recorded["among"] == row["metrics"]["among"]
    assert "real_among" in model.card()


def test_a_model_brings_its_statistics_along_with_its_nat(toy: Path, tmp_path: Path) -> None:
    model, copy = ModelFolder(toy / "model"), ModelFolder(tmp_path / "copy")
    assert REFERENCE in model.files("nat")
    assert REFERENCE not in model.files("features")
    copy.write_all([model.component("nat")])
    assert copy.reference("efficientnet") is None
    copy.take_references(model, "nat")
    assert (copy.path / REFERENCE).read_bytes() == (toy / "stats.npz").read_bytes()


def measured(
    folder: Path, reference: Recognition | None, protocol: str = "efficientnet", missing: str = ""
) -> Measured:
    """Four images of classes 0 and 2, of which two are recognised, among all 3 classes and among their own."""
    store = FeatureStore(folder, {})
    logits = torch.tensor([[9.0, 1, 1], [1, 9, 2], [1, 2, 9], [9, 1, 1]])
    columns = {"features": torch.randn(4, 2), "logits": logits, "labels": torch.tensor([0, 0, 2, 2])}
    store.add(0, columns, {})
    real = Reference(Gaussian(torch.zeros(2), torch.eye(2)), classes={0: 1, 2: 1}, recognition=reference)
    return Measured(store, 4, real, None, protocol, "", missing, "", torch.device("cpu"))


def test_shares_are_divided_by_those_of_real_images(tmp_path: Path) -> None:
    values, absent = measure(measured(tmp_path, Recognition(0.5, 0.75, 0.8)))
    assert [values[name] for name in ("top1", "top5", "among", "among_of_real")] == [0.5, 1, 0.5, 0.625]
    assert not {"top1", "top5", "among", "among_of_real"} & set(absent)


@pytest.mark.parametrize(
    ("changes", "names", "words"),
    [
        ({"reference": None}, {"among_of_real"}, "does not record"),
        ({"reference": Recognition(0, 0, 0)}, {"among_of_real"}, "does not record"),
        ({"missing": "other numbers"}, {"top1", "top5", "among", "among_of_real"}, "other numbers"),
        ({"protocol": "adm"}, {"top1", "top5", "among", "among_of_real"}, "only the protocol efficientnet"),
    ],
)
def test_what_cannot_be_recognised_is_left_out_with_a_reason(
    tmp_path: Path, changes: Mapping[str, object], names: set[str], words: str
) -> None:
    fields: dict[str, object] = {"reference": Recognition(0.5, 0.75, 0.8), **changes}
    values, absent = measure(measured(tmp_path, **fields))  # type: ignore[arg-type]
    assert {name for name in absent if name.startswith(("top", "among"))} == names
    assert all(values[name] is None and words in absent[name] for name in names)


@pytest.mark.parametrize(
    ("names", "num_classes", "same"),
    [
        (NAMES, 1000, True),
        ({}, 1000, True),
        (NAMES, 999, False),
        ({1: "lion", 207: "tram", 291: "goldfish"}, 1000, False),
    ],
)
def test_imagenets_numbers_are_known_by_number_and_names(names: dict[int, str], num_classes: int, same: bool) -> None:
    assert numbered_as_imagenet(names, num_classes) == same


def test_other_classes_are_not_recognised_and_their_statistics_not_compared_by_it(toy: Path, tmp_path: Path) -> None:
    request = stats_request(
        toy, tmp_path / "own.npz", num_images=4, protocol="efficientnet", model="", data={"image_size": 16}
    )
    assert make_stats(request, SilentReporter())["recognition"] is None
    reference = read_reference(tmp_path / "own.npz")
    assert reference.recognition is None
    assert reference.feature_width == efficientnet.FEATURE_WIDTH
    with pytest.raises(AdaNATError, match=r"of protocol efficientnet; .*--protocol efficientnet --install"):
        rows(make_policy_toy(tmp_path / "other"), tmp_path, reference=None, protocol="efficientnet")


def test_a_missing_package_is_one_line_with_an_alternative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "_package", lambda variant: f"absent-{variant}")
    with pytest.raises(AdaNATError, match=r"adanat\[imagenet\]', or --protocol timm/tf_efficientnet_lite1.in1k"):
        load_extractor("efficientnet")
