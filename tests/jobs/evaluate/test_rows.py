"""Rows of ``adanat evaluate``: what is generated, measured and recorded, and the table that they make."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import NATConfig
from adanat_cli.core.generation.halton import num_revealed
from adanat_cli.core.generation.schedules import TableSchedule
from adanat_cli.core.generation.tables import write_table
from adanat_cli.jobs.evaluate import evaluate as job
from adanat_cli.jobs.evaluate.evaluate import evaluate
from adanat_cli.jobs.evaluate.generated_images import GeneratedImages
from adanat_cli.jobs.evaluate.in_words import not_measured
from adanat_cli.jobs.resolve.schedules import ScheduleChoice, choose_schedule
from adanat_cli.jobs.sample.conditions import ClassConditions
from adanat_cli.jobs.sample.sampler import Sampler
from tests.evaluation_toy import (
    GIVEN,
    Said,
    evaluate_request,
    make_evaluation_toy,
    rows,
)


def images_of(toy: Path, kind: str, num_steps: int, **scales: float) -> GeneratedImages:
    sampler = Sampler(ModelFolder(toy / "model"), torch.device("cpu"))
    return GeneratedImages(sampler, sampler.conditions((), (), 0), choose_schedule(kind, num_steps, **scales), 4, 0, 4)


def test_generated_images_are_not_rounded_before_the_protocol_says_so(toy: Path) -> None:
    (batch,) = images_of(toy, "cosine", 2).batches(0, 4)
    assert batch.images.dtype == torch.float32
    assert 0 <= float(batch.images.min()) <= float(batch.images.max()) <= 1
    assert float((255 * batch.images - (255 * batch.images).round()).abs().max()) > 0.1
    assert batch.labels is not None


@pytest.mark.parametrize("num_images", [1, 2, 40])
def test_operations_are_those_counted_by_hand(toy: Path, num_images: int) -> None:
    def tera_flops(steps: int, **scales: float) -> float:
        images = images_of(toy, "halton", steps, **scales)
        return replace(images, num_images=num_images).tera_flops() * 1e12

    # 3 blocks of width 16 over 1 + 16 tokens, of which one joins a skip: qkv, projection and MLP are 12 squares.
    body = 2 * (17 * (3 * 12 + 2) * 16**2 + 3 * 2 * 17**2 * 16)
    head = 2 * (16**2 + 16 * 16)  # of one token
    masked = [16 - revealed for revealed in num_revealed(3, 16)[:2]]
    conditions = len(images_of(toy, "halton", 1).conditions.numbers(range(num_images)).unique())
    decoder = tera_flops(1, guidance_scale=0.0) - 16 * head - conditions / num_images * body
    assert decoder > 0
    # Each class has one forward before the first step, and the null condition one for all images.
    first = conditions / num_images * body + 16 * head
    assert tera_flops(3, guidance_scale=0.0) == pytest.approx(decoder + first + 2 * body + sum(masked) * head)
    first += body / num_images + 16 * head
    assert tera_flops(3) == pytest.approx(decoder + first + 2 * (2 * body + sum(masked) * head))


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


def test_what_any_row_lacks_is_said() -> None:
    rows = [{"absent": {"sfid": "no moments"}}, {"absent": {"sfid": "no moments", "fid": "too large", "kid_std": "x"}}]
    assert list(not_measured(rows)) == ["Not measured: no moments: sfid", "Not measured: too large: fid"]


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
    assert "│ table:mine, 2 steps │" in done.stdout
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
