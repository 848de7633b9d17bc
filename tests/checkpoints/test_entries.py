"""Of all that a foreign file holds, the network is found, and its average is taken."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adanat_cli.core.checkpoints.convert import Network, identify
from adanat_cli.core.checkpoints.foreign import read_foreign
from adanat_cli.core.errors import AdaNATError

NAMES = ("encoder.conv_in.weight", "quantize.embedding.weight")
LIVE, AVERAGE = 1.0, 2.0


def state(value: float = LIVE, prefix: str = "", undotted: bool = False) -> dict[str, Tensor]:
    """What a VQGAN is known by; undotted as latent diffusion's programs name averages."""
    return {prefix + (name.replace(".", "") if undotted else name): torch.full((2,), value) for name in NAMES}


def found(tmp_path: Path, tree: Any, **wanted: Any) -> Network:
    torch.save(tree, tmp_path / "file.pth")
    return identify(read_foreign(tmp_path / "file.pth"), **wanted)


@pytest.mark.parametrize("name", ["ema", "nnet_ema", "params_ema", "model_ema", "state_dict_ema", "swa", "ema_model"])
@pytest.mark.parametrize("form", ["alone", "nested", "prefixed", "beside live weights", "prefix of names"])
def test_an_average_is_taken_wherever_it_lies(tmp_path: Path, name: str, form: str) -> None:
    tree: dict[str, Any] = {
        "alone": {name: state(AVERAGE), "epoch": 3},
        "nested": {name: {"decay": 0.99, "shadow": state(AVERAGE)}, "model": state()},
        "prefixed": {"state_dict": state(), name: state(AVERAGE, "module.")},
        "beside live weights": {"model": state(), name: state(AVERAGE), "optimizer": {"state": {0: torch.ones(2)}}},
        "prefix of names": state(LIVE, "net.") | state(AVERAGE, f"{name}."),
    }[form]
    network = found(tmp_path, tree)
    assert network.entry.split(".")[0] == name
    assert set(network.tensors) == set(NAMES)
    assert float(network.tensors[NAMES[0]][0]) == AVERAGE
    assert bool(network.passed_over) == (form != "alone")


def test_averages_without_dots_in_their_names_are_taken(tmp_path: Path) -> None:
    counters = {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(7)}
    for prefix in ("", "model."):
        tree = {"state_dict": state(LIVE, prefix) | state(AVERAGE, "model_ema.", undotted=True) | counters}
        network = found(tmp_path, tree)
        assert (network.entry, network.passed_over) == ("state_dict.model_ema", (f"state_dict.{prefix}".rstrip("."),))
        assert {name: float(tensor[0]) for name, tensor in network.tensors.items()} == dict.fromkeys(NAMES, AVERAGE)


@pytest.mark.parametrize(
    "prefixes",
    [order for size in (1, 2, 3) for order in itertools.permutations(("_orig_mod.", "model.", "module."), size)],
)
def test_prefixes_of_wrappers_are_removed_in_any_order(tmp_path: Path, prefixes: tuple[str, ...]) -> None:
    wrapped = {"n_averaged": torch.tensor(3), **state(LIVE, "".join(prefixes))}
    assert set(found(tmp_path, wrapped).tensors) == set(NAMES)


def test_wrappers_within_names_are_removed(tmp_path: Path) -> None:
    wrapped = {
        "_fsdp_wrapped_module.encoder._orig_mod.conv_in.weight": torch.ones(2),
        "quantize._checkpoint_wrapped_module._orig_mod.embedding.weight": torch.ones(2),
    }
    assert set(found(tmp_path, {"model": wrapped}).tensors) == set(NAMES)


@pytest.mark.parametrize("entry", ["module", "state_dict", "params", "net", "anything"])
def test_an_entry_needs_no_known_name(tmp_path: Path, entry: str) -> None:
    assert found(tmp_path, {entry: state(), "step": 4}).entry == entry


def test_what_trains_a_vqgan_beside_it_is_left_out_and_told(tmp_path: Path) -> None:
    extra = {"loss.discriminator.main.0.weight": torch.ones(2), "loss.logvar": torch.tensor(0.0)}
    network = found(tmp_path, {"state_dict": state() | extra, "callbacks": {"x": {"best": None}}})
    assert set(network.tensors) == set(NAMES)
    assert set(network.left_out) == set(extra)


def test_an_entry_can_be_chosen(tmp_path: Path) -> None:
    tree = {"model": state(), "model_ema": state(AVERAGE)}
    assert float(found(tmp_path, tree, entry="model").tensors[NAMES[0]][0]) == LIVE
    inner = {"state_dict": state() | state(AVERAGE, "model_ema.", undotted=True)}
    assert found(tmp_path, inner).entry == "state_dict.model_ema"
    assert found(tmp_path, inner, entry="state_dict").entry == "state_dict"
    flat = state() | {"ema": state(AVERAGE)}
    assert (found(tmp_path, flat).entry, found(tmp_path, flat, entry=".").entry) == ("ema", "")
    with pytest.raises(AdaNATError, match="no known network at best, but a VQGAN at model, a VQGAN at model_ema"):
        found(tmp_path, tree, entry="best")


def test_several_networks_without_an_order_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(AdaNATError, match="holds weights at ema_0_9, ema_0_99; choose one of them with --entry"):
        found(tmp_path, {"ema_0_9": state(), "ema_0_99": state(AVERAGE)})
    policy = {"dw_conv.weight": torch.ones(2), "linear3.weight": torch.ones(2)}
    with pytest.raises(AdaNATError, match=r"a VQGAN at tokenizer, a policy at actor; choose .* --entry or --kind"):
        found(tmp_path, {"tokenizer": state(), "actor": policy})
    assert found(tmp_path, {"tokenizer": state(), "actor": policy}, kind="policy").entry == "actor"


def test_mappings_that_lead_back_or_everywhere_are_seen_once(tmp_path: Path) -> None:
    tree: dict[str, Any] = {"model": state()}
    tree["again"] = tree
    wide: dict[str, Any] = {"a": state()}
    for _ in range(60):
        wide = {"a": wide, "b": wide}
    assert found(tmp_path, tree).entry == "model"
    both = found(tmp_path, {"model": tree["model"], "model_ema": tree["model"]})
    assert (both.entry, both.passed_over) == ("model_ema", ("model",))
    with pytest.raises(AdaNATError, match="holds no state dict"):
        found(tmp_path, wide)
