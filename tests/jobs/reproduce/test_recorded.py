"""A model's recorded results: equal of the same images, within of fewer, outside where they are wrong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config.reproduce import ReproduceRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.evaluate.stats import make_stats
from adanat_cli.jobs.reproduce.recorded import recorded_results
from adanat_cli.jobs.reproduce.reproduce import plan, reproduce
from adanat_cli.jobs.runtime.reporter import SilentReporter
from tests.evaluation_toy import Said, Stops, fail, make_evaluation_toy, rows, stats_request
from tests.processes import run_two

NUM = 60
OWN = {"reference": None, "protocol": "small", "num_samples": NUM, "record": True}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a reference of its own and recorded results of three schedules."""
    folder = make_evaluation_toy(tmp_path_factory.mktemp("reproduce"))
    make_stats(stats_request(folder, "own.npz", install=True), SilentReporter())
    rows(folder, "a", **OWN, steps=(2, 3), seed=5)
    rows(folder, "a", **OWN, schedules=("halton",), sampling_temperature=0.7, guidance_scale=2.0, classes=("0", "2"))
    return folder


def again(toy: Path, output: Path, **fields: Any) -> dict[str, Any]:
    request = ReproduceRequest(str(toy / "model"), output, device="cpu", workers=0, part_size=7, **fields)
    return reproduce(request, SilentReporter())


@pytest.fixture
def changed(toy: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(toy / "model", tmp_path / "model")
    return tmp_path


def edit(folder: Path, **changes: Any) -> None:
    """Change every recorded result."""
    file = folder / "model" / "model_index.json"
    index = json.loads(file.read_text())
    index["results"] = [{**result, **changes} for result in index["results"]]
    file.write_text(json.dumps(index))


def test_the_same_images_give_the_recorded_figures(toy: Path, tmp_path: Path) -> None:
    recorded = ModelFolder(toy / "model").index.results
    values = again(toy, tmp_path)
    assert len(values["comparisons"]) == len(recorded)
    assert [one for one in values["comparisons"] if one["verdict"] != "equal"] == []
    assert values["outside"] == []
    kept = json.loads((tmp_path / "reproduction.json").read_text())
    assert kept["comparisons"] == values["comparisons"]
    asked = {(one["schedule"], one["num_steps"], one["seed"]) for one in values["comparisons"]}
    assert asked == {("cosine", 2, 5), ("cosine", 3, 5), ("halton", 2, 0)}


def test_fewer_images_lie_within_a_wider_tolerance(toy: Path, tmp_path: Path) -> None:
    whole, few = (
        {one["metric"]: one for one in again(toy, tmp_path / str(n), num_samples=n, steps=(3,))["comparisons"]}
        for n in (NUM, 40)
    )
    assert {one["num_measured"] for one in few.values()} == {40}
    assert {one["verdict"] for one in few.values()} <= {"within", "not judged"}
    assert few["accuracy"]["verdict"] == "within"
    assert few["recall"]["why"] == "it depends on the number of images"
    assert few["accuracy"]["tolerance"] > whole["accuracy"]["tolerance"] > 0


def test_a_wrong_figure_lies_outside_and_the_command_fails(changed: Path, tmp_path: Path) -> None:
    file = changed / "model" / "model_index.json"
    index = json.loads(file.read_text())
    wrong = next(one for one in index["results"] if one["metric"] == "fid" and one["num_steps"] == 3)
    wrong["value"] *= 2
    file.write_text(json.dumps(index))
    line = ["reproduce", str(changed / "model"), "--output", str(tmp_path / "out"), "--device", "cpu", "--steps", "3"]
    done = CliRunner().invoke(app, [*line, "--json"])
    assert done.exit_code == 1
    assert isinstance(done.exception, AdaNATError)
    assert str(done.exception) == "1 figure outside the tolerance: FID of cosine, 3 steps (small)."
    assert json.loads(done.stdout)["outside"] == ["FID of cosine, 3 steps (small)"]
    shown = CliRunner().invoke(app, line)
    assert "outside" in shown.stdout
    assert "Tolerance: 4.1 standard errors" in shown.stdout
    assert "outside" in shown.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"nat": "0" * 12}, "the model's nat is another now"),
        ({"reference": "0" * 12}, "the model's reference is another now"),
        ({"policy": "0" * 12}, "the model's policy is another now"),
        ({"schedule": "table:own"}, "its schedule is not in the model"),
        ({"protocol": "adm"}, "is not in the model"),
        ({"num_prompts": 3}, "its prompts are not in the model"),
        ({"only_classes": "30 of them, abc"}, "its classes are not listed"),
        ({"seed": None}, "it does not record all settings"),
        ({"metric": "reconstruction_fid"}, "they need the images"),
    ],
)
def test_what_cannot_be_measured_again_says_why(changed: Path, changes: dict[str, Any], why: str) -> None:
    edit(changed, **changes)
    with pytest.raises(AdaNATError, match=f"records no result that can be measured again; .*{why}"):
        recorded_results(ModelFolder(changed / "model"), ReproduceRequest("x"))


def test_a_plan_counts_figures_and_images_and_measures_nothing(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adanat_cli.jobs.reproduce.recorded.evaluate", lambda *_: pytest.fail("measured"))
    values = plan(ReproduceRequest(str(toy / "model"), num_samples=40), SilentReporter())
    assert values["cost"]["num_images"] == 3 * 40
    assert values["figures"] == len(ModelFolder(toy / "model").index.results)
    done = CliRunner().invoke(app, ["reproduce", str(toy / "model"), "--dry-run"])
    assert f"Cost: {3 * NUM} images" in done.stdout


def test_a_killed_run_resumes_and_says_each_line_once(toy: Path, tmp_path: Path) -> None:
    request = ReproduceRequest(str(toy / "model"), tmp_path, device="cpu", workers=0, part_size=7)
    with pytest.raises(RuntimeError, match="killed"):
        reproduce(request, Stops(NUM + 20, fail))
    counts, said = Stops(10**6, fail), Said()
    reproduce(request, counts)
    assert counts.seen < 3 * NUM
    reproduce(replace(request, output=tmp_path / "b"), said)
    assert len(said.warned) == len(set(said.warned)) == 2  # few images; Halton's are of fewer classes
    assert said.logged[0] == "cosine, protocol small (1 of 2)."


def test_mistakes_are_told_before_anything_is_measured(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(AdaNATError, match=r"--ref, --prompts is for published benchmarks \(imagenet256"):
        again(toy, tmp_path, reference=Path("a.npz"), prompts_file=Path("b.txt"))
    with pytest.raises(AdaNATError, match="records no result that fits these options"):
        again(toy, tmp_path, steps=(7,))
    with pytest.raises(AdaNATError, match=r"did you mean imagenet64.*imagenet256, imagenet512, mscoco, cc3m"):
        reproduce(ReproduceRequest("imagnet64"), SilentReporter())
    few = CliRunner().invoke(app, ["reproduce", "imagenet64", "-n", "19"])
    assert few.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_two_processes_compare_what_one_does(toy: Path, tmp_path: Path, warm: dict[str, str]) -> None:
    script = """
import sys
from pathlib import Path
from adanat_cli.core.config.reproduce import ReproduceRequest
from adanat_cli.jobs.reproduce.reproduce import reproduce
from adanat_cli.jobs.runtime.reporter import SilentReporter
request = ReproduceRequest(sys.argv[1], Path(sys.argv[2]), steps=(3,), device="cpu", workers=0, part_size=7)
reproduce(request, SilentReporter())
"""
    run_two(warm, script, toy / "model", tmp_path)
    kept = json.loads((tmp_path / "reproduction.json").read_text())
    assert {one["verdict"] for one in kept["comparisons"]} == {"equal"}


def test_the_report_shows_verdicts_and_the_images_of_both_schedules_once(toy: Path, tmp_path: Path) -> None:
    values = again(toy, tmp_path, num_samples=40)
    content = Path(values["report"]).read_text(encoding="utf-8")
    assert f"{len(values['comparisons'])} figures measured again" in content
    assert content.count("<circle") == sum(one["tolerance"] is not None for one in values["comparisons"])
    assert content.count("data:image/png") == 3 * 12
    assert 'class="within"' in content
    assert 'class="unjudged"' in content
    assert "Tolerance: 4.1 standard errors" in content
