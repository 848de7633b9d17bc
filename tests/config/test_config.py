"""Configurations check themselves and survive JSON."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import adanat_cli.core.config
from adanat_cli.core.config import (
    DATA_PRESETS,
    NAT_PRESETS,
    TRAINING_PRESETS,
    Config,
    DiscriminatorConfig,
    NATConfig,
    NATTrainingConfig,
    TokenizerTrainingConfig,
    VQAEConfig,
    VQGANConfig,
    data_config,
    nat_preset,
    tokenizer_config,
)
from adanat_cli.core.config.base import check_value
from adanat_cli.core.config.bench import BenchRequest
from adanat_cli.core.config.edit import EditRequest
from adanat_cli.core.config.reproduce import ReproduceRequest
from adanat_cli.core.config.requests import EvaluateRequest, SampleRequest, StatsRequest
from adanat_cli.core.config.schema import field_types
from adanat_cli.core.config.share_requests import ImportRequest, PushRequest
from adanat_cli.core.config.studio import StudioRequest
from adanat_cli.core.errors import AdaNATError

NAT = nat_preset("micro", codebook_size=64, grid=(8, 8), num_classes=10)


@pytest.mark.parametrize("config", [NAT, VQAEConfig(), VQGANConfig(), NATTrainingConfig(), data_config("digits")])
def test_json_gives_the_same_configuration_back(config: Config) -> None:
    values = json.loads(json.dumps(config.to_dict()))
    assert type(config).from_dict(values, "test") == config


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"width": "wide"}, "wrong type"),
        ({"grid": 8}, "wrong type"),
        ({"depth": 3}, "even number"),
        ({"num_heads": 5}, "not a multiple"),
        ({"colour": "blue"}, "unknown setting colour; known: "),
    ],
)
def test_a_bad_setting_is_one_line_that_names_its_file(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(AdaNATError, match=complaint) as caught:
        NATConfig.from_dict({**NAT.to_dict(), **changes}, "nat/config.json")
    assert "\n" not in str(caught.value)


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(AdaNATError, match="missing setting width"):
        NATConfig.from_dict({key: value for key, value in NAT.to_dict().items() if key != "width"}, "x")


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ("https://host/a/train-{0..1}.tar?X-Amz-Signature=c0ffee&Expires=1", "https://host/a/train-{0..1}.tar"),
        ("https://host/a.tar#c0ffee", "https://host/a.tar"),
        ("https://me:c0ffee@host/a.tar", "https://…@host/a.tar"),
        ("s3://me:c0ffee@host/a.tar?x=1/c0ffee", "s3://…@host/a.tar"),
    ],
)
def test_an_address_keeps_its_secrets_to_itself(secret: str, shown: str) -> None:
    config = data_config(secret, image_size=8).replace(split="validation")
    assert (config.source, config.address) == (shown, secret)
    assert "c0ffee" not in f"{config} {config.to_dict()} {AdaNATError(f'{secret} is not there.')}"


def test_every_preset_is_valid() -> None:
    for name in DATA_PRESETS:
        assert data_config(name).image_size > 0
    for name in NAT_PRESETS:
        assert nat_preset(name, codebook_size=1024, grid=(16, 16)).num_tokens == 256
    for row in TRAINING_PRESETS.values():
        assert NATTrainingConfig(**row["nat"]).steps > TokenizerTrainingConfig(**row["tokenizer"]).warmup_steps


def test_a_tokenizer_is_built_by_its_kind() -> None:
    assert tokenizer_config(VQGANConfig().to_dict(), "x").downsampling == 16
    assert tokenizer_config(VQAEConfig().to_dict(), "x").num_tokens == 64
    with pytest.raises(AdaNATError, match="kind 'magic'"):
        tokenizer_config({"kind": "magic"}, "x")


def test_the_rate_warms_up_and_decays() -> None:
    constant = NATTrainingConfig(steps=100, learning_rate=1.0, warmup_steps=10)
    assert [constant.learning_rate_at(step) for step in (0, 1, 6, 11, 99)] == [0, 0, 0.5, 1, 1]
    cosine = constant.replace(decay="cosine")
    assert cosine.learning_rate_at(50) == pytest.approx(0.5)
    assert cosine.learning_rate_at(100) == pytest.approx(0)


def test_an_own_source_needs_its_image_size() -> None:
    with pytest.raises(AdaNATError, match="--image-size"):
        data_config("my/images")
    assert data_config("my/images", image_size=32).image_size == 32


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (lambda: NATTrainingConfig(steps=0), r"^steps \(--updates\) is 0; expected at least 1\.$"),
        (lambda: DiscriminatorConfig(updates=0), r"updates \(--discriminator-updates\) is 0; expected at least 1\.$"),
        (lambda: data_config("a", image_size=8, num_classes=-1), r"^num_classes is -1; expected at least 0\.$"),
        (lambda: NATTrainingConfig(batch_size=0), r"^batch_size is 0; expected at least 1\.$"),
        (lambda: DiscriminatorConfig(augment="color,flip"), r"^Augmentation 'flip' is not known; expected some of"),
        (lambda: NATTrainingConfig(weight_decay=-1.0), r"^weight_decay is -1.0; expected at least 0\.$"),
        (
            lambda: TokenizerTrainingConfig(adversarial_weight=-1.0),
            r"^adversarial_weight is -1.0; expected at least 0\.$",
        ),
        (lambda: TokenizerTrainingConfig(adversarial_start=-1), r"^adversarial_start is -1; expected at least 0\.$"),
    ],
)
def test_a_value_out_of_bounds_names_the_flag_where_that_is_no_field(
    config: Callable[[], Config], complaint: str
) -> None:
    with pytest.raises(AdaNATError, match=complaint):
        config()


def test_a_seed_is_one_that_pytorch_takes_wherever_one_is_asked_for() -> None:
    package = adanat_cli.core.config
    names = [f"{package.__name__}.{found.name}" for found in pkgutil.iter_modules(package.__path__)]
    kinds = {kind for name in names for kind in vars(importlib.import_module(name)).values() if isinstance(kind, type)}
    seeded = [kind for kind in kinds if "seed" in getattr(kind, "__dataclass_fields__", {})]
    assert len(seeded) >= 10  # every command with --seed, and what its job settles
    for kind in seeded:
        hint = field_types(kind, include_extras=True)["seed"]
        for seed in (-1, 2**63):
            with pytest.raises(AdaNATError, match=f"^{kind.__name__} is {seed}; expected at least 0 and less than"):
                check_value(seed, hint, kind.__name__)


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (ReproduceRequest, {"name": "imagenet64", "seed": -1}, "^--seed is -1; expected at least 0"),
        (ReproduceRequest, {"name": "imagenet64", "precision": "fp16"}, "^--precision is 'fp16'; expected 'auto'"),
        (SampleRequest, {"image_format": "jpg"}, r"image_format \(--format\) is 'jpg'; expected 'png' or 'npz'"),
        (SampleRequest, {"precision": "fp16"}, "^--precision is 'fp16'; expected 'auto' or 'fp32' or 'bf16'"),
        (StatsRequest, {"dataset": "a", "output": Path("s.npz"), "seed": -1}, "seed is -1; expected at least 0"),
        (StudioRequest, {"port": 99999}, "^--port is 99999; expected at least 0 and at most 65,535"),
        *[
            (kind, {"seed": seed}, f"^--seed is {seed}; expected at least 0 and less than 9,223,372,036,854,775,808")
            for kind in (SampleRequest, EvaluateRequest, BenchRequest, partial(EditRequest, Path("a.png")))
            for seed in (-1, 2**63)
        ],
        (EvaluateRequest, {"precision": ""}, "precision is ''; expected"),
        (ImportRequest, {"files": (), "output": Path("m"), "kind": "gan"}, "kind is 'gan'; expected"),
        (PushRequest, {"source": "m", "repo": "a/b", "kind": "image"}, "kind .--tokens. is 'image'; expected"),
    ],
)
def test_a_request_from_python_takes_what_the_command_takes(
    kind: Callable[..., Any], fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(AdaNATError, match=words):
        kind(**fields)
