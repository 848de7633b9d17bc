"""Tables of an evaluation: what they say is what was measured, in forms that other programs read."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.metrics.references import read_reference
from adanat_cli.jobs.evaluate.evaluate import evaluate
from adanat_cli.jobs.evaluate.tables import cells, comma_separated, latex, ranges
from adanat_cli.jobs.runtime.reporter import SilentReporter
from tests.evaluation_toy import evaluate_request


def row(name: str, seed: int, fid: float | None, **others: Any) -> dict[str, Any]:
    return {
        "name": name,
        "settings": {"schedule": name.partition(":")[0], "num_steps": 8, "num_images": 1000, "seed": seed},
        "metrics": {"fid": fid, "kid": None, **others},
        "reference": {"file": "a.npz", "num_images": None},
        "cost": {"tera_flops_per_image": 0.5},
    }


SEVERAL = [row("cosine", 0, 3.0), row("cosine", 1, 4.0), row("table:50%_a&b", 0, 2.0), row("table:50%_a&b", 1, None)]


def test_latex_has_as_many_cells_as_columns_and_no_bare_special_letter() -> None:
    comment, begin, top, head, middle, one, two, bottom, end = latex(SEVERAL, "Protocol adm\n100 %")
    assert comment == "% Protocol adm 100 %"
    assert (begin, end) == (r"\begin{tabular}{lrrrr}", r"\end{tabular}")
    assert (top, middle, bottom) == (r"\toprule", r"\midrule", r"\bottomrule")
    assert head == r"measured & FID & images & seeds & GFLOPs/image \\"
    assert one == r"cosine, 8 steps & 3.500 $\pm$ 0.707 & 1,000 & 2 & 500 \\"
    assert two == r"table:50\%\_a\&b, 8 steps & -- & 1,000 & 2 & 500 \\"
    (hostile,) = [line for line in latex([row("a\\b{~^#$", 0, 1.0)], "") if "steps" in line]
    assert hostile.startswith(r"a\textbackslash{}b\{\textasciitilde{}\textasciicircum{}\#\$, 8 steps & 1.000")


def test_csv_keeps_every_digit_and_leaves_absent_numbers_empty() -> None:
    one, two = csv.DictReader(comma_separated([*SEVERAL[:1], row("cosine", 1, 1 / 3), *SEVERAL[2:]]))
    assert (one["measured"], one["num_images"], one["seeds"]) == ("cosine, 8 steps", "1000", "0 1")
    assert float(one["fid"]) == (3 + 1 / 3) / 2
    assert float(one["fid_over_seeds"]) == stdev([3, 1 / 3])
    assert (two["fid"], two["fid_over_seeds"]) == ("", "")
    assert "kid" not in one
    (one,) = csv.DictReader(comma_separated(SEVERAL[:1]))
    assert one.keys() == {
        "measured",
        "num_images",
        "seeds",
        "fid",
        "tera_flops_per_image",
    }


def test_operations_are_in_gflops_where_no_line_takes_a_tflop() -> None:
    small, large = row("cosine", 0, 1.0), row("halton", 0, 1.0)
    small["cost"], large["cost"] = {"tera_flops_per_image": 0.00312}, {"tera_flops_per_image": 1.5}
    for rows, unit, column in (
        ([small], "GFLOPs/image", ["3.12"]),
        ([small, large], "TFLOPs/image", ["0.00312", "1.5"]),
    ):
        head, body = cells(rows)
        assert (head[-1], [line[-1] for line in body]) == (unit, column)


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([4], "4"), ([2, 1, 0], "0-2"), ([0, 1, 5, 7, 8], "0-1, 5, 7-8")]
)
def test_ranges_name_each_number_once(numbers: list[int], text: str) -> None:
    assert ranges(numbers) == text


def test_a_table_for_other_programs_is_all_that_is_printed(toy: Path, tmp_path: Path) -> None:
    line = ["evaluate", "--ref", toy / "stats.npz", "-m", toy / "model", "-n", 22, "--steps", 2, "-o", tmp_path]
    asked = [*map(str, line), "--device", "cpu"]
    found = json.loads(CliRunner().invoke(app, [*asked, "--json"], catch_exceptions=False).stdout)
    (measured,) = found["results"]
    assert measured["neighbors"] == {"precision": 3, "recall": 3, "density": 5, "coverage": 5}
    classes = read_reference(toy / "stats.npz").classes
    assert classes is not None
    assert measured["reference"]["classes"] == ranges(classes) != ""
    (from_csv,) = csv.DictReader(CliRunner().invoke(app, [*asked, "--table", "csv"]).stdout.splitlines())
    assert float(from_csv["fid"]) == measured["metrics"]["fid"]
    printed = CliRunner().invoke(app, [*asked, "--table", "latex"]).stdout.splitlines()
    assert re.match(r"% Protocol small: .*; reference stats.npz, .*Nearest neighbours: 3 for precision", printed[0])
    assert (printed[1][:16], printed[-1]) == (r"\begin{tabular}{", r"\end{tabular}")
    printed = CliRunner().invoke(app, [*asked, "--table", "markdown"]).stdout.splitlines()
    assert [line[:2] for line in printed] == ["| ", "|-", "| "]
    assert "|---|" not in CliRunner().invoke(app, asked).stdout, "one table is enough"
    refused = CliRunner().invoke(app, [*asked, "--table", "csv", "--json"])
    assert "--json and --table csv are both given; choose one" in str(refused.exception)


def test_k_is_not_named_where_nothing_is_measured_with_it(toy: Path, tmp_path: Path) -> None:
    (few,) = evaluate(evaluate_request(toy, tmp_path, num_samples=5), SilentReporter())["results"]
    assert few["neighbors"] == {}
