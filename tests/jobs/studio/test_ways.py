"""Words of the page for schedules, and the command lines of what it draws."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from adanat_cli.commands.options import takes
from adanat_cli.core.config.edit import Box, EditRequest, Sides
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.generation.schedules import CosineSchedule
from adanat_cli.core.policy.schedule import base_schedule
from adanat_cli.jobs.resolve.models import policy_config, resolve_model
from adanat_cli.jobs.resolve.schedules import build_schedule, choose_schedule
from adanat_cli.jobs.sample.sampler import Sampler
from adanat_cli.jobs.studio.command_line import command_line
from adanat_cli.jobs.studio.ways import BY_HAND, COSINE, LEARNED, TUNED, fixed_rows, schedule_options, stretched

ROWS = [[0.7, 1.0, 0.5, 1.0], [0.3, 1.1, 0.25, 2.0], [0.0, 1.2, 0.0, 3.0]]


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    """The embedded model, of which nothing is loaded."""
    return Sampler(resolve_model(""), torch.device("cpu"))


def table_of(sampler: Sampler, num_steps: int, options: dict[str, Any]) -> torch.Tensor:
    """The table that the options of a request stand for."""
    choice = choose_schedule(num_steps=num_steps, **{"text": options.pop("schedule"), **options})
    return build_schedule(choice, sampler.folder, sampler.config.grid, torch.device("cpu")).table


def test_tuned_is_what_the_policy_starts_from_and_its_factors_hold_for_other_steps(
    sampler: Sampler, tmp_path: Path
) -> None:
    for steps in (4, 8):
        tuned = table_of(sampler, steps, schedule_options(TUNED, sampler.folder, steps, (), tmp_path))
        assert torch.allclose(tuned, base_schedule(policy_config(sampler.folder, steps)).table)
    between = table_of(sampler, 6, schedule_options(TUNED, sampler.folder, 6, (), tmp_path))
    start = base_schedule(policy_config(sampler.folder, 4)).table[1] / CosineSchedule(4).table[1]
    factors = {"remask_temperature": float(start[2]), "guidance_scale": float(start[3])}
    assert torch.allclose(between, CosineSchedule(6, **factors).table, rtol=1e-3)
    assert list(tmp_path.iterdir()) == [], "no file is needed"


def test_a_table_by_hand_becomes_a_file_with_these_numbers(sampler: Sampler, tmp_path: Path) -> None:
    options = schedule_options(BY_HAND, sampler.folder, 3, ROWS, tmp_path)
    assert options == {"schedule": f"table:{tmp_path / 'schedule.yaml'}"}
    assert table_of(sampler, 3, options).tolist() == ROWS


@pytest.mark.parametrize(
    ("way", "rows", "message"),
    [
        (BY_HAND, (), "There are no curves to follow yet"),
        (
            BY_HAND,
            [[1.5, 1, 1, 1]],
            "A schedule has a re-masking ratio of 1.5; expected a value at least 0 and below 1.",
        ),
        ("linear", (), "Schedule 'linear' is not known; expected automatic, learned,"),
    ],
)
def test_what_cannot_be_drawn_is_refused(sampler: Sampler, tmp_path: Path, way: str, rows: Any, message: str) -> None:
    with pytest.raises(AdaNATError, match=message):
        schedule_options(way, sampler.folder, 1, rows, tmp_path)


def test_curves_are_known_before_drawing_unless_a_policy_chooses_them(sampler: Sampler, tmp_path: Path) -> None:
    assert fixed_rows(LEARNED, sampler, 8, tmp_path) == []
    assert fixed_rows("automatic", sampler, 6, tmp_path) == fixed_rows(COSINE, sampler, 6, tmp_path)
    assert len(fixed_rows("halton", sampler, 5, tmp_path)) == 5


def test_a_table_is_stretched_to_other_steps_with_the_same_ends() -> None:
    longer = stretched(ROWS, 5)
    assert (longer[0], longer[2], longer[4]) == (ROWS[0], ROWS[1], ROWS[2])
    assert longer[1] == [0.5, 1.05, 0.375, 1.5]
    assert stretched(longer, 3) == ROWS


def test_a_command_line_asks_for_the_request_that_it_was_made_from() -> None:
    requests = [
        SampleRequest(
            classes=("golden retriever", "1"), num_images=3, num_steps=5, seed=7, guidance_scale=2.5, trace=True
        ),
        SampleRequest(prompts=("a 'red' bus", "-x"), model="a b", output=Path("to here"), schedule="table:x.yaml"),
        EditRequest(Path("a b.png"), box=Box(1, 2, 3, 4), extend=Sides(left=2, bottom=1), variations=2, full_size=True),
    ]
    for request in requests:
        taken: list[Any] = []
        toy = typer.Typer()
        toy.command()(takes(type(request))(taken.append))
        line = command_line("x", request, {})
        done = CliRunner().invoke(toy, shlex.split(line)[2:], catch_exceptions=False)
        assert (done.exit_code, taken) == (0, [request]), line


def test_a_command_line_names_files_as_the_user_knows_them(tmp_path: Path) -> None:
    file = tmp_path / "schedule.yaml"
    named = command_line("sample", SampleRequest(schedule=f"table:{file}"), {file: "mine.yaml"})
    assert named == "adanat sample --schedule table:mine.yaml"
