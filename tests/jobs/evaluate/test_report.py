"""Results that are read again, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.evaluate.report import Results
from adanat_cli.jobs.evaluate.tables import markdown
from tests.mutations import as_json, mutations

SETTINGS = {"seed": 0, "num_images": 4, "num_steps": 8, "schedule": "cosine", "protocol": "adm"}
ROW = {
    "name": "cosine",
    "origin": "model",
    "settings": SETTINGS,
    "metrics": {"fid": 3.0, "kid": None, "top1": 0.1},
    "absent": {"clip": "no prompts"},
    "reference": {
        "file": "a.npz",
        "source": "b",
        "num_images": None,
        "num_classes": 3,
        "recognition": {"top1": 0.4, "top5": 0.7, "among": 0.8},
    },
    "classes": {"reference": 1, "images": 2, "shared": 1},
    "cost": {"images_per_second": 1.0, "num_processes": 1, "tera_flops_per_image": 0.1},
}


def test_one_wrong_value_in_results_is_one_line(tmp_path: Path) -> None:
    shown = 0
    for what, changed in mutations({"format_version": 1, "results": [ROW]}, sparse=3):
        (tmp_path / "evaluation.json").write_text(as_json(changed))
        try:
            row = Results(tmp_path).find(SETTINGS)
        except AdaNATError as error:
            if "\n" in str(error):
                pytest.fail(f"{what}: {error}")
        else:
            shown += len(list(markdown([row]))) if row else 0
    assert shown > 100


def test_a_distance_that_is_not_finite_is_written_as_null_and_shown_as_none(tmp_path: Path) -> None:
    Results(tmp_path).add({**ROW, "metrics": {"fid": float("inf"), "kid": 0.5}})
    assert '"fid": null' in (tmp_path / "evaluation.json").read_text()
    row = Results(tmp_path).find(SETTINGS)
    assert row is not None
    assert "FID" not in "\n".join(markdown([row]))
