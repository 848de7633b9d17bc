"""Schedules from files: AutoNAT's published strategy, and one clear line for a wrong file."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from adanat_cli.core.config import NATConfig
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.generation.actions import ACTION_NAMES
from adanat_cli.core.generation.schedules import CosineSchedule
from adanat_cli.core.generation.state import DecodingState
from adanat_cli.core.generation.step import generate
from adanat_cli.core.generation.tables import read_autonat, read_table
from adanat_cli.core.nat.uvit import UViT
from adanat_cli.jobs.sample.conditions import ClassConditions
from adanat_cli.jobs.sample.predictor import ConditionedNAT
from tests.mutations import as_json, mutations
from tests.support import fill_analytic, fixture, fixture_json, gumbel


class StoredNoise:
    def choose(self, logits: torch.Tensor, step: int, masked: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return (logits + gumbel("noise.ids", (8, 2, 256, 64))[step][masked]).argmax(-1)

    def gumbel(self, step: int) -> torch.Tensor:
        return gumbel("noise.confidence", (8, 2, 256))[step]


@pytest.fixture
def strategy(tmp_path: Path) -> Path:
    path = tmp_path / "strategy.yaml"
    path.write_text(yaml.safe_dump(fixture_json("nat_train_meta")["autonat_T8_strategy"]))
    return path


@torch.no_grad()
def test_autonat_strategy_generates_what_the_reference_generates(strategy: Path) -> None:
    stored = fixture("nat_train")
    config = NATConfig(codebook_size=64, grid=(16, 16), width=32, depth=4, num_heads=4, num_classes=10)
    labels = torch.from_numpy(stored["autonat.labels"]).long()
    predict = ConditionedNAT(fill_analytic(UViT(config)), ClassConditions(labels, {})).predictor(labels)
    states = [DecodingState.start(2, 256, 64, 8)]
    generate(read_autonat(strategy), predict, states[0], StoredNoise(), lambda state, _: states.append(state))
    np.testing.assert_array_equal(torch.stack([state.mask for state in states[:-1]]), stored["autonat.masked_before"])
    np.testing.assert_array_equal(states[-1].sampled_ids, stored["autonat.final_ids"])


def test_a_table_under_our_names_is_read_as_it_is(tmp_path: Path) -> None:
    table = CosineSchedule(5).table
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump(dict(zip(ACTION_NAMES, table.T.tolist(), strict=True))))
    assert torch.equal(read_table(path).table, table)


def test_numbers_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    path.write_text("".join(f"{name}: [5e-1, +1E-1, .25, '0.5', 2., 010]\n" for name in ACTION_NAMES), "utf-16")
    with pytest.raises(AdaNATError, match="re-masking ratio of"):
        read_table(path)
    path.write_text(path.read_text("utf-16").replace(", 2., 010", ""), "utf-8-sig")
    assert read_table(path).table.tolist() == [[0.5] * 4, [0.1] * 4, [0.25] * 4, [0.5] * 4]


def test_one_step_of_autonat_needs_no_ratio(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text("manual_ratios: []\nmanual_temp: []\nmanual_samp_temp: [1.0]\nmanual_cfg: [0.5]\n")
    assert read_autonat(path).table.tolist() == [[0.0, 1.0, 0.0, 0.5]]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "does not exist; expected YAML with the keys manual_ratios, "),
        ("[" * 10_000, "nested too deeply"),
        ("a: &a [1]\nb: [*a, *a]", "an alias"),
        ("{[1]: 2}", "not YAML"),
        ("manual_cfg: [1, 1]\nmanual_cfg: [2, 2]", "a key twice"),
        ("x" * 2**18, "is larger than"),
        ("a: \x1b", "not YAML"),
        ("{", "not YAML"),
        (
            "just words",
            "strategy.yaml is not a schedule file of this kind; expected YAML with the keys manual_ratios, [a-z_, ]+.$",
        ),
        ("manual_ratios: [0.5]\nmanual_temp: [1]\nmanual_cfg: [1, 1]", "lacks manual_samp_temp"),
        (
            "manual_ratios: [0.5, 0.2]\nmanual_temp: [1]\nmanual_samp_temp: [1, 1]\nmanual_cfg: [1, 1]",
            "2 manual_ratios",
        ),
        (
            "manual_ratios: [2**9]\nmanual_temp: [1]\nmanual_samp_temp: [1, 1]\nmanual_cfg: [1, 1]",
            "list of numbers|finite",
        ),
        (
            "manual_ratios: [1e999]\nmanual_temp: [1]\nmanual_samp_temp: [1, 1]\nmanual_cfg: [1, 1]",
            "list of numbers|finite",
        ),
        (
            "manual_ratios: [2020-01-01]\nmanual_temp: [1]\nmanual_samp_temp: [1, 1]\nmanual_cfg: [1, 1]",
            "list of numbers|finite",
        ),
        (
            "manual_ratios: [yes]\nmanual_temp: [1]\nmanual_samp_temp: [1, 1]\nmanual_cfg: [1, 1]",
            "list of numbers|finite",
        ),
        (
            "manual_ratios: [0x10]\nmanual_temp: [1]\nmanual_samp_temp: [1, 1]\nmanual_cfg: [1, 1]",
            "list of numbers|finite",
        ),
        (
            "manual_ratios: [[1]]\nmanual_temp: [1]\nmanual_samp_temp: [1, 1]\nmanual_cfg: [1, 1]",
            "list of numbers|finite",
        ),
        (
            "manual_ratios: [.nan]\nmanual_temp: [1]\nmanual_samp_temp: [1, 1]\nmanual_cfg: [1, 1]",
            "list of numbers|finite",
        ),
        (
            "manual_ratios: [~]\nmanual_temp: [1]\nmanual_samp_temp: [1, 1]\nmanual_cfg: [1, 1]",
            "list of numbers|finite",
        ),
        (
            "manual_ratios: [!!python/none x]\nmanual_temp: [1]\nmanual_samp_temp: [1, 1]\nmanual_cfg: [1, 1]",
            "list of numbers|finite",
        ),
        ("manual_ratios: [x]\nmanual_temp: [1]\nmanual_samp_temp: [1, 1]\nmanual_cfg: [1, 1]", "list of numbers"),
        ("manual_ratios: [1.5]\nmanual_temp: [1]\nmanual_samp_temp: [1, 1]\nmanual_cfg: [1, 1]", "re-masking ratio of"),
    ],
)
def test_a_wrong_file_gets_one_clear_line(tmp_path: Path, text: str | None, complaint: str) -> None:
    path = tmp_path / "strategy.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(AdaNATError, match=complaint) as caught:
        read_autonat(path)
    assert "\n" not in str(caught.value)


def test_one_wrong_value_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    for what, changed in mutations({name: [0.5, 0.5] for name in ACTION_NAMES}, sparse=3):
        path.write_text(as_json(changed))  # which is YAML, too
        try:
            assert len(read_table(path).table) == 2
        except AdaNATError as error:
            if "\n" in str(error):
                pytest.fail(f"{what}: {error}")
