"""A published figure in one command, against a Hub on loopback: what is missing, what is fetched, what is compared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from adanat_cli.cli import app
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import BENCHMARKS
from adanat_cli.core.config.benchmarks import Benchmark
from adanat_cli.core.config.published import PUBLISHED, Figure, Place, Published
from adanat_cli.core.config.reproduce import ReproduceRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.metrics.frechet import Gaussian
from adanat_cli.core.metrics.references import Reference, write_reference
from adanat_cli.jobs.reproduce.reproduce import plan, reproduce
from adanat_cli.jobs.runtime.reporter import SilentReporter
from tests.evaluation_toy import Patches
from tests.hub.known_toy import PAGE, offer
from tests.hub.server import Fault, HubServer
from tests.jobs.share.foreign_files import saved, vqgan_state

POLICY_PAGE, STATS = "https://example.org/policy", "assets/stats.npz"


class PaperPatches(Patches):
    """A network that is quicker than Inception."""

    protocol = "paper"


def stats_bytes(folder: Path) -> bytes:
    gaussian = Gaussian(torch.full((12,), 0.5, dtype=torch.float64), 0.01 * torch.eye(12, dtype=torch.float64))
    network = PaperPatches()
    about = {"protocol": "paper", "extractor": network.name, "weights_hash": network.weights_hash}
    write_reference(folder / "stats.npz", Reference(gaussian, num_images=100, **about))
    return (folder / "stats.npz").read_bytes()


@pytest.fixture
def authors(hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HubServer:
    """A benchmark "toy" whose files are on the Hub, but for the tokenizer and a policy for 8 steps."""
    offer(hub, monkeypatch)
    fields: dict[str, Any] = {"num_classes": 10, "codebook_size": 64, "nat_size": "nano", "eval_images": 20}
    toy: Benchmark = replace(BENCHMARKS["imagenet256"], **fields)
    monkeypatch.setitem(BENCHMARKS, "toy", toy)
    published = Published(
        Place(STATS, "authors/stats", num_bytes=1),
        (Figure(4, 99.5, 1, "the authors"),),
        {8: Place("policy of the authors", page=POLICY_PAGE)},
    )
    monkeypatch.setitem(PUBLISHED, "toy", published)
    monkeypatch.setattr("adanat_cli.jobs.evaluate.evaluate.load_extractor", lambda *_, **__: PaperPatches())
    monkeypatch.setenv("ADANAT_INCEPTION", str(saved(tmp_path / "pt_inception-2015-12-05-6726825d.pth", {})))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hub.add("authors/stats", {STATS: stats_bytes(tmp_path)})
    monkeypatch.chdir(tmp_path)
    return hub


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return saved(tmp_path / "vqgan.ckpt", {"state_dict": vqgan_state()})


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["reproduce", "toy", "--device", "cpu", "--workers", "0", *arguments])


def publish(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    monkeypatch.setitem(PUBLISHED, "toy", replace(PUBLISHED["toy"], figures=(Figure(4, value, 1, "the authors"),)))


def test_a_plan_names_every_missing_file_with_place_size_and_hash_and_fetches_none(authors: HubServer) -> None:
    values = plan(ReproduceRequest("toy", steps=(4, 8)), SilentReporter())
    needs = {need["part"]: need for need in values["needs"]}
    assert list(needs) == ["tokenizer", "nat", "policies/steps-4", "policies/steps-8", "reference", "inception"]
    assert values["missing"] == list(needs)[:-1]
    assert values["by_hand"] == ["tokenizer", "policies/steps-8"]
    assert (needs["tokenizer"]["place"], needs["policies/steps-8"]["place"]) == (PAGE, POLICY_PAGE)
    assert "--tokenizer-file vqgan.ckpt" in needs["tokenizer"]["advice"]
    assert needs["policies/steps-8"]["advice"].endswith("adanat import FILE --steps 8 --output models/toy")
    for part, repo, file in (("nat", "nat", "assets/nat.pth"), ("reference", "stats", STATS)):
        stored = authors.repos[f"models/authors/{repo}"]
        data = stored.commits[stored.branches["main"]][file]
        assert needs[part]["place"] == f"authors/{repo}: {file}"
        assert (needs[part]["num_bytes"], needs[part]["is_exact"]) == (len(data), True)
        assert needs[part]["sha256"] == hashlib.sha256(data).hexdigest()
    assert values["cost"]["num_images"] == 2 * 20
    assert authors.asked("^GET .*resolve") == []
    shown = run("--dry-run").stdout
    assert f"sha256 {needs['nat']['sha256']}" in shown
    assert not Path("models").exists()


def test_a_plan_needs_no_hub(authors: HubServer) -> None:
    authors.faults.append(Fault("", 500))
    done = run("--dry-run")
    assert done.exit_code == 0
    assert "authors/nat: assets/nat.pth" in done.stdout
    assert len(authors.asked("HEAD")) <= 6  # the client tries one file again, and no other is asked for


def test_a_file_that_must_be_got_by_hand_stops_before_anything_is_fetched(authors: HubServer) -> None:
    done = run()
    assert done.exit_code == 1
    assert str(done.exception).startswith("To be got by hand: tokenizer; nothing was fetched")
    assert PAGE in done.stdout
    assert authors.asked("^GET .*resolve") == []


def test_with_all_files_the_figure_is_measured_and_judged(
    authors: HubServer, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("--tokenizer-file", str(tokenizer), "--json")
    assert done.exit_code == 1
    assert isinstance(done.exception, AdaNATError)
    assert "1 figure outside the tolerance: FID of learned, 4 steps (paper)" in str(done.exception)
    (one,) = json.loads(done.stdout)["comparisons"]
    assert (one["expected"], one["num_expected"], one["num_measured"], one["source"]) == (99.5, 20, 20, "the authors")
    assert ModelFolder("models/toy").index.components == ("tokenizer", "nat", "policies/steps-4")
    # A figure that is right, as it was rounded, is found again, without another question to the Hub.
    authors.log.clear()
    publish(monkeypatch, round(one["measured"], 1))
    again = run()
    assert again.exit_code == 0, again.output
    assert "equal" in again.stdout
    assert authors.asked("nat|policies") == []
    publish(monkeypatch, one["measured"] + 0.9 * one["tolerance"])
    assert run().exit_code == 0
    report = json.loads(Path("reproductions/toy/reproduction.json").read_text())
    assert report["comparisons"][0]["verdict"] == "within"
    assert [file["part"] for file in report["files"]][:2] == ["tokenizer", "nat"]


def test_what_has_no_published_figure_is_measured_alone(
    authors: HubServer, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PUBLISHED, "toy", replace(PUBLISHED["toy"], figures=()))
    done = run("--tokenizer-file", str(tokenizer), "--steps", "4")
    assert done.exit_code == 0, done.output
    assert "No published figure of this benchmark is known" in done.stdout
    assert "learned, 4 steps" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--ref", "none.npz"), "--ref none.npz does not exist"),
        (("--tokenizer-file", "none.ckpt"), "--tokenizer-file none.ckpt does not exist; download it from"),
        (("--model", "none"), "neither a folder nor a known name"),
    ],
)
def test_a_file_that_is_given_and_missing_is_named(authors: HubServer, arguments: tuple[str, str], words: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 1
    assert words in str(done.exception)


def test_a_transfer_that_fails_is_told_in_one_line_and_goes_on_later(authors: HubServer, tokenizer: Path) -> None:
    authors.faults.append(Fault("authors/stats", 404, {"X-Error-Code": "RepoNotFound"}))
    with pytest.raises(AdaNATError, match="authors/stats"):
        reproduce(ReproduceRequest("toy", tokenizer_file=tokenizer, device="cpu"), SilentReporter())
    authors.faults.clear()
    authors.log.clear()
    values = reproduce(ReproduceRequest("toy", tokenizer_file=tokenizer, device="cpu", workers=0), SilentReporter())
    assert len(values["comparisons"]) == 1
    assert authors.asked("authors/nat") == []


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_every_benchmark_says_what_it_takes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("adanat_cli.jobs.reproduce.reproduce.with_facts", lambda needs: needs)
    values = plan(ReproduceRequest(name), SilentReporter())
    assert set(PUBLISHED) == set(BENCHMARKS)
    assert PUBLISHED[name].reference.file.endswith(BENCHMARKS[name].reference)
    for need in values["needs"]:
        assert need["here"] or need["advice"]
        assert need["here"] or need["place"] or need["by_hand"]
    assert ("captions" in values["missing"]) == (BENCHMARKS[name].condition == "text")
    assert values["cost"]["num_images"] % BENCHMARKS[name].eval_images == 0
