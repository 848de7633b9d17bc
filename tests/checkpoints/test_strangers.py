"""Model folders of strangers: one wrong value anywhere is one line, and never more than that."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from adanat_cli.commands.describe import model_lines
from adanat_cli.core.checkpoints.card import model_card, write_card
from adanat_cli.core.checkpoints.folder import ModelFolder, policy_component
from adanat_cli.core.config import (
    Config,
    FeatureConfig,
    NATConfig,
    PixelConfig,
    PolicyConfig,
    VQAEConfig,
    VQGANConfig,
)
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.metrics.features import FeatureNetwork
from adanat_cli.core.nat import UViT
from adanat_cli.core.policy.static import build_policy
from adanat_cli.core.tokenizer.build import build_tokenizer
from adanat_cli.jobs.resolve.models import load_features, load_nat, load_policy, load_tokenizer
from adanat_cli.jobs.share.info import describe
from tests.mutations import as_json, mutations

NAT = NATConfig(7, (4, 4), 8, 2, 2, num_classes=5)
TABLE = ((0.5, 1.0, 1.0, 1.0), (0.0, 1.0, 1.0, 1.0))
FILES = ["model_index.json", "labels.json"]
FILES += [f"{part}/config.json" for part in ("tokenizer", "nat", "policies/steps-2", "policies/steps-4", "features")]


def build(config: Config) -> nn.Module:
    if isinstance(config, NATConfig):
        return UViT(config)
    if isinstance(config, PolicyConfig):
        return build_policy(config)
    return FeatureNetwork(config) if isinstance(config, FeatureConfig) else build_tokenizer(config)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    folder = ModelFolder(tmp_path_factory.mktemp("model"))
    parts = {
        "tokenizer": VQAEConfig(16, 7, 3, (8, 16), 1),
        "nat": NAT,
        "policies/steps-2": PolicyConfig(8, (4, 4), 2, 6, schedule="table", schedule_table=TABLE),
        "policies/steps-4": PolicyConfig(8, (4, 4), 4, 6, kind="static"),
        "features": FeatureConfig(16, 5, (8, 12), 2),
    }
    for name, config in parts.items():
        folder.write(name, config.to_dict(), build(config).state_dict(), provenance={"distance": 1.5, "settings": {}})
    folder.write_labels({0: "tench", 3: "shark"})
    folder.put_results([{"metric": "fid", "value": 3.0, "num_images": 3}])
    return folder


def use(folder: ModelFolder) -> None:
    """Load what a sampling would."""
    load_tokenizer(folder)
    load_nat(folder)
    for num_steps in folder.policy_steps():
        load_policy(folder, num_steps)
    load_features(folder)


def refusal(folder: ModelFolder) -> str:
    """What `info` or the card says against a model; "" if nothing."""
    try:
        list(model_lines(describe(str(folder.path))))
        model_card(folder)
    except AdaNATError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("file", FILES)
def test_one_wrong_value_is_one_line_and_info_accepts_only_what_loads(model: ModelFolder, file: str) -> None:
    path = model.path / file
    whole = path.read_text()
    try:
        for what, changed in mutations(json.loads(whole), sparse=29):
            path.write_text(as_json(changed))
            if complaint := refusal(model):
                assert "\n" not in complaint, what
                assert len(complaint) < 1000, what
            elif file.endswith("config.json"):
                use(model)
    finally:
        path.write_text(whole)


SIZES: list[Config] = [
    NAT,
    NATConfig(11, (2, 3), 8, 4, 2, condition="text", text_width=7, text_length=9, mlp_ratio=2),
    VQAEConfig(16, 7, 3, (8, 16), 2),
    VQGANConfig(32, 7, 3, 32, (1, 1, 2), 2),
    PixelConfig(8, 27, colour=True),
    PolicyConfig(8, (2, 3), 4, 6),
    PolicyConfig(6, (5, 3), 4, 6, out_features=1),
    PolicyConfig(8, (4, 4), 4, 6, kind="static"),
    FeatureConfig(64, 5, (8, 12, 16), 2),
]


@pytest.mark.parametrize("config", SIZES, ids=lambda config: type(config).__name__)
def test_the_sizes_that_a_configuration_expects_are_those_of_its_network(tmp_path: Path, config: Config) -> None:
    folder = ModelFolder(tmp_path)
    folder.write("nat", config.to_dict(), build(config).state_dict())
    folder.header("nat").check(config.sizes(), "here")
    assert config.sizes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"depth": 1_000_000_000}, "depth is 1000000000; expected at least 1 and at most 1,000"),
        ({"width": 2**40}, "width is 1099511627776; expected at least 1"),
        ({"depth": 400}, "in_blocks is 1 instead of 200"),
        ({"width": 4096}, r"token_emb.* is \(8, 8\) instead of \(8, 4096\)"),
        ({"grid": [4, 8]}, r"position_embeddings.weight is \(16, 8\) instead of \(32, 8\)"),
        ({"grid": "x"}, "grid is of the wrong type: 'x' instead of a list of 2"),
        ({"num_classes": 1.5}, "num_classes is of the wrong type: 1.5 instead of a whole number"),
        ({"tokenizer_fingerprint": 5}, "fingerprint is of the wrong type: 5 instead of text"),
        ({"codebook_size": 9}, r"is \(8, 8\) instead of \(10, 8\)"),
    ],
)
def test_a_configuration_that_is_not_its_weights_builds_nothing(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    folder = ModelFolder(tmp_path)
    folder.write("nat", {**NAT.to_dict(), **changes}, UViT(NAT).state_dict())
    with pytest.raises(AdaNATError, match=words):
        load_nat(folder)
    with pytest.raises(AdaNATError, match=words):
        describe(str(folder.path))


def test_labels_beyond_the_classes_are_refused(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    folder.write("nat", NAT.to_dict(), UViT(NAT).state_dict())
    folder.write_labels({5: "too many"})
    with pytest.raises(AdaNATError, match=r"names class 5, but the NAT .* has 5"):
        folder.labels()


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    folder, policy = ModelFolder(tmp_path), PolicyConfig(8, (4, 4), 4, 6)
    folder.write("nat", NAT.to_dict(), UViT(NAT).state_dict())
    folder.write(policy_component(6), policy.to_dict(), build(policy).state_dict())
    with pytest.raises(AdaNATError, match=r"is for 4 steps, .* expected 6"):
        load_policy(folder, 6)
    tokenizer = VQAEConfig(16, 8, 3, (8, 16), 1)
    folder.write("tokenizer", tokenizer.to_dict(), build(tokenizer).state_dict())
    with pytest.raises(AdaNATError, match="codebook of 7 tokens, but its tokenizer has 8"):
        load_nat(folder)


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.bool])
def test_weights_of_no_floats_are_refused_without_reading_them(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = ModelFolder(tmp_path)
    folder.write("nat", NAT.to_dict(), {name: tensor.to(dtype) for name, tensor in UViT(NAT).state_dict().items()})
    with pytest.raises(AdaNATError, match="expected floating-point numbers"):
        describe(str(folder.path))


def test_a_folder_whose_name_is_not_utf8_is_read(tmp_path: Path) -> None:
    folder = ModelFolder(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.write("nat", NAT.to_dict(), UViT(NAT).state_dict())
    assert load_nat(folder).config == NAT


def test_pipes_in_the_place_of_files_are_not_waited_for(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    folder.write("nat", NAT.to_dict(), UViT(NAT).state_dict())
    for name in ("nat/model.safetensors", "nat/config.json", "labels.json", "README.md"):
        kept = (tmp_path / name).read_bytes() if (tmp_path / name).exists() else b""
        (tmp_path / name).unlink(missing_ok=True)
        os.mkfifo(tmp_path / name)
        with pytest.raises(AdaNATError):
            print(folder.read("nat"), folder.labels(), folder.card())
        (tmp_path / name).unlink()
        (tmp_path / name).write_bytes(kept or b"{}")


def test_names_that_are_no_text_are_escaped_in_what_is_stored(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    folder.write(
        "nat", NAT.to_dict(), UViT(NAT).state_dict(), provenance={"data": "\udcff", "settings": {"a": "\udcff"}}
    )
    folder.write_labels({0: "caf\udce9"})
    folder.put_results([{"metric": "fid", "value": float("inf"), "dataset": "\udcff"}])
    assert folder.labels() == {0: "caf\udce9"}
    assert folder.index.results[0]["value"] is None
    assert write_card(folder)
    card = (tmp_path / "README.md").read_text("utf-8")
    assert r"\udcff" in card
    assert not {"None", "null"} & set(card.split())
    for file in tmp_path.rglob("*.json"):
        file.read_text("utf-8")
