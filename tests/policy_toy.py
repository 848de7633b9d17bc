"""A toy model with a feature network, and real images of its classes, for policy trainings of seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from adanat_cli.core.checkpoints.trees import load_tree
from adanat_cli.core.config import (
    DiscriminatorConfig,
    FeatureConfig,
    NATConfig,
    PolicyTrainingConfig,
    PPOConfig,
    data_config,
)
from adanat_cli.core.config.settings import PolicySettings
from adanat_cli.core.metrics.features import FeatureNetwork
from adanat_cli.core.nat.uvit import UViT
from tests.image_files import write_class_folder
from tests.nat_toy import CODEBOOK, make_model

CLASSES = ("one", "two", "zero")


def make_policy_toy(folder: Path) -> Path:
    """A model of 16 x 16 pixels and 4 x 4 tokens with untrained networks, and 24 images by class."""
    model = make_model(folder / "model")
    nat = NATConfig(
        codebook_size=CODEBOOK,
        grid=(4, 4),
        width=16,
        depth=2,
        num_heads=2,
        num_classes=3,
        tokenizer_fingerprint=model.fingerprint("tokenizer"),
    )
    network = UViT(nat)
    torch.nn.init.normal_(network.mlm_layer.bias)  # a fresh NAT would leave every id equally likely
    torch.nn.init.normal_(network.mlm_layer.fc.weight, std=0.5)
    model.write("nat", nat.to_dict(), network.state_dict())
    features = FeatureConfig(image_size=16, num_classes=3, channels=(16, 16))
    model.write("features", features.to_dict(), FeatureNetwork(features).state_dict())
    model.write_labels(dict(enumerate(CLASSES)))
    write_class_folder(folder / "images", 24, CLASSES, 16)
    return folder


def policy_request(folder: Path, output: str = "run", **changes: object) -> PolicySettings:
    """A request of a few updates, whose fields and training settings can be changed by name."""
    training = {
        "updates": 4,
        "trajectories": 12,
        "batch_size": 6,
        "eval_images": 12,
        "eval_every": 2,
        "show_every": 4,
        "save_every": 2,
        "precision": "fp32",
    }
    training |= {key: changes.pop(key) for key in list(changes) if key in PolicyTrainingConfig.__dataclass_fields__}
    fields = {
        "dataset": str(folder / "images"),
        "data": data_config(str(folder / "images"), image_size=1),
        "num_steps": 3,
        "kind": "adaptive",
        "training": PolicyTrainingConfig(**training),
        "ppo": PPOConfig(minibatch=12, epochs=2),
        "discriminator": DiscriminatorConfig(
            backbone="pyramid", updates=2, warmup_updates=1, batch_size=6, width=8, learning_rate=1e-3
        ),
        "policy": {"hidden_width": 16, "base_floor": 0.1},
        "base": "cosine",
        "output": folder / output,
        "model": str(folder / "model"),
        "workers": 0,
        "device": "cpu",
    }
    return PolicySettings(**{**fields, **changes})


def state(run: Path) -> dict[str, Any]:
    return load_tree(max((run / "checkpoints").glob("*.safetensors")))


def flat(tree: Any, name: str = "") -> dict[str, torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return {name: tree}
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return {key: value for child, node in children for key, value in flat(node, f"{name}/{child}").items()}


def same(first: Path, second: Path, tolerance: float = 0.0) -> bool:
    one, two = flat(state(first)), flat(state(second))
    return one.keys() == two.keys() and all(torch.allclose(one[key], two[key], rtol=0, atol=tolerance) for key in one)
