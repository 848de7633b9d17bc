"""``adanat evaluate --seeds``: each seed is measured as it is alone, and the table spreads over them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean, stdev

import pytest
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.evaluate import rows as evaluation_run
from adanat_cli.jobs.evaluate.evaluate import evaluate
from adanat_cli.jobs.evaluate.tables import Spread, cells
from adanat_cli.jobs.runtime.reporter import SilentReporter
from tests.evaluation_toy import Stops, evaluate_request, fail, parts, rows


def test_several_seeds_measure_what_each_does_alone(toy: Path, tmp_path: Path) -> None:
    alone = [rows(toy, tmp_path / f"alone-{seed}", seed=seed)[0] for seed in (3, 4, 5)]
    values = evaluate(evaluate_request(toy, tmp_path / "all", seed=3, num_seeds=3, steps=(1, 2)), SilentReporter())
    two_steps = values["results"][3:]
    assert [row["settings"] for row in two_steps] == [row["settings"] for row in alone]
    assert [row["metrics"] for row in two_steps] == [row["metrics"] for row in alone]
    distances = [row["metrics"]["fid"] for row in alone]
    assert len(set(distances)) == 3
    (_, line) = values["summary"]
    assert (line["name"], line["num_images"], line["seeds"]) == ("cosine, 2 steps", 22, (3, 4, 5))
    assert line["metrics"]["fid"] == {"mean": mean(distances), "std": stdev(distances)}
    head, body = cells(values["results"])
    assert [line[0] for line in body] == ["cosine, 1 steps", "cosine, 2 steps"]
    assert body[1][head.index("FID")] == f"{mean(distances):.3f} ± {stdev(distances):.3f}"
    assert body[1][head.index("seeds")] == "3"
    assert Path(values["plot"]).stat().st_size > 1000


def test_a_killed_measurement_of_several_seeds_resumes_in_the_middle_of_one(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        evaluate(evaluate_request(toy, tmp_path, num_seeds=2), Stops(22 + 12, fail))
    assert len(json.loads((tmp_path / "evaluation.json").read_text())["results"]) == 1
    assert {Path(part).name for part in parts(tmp_path)} == {"part-00000.safetensors", "part-00001.safetensors"}
    counts = Stops(10**6, fail)
    resumed = evaluate(evaluate_request(toy, tmp_path, num_seeds=2), counts)["results"]
    assert counts.seen == 12  # the last three parts of the second seed
    assert resumed[1]["metrics"] == rows(toy, tmp_path / "alone", seed=1)[0]["metrics"]
    assert parts(tmp_path) == []
    monkeypatch.setattr(evaluation_run, "extract_features", lambda *_: pytest.fail("measured again"))
    assert rows(toy, tmp_path, num_seeds=2) == resumed


def test_one_seed_has_no_deviation(toy: Path, tmp_path: Path) -> None:
    values = evaluate(evaluate_request(toy, tmp_path), SilentReporter())
    head, body = cells(values["results"])
    assert "seeds" not in head
    assert "±" not in "".join(body[0])
    assert values["summary"][0]["metrics"]["fid"] == {"mean": values["results"][0]["metrics"]["fid"], "std": None}


def test_a_metric_that_one_seed_lacks_has_no_mean() -> None:
    assert Spread.of([1.0, None, 3.0]) == Spread(None)
    assert Spread.of([1.0, 2.0, 3.0]) == Spread(2.0, 1.0)


def test_the_terminal_shows_means_and_names_the_seeds(toy: Path, tmp_path: Path) -> None:
    line = ["evaluate", "--ref", toy / "stats.npz", "-m", toy / "model", "-n", 22, "--steps", 2, "-o", tmp_path]
    done = CliRunner().invoke(app, [*map(str, line), "--device", "cpu", "--seeds", "2"], catch_exceptions=False)
    assert re.search(r"│ cosine, 2 steps │ \d+\.\d{3} ± \d+\.\d{3} │", done.stdout)
    assert "Mean ± standard deviation over seeds 0 to 1." in done.stdout


def test_seeds_that_cannot_be_are_refused(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(AdaNATError, match="--seeds is 0; expected at least 1"):
        rows(toy, tmp_path, num_seeds=0)
    with pytest.raises(AdaNATError, match=r"The last of --seeds is 9223372036854775808; expected .* less than 9,223,"):
        rows(toy, tmp_path, seed=2**63 - 1, num_seeds=2)
    with pytest.raises(AdaNATError, match="--seeds has no meaning with --images"):
        rows(toy, tmp_path, num_seeds=2, images=toy / "images", steps=(), num_samples=None)
