"""A file of settings is checked key by key, and what a plan prints is such a file."""

from __future__ import annotations

from typing import Any

import pytest

from adanat_cli.core.config import NATConfig, NATTrainingConfig
from adanat_cli.core.config.config_file import Command, as_config, config_file
from adanat_cli.core.config.settings import settled_config
from adanat_cli.core.errors import AdaNATError

NAT = NATConfig(codebook_size=16, grid=(4, 4), width=64, depth=2, num_heads=4, num_classes=3)


@pytest.mark.parametrize(
    ("command", "values", "words"),
    [
        ("pretrain-nat", [1], "a.yaml is of the wrong type: [1] instead of an object"),
        (
            "pretrain-nat",
            {"trainin": {}},
            "a.yaml: unknown setting trainin; did you mean training? Known: nat, training",
        ),
        ("pretrain-nat", {"batch_size": 8}, "a.yaml: unknown setting batch_size; it belongs below training."),
        (
            "pretrain-nat",
            {"ppo": {}},
            "a.yaml: unknown setting ppo, which is one of adanat train-policy; known here: nat",
        ),
        (
            "pretrain-nat",
            {"training": {"batch_sise": 8}},
            "training: unknown setting batch_sise; did you mean batch_size?",
        ),
        ("pretrain-nat", {"training": {"updates": 8}}, "training: unknown setting updates; did you mean steps?"),
        ("pretrain-nat", {"training": {"batch_size": "8"}}, "batch_size is of the wrong type: '8' instead of a whole"),
        ("pretrain-nat", {"training": {"batch_size": 0}}, "a.yaml: training: batch_size is 0; expected at least 1."),
        ("pretrain-nat", {"training": {"decay": "cos"}}, "decay is 'cos'; expected 'constant' or 'cosine'."),
        ("pretrain-nat", {"nat": {"grid": [0, 4]}}, "a.yaml: nat: grid is 0; expected at least 1"),
        ("pretrain-nat", {"data": {"image_size": 8}}, "data: unknown setting image_size. Known: captions_crc32"),
        (
            "train-tokenizer",
            {"tokenizer": {"kind": "vqgan"}},
            "tokenizer: kind is 'vqgan'; expected 'vqae' or 'pixels'.",
        ),
        ("train-tokenizer", {"tokenizer": {"patch": 2}}, "a.yaml: tokenizer: unknown setting patch"),
        ("train-policy", {"kind": "adaptiv"}, "a.yaml: kind is 'adaptiv'; expected 'adaptive' or 'static'"),
        ("train-policy", {"ppo": None}, "a.yaml: ppo is of the wrong type: null instead of an object"),
    ],
)
def test_a_mistake_names_file_key_value_and_what_was_expected(command: Command, values: Any, words: str) -> None:
    with pytest.raises(AdaNATError) as caught:
        config_file(values, "a.yaml", command)
    assert words in str(caught.value)


def test_what_no_single_field_shows_names_the_file_as_well() -> None:
    file = config_file({"training": {"steps": 5, "warmup_steps": 9}}, "a.yaml", "pretrain-nat")
    with pytest.raises(AdaNATError, match="warm-up of 9 updates is longer than the run of 5"):
        settled_config(NATTrainingConfig, {}, {}, file.part("training"), {})


def test_a_file_goes_before_a_saved_run_and_what_is_typed_before_the_file() -> None:
    file = config_file({"training": {"batch_size": 3, "seed": 3}}, "a.yaml", "pretrain-nat").part("training")
    row, saved, typed = ({"batch_size": 1, "seed": 1, "flip": 0.1}, {"batch_size": 2, "flip": 0.2}, {"seed": 4})
    settled = settled_config(NATTrainingConfig, row, saved, file, typed)
    assert (settled.batch_size, settled.seed, settled.flip) == (3, 4, 0.2)


def test_what_follows_from_the_data_is_no_setting_and_is_compared() -> None:
    recorded = {"nat": NAT.to_dict(), "data": {"source": "toy", "crc32": 5}, "from": {"model": "m", "weights": "w"}}
    file = config_file(recorded, "run/config.json", "pretrain-nat")
    assert file.part("nat").settings == {"width": 64, "depth": 2, "num_heads": 4, "mlp_ratio": 4, "dropout": 0.1}
    assert not file.part("data").settings
    assert file.record([]).difference(recorded) == ""
    others = {"nat": NAT.replace(num_classes=5, width=32).to_dict(), "data": {"source": "toy", "crc32": 6}}
    assert file.record(["nat.width"]).difference(others) == (
        "This is not a repetition of run/config.json: nat.num_classes is 3 there, 5 here, data.crc32 is 5 there, "
        "6 here."
    )


def test_settings_of_a_plan_are_a_file_without_what_follows_from_the_data() -> None:
    training = NATTrainingConfig(steps=7, warmup_steps=2, label_smoothing=0.2)
    plan = {"dataset": "toy", "nat": NAT.to_dict(), "training": training.to_dict(), "accumulate": 1}
    written = as_config(plan, "pretrain-nat")
    assert list(written) == ["nat", "training"]
    assert "grid" not in written["nat"]
    part = config_file(written, "a.yaml", "pretrain-nat").part("training")
    assert settled_config(NATTrainingConfig, {}, {}, part, {}) == training
