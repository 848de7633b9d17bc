"""From a model's name to its folder, and from a folder to networks that are ready to run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from adanat_cli.core.checkpoints.folder import ModelFolder, policy_component
from adanat_cli.core.checkpoints.hub import HubFolder
from adanat_cli.core.config import BENCHMARKS, Config, FeatureConfig, NATConfig, PolicyConfig, tokenizer_config
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.hub import HubId, looks_like_hub_id
from adanat_cli.jobs.resolve.registry import MODELS, PULLED, known_models

if TYPE_CHECKING:
    import torch

    from adanat_cli.core.metrics.features import FeatureNetwork
    from adanat_cli.core.nat.uvit import UViT
    from adanat_cli.core.policy.static import Policy
    from adanat_cli.core.tokenizer.base import Tokenizer

AnyConfig = TypeVar("AnyConfig", bound=Config)
DEFAULT_MODEL = "imagenet64"


def model_names() -> list[str]:
    """Names of the models that this installation carries."""
    return sorted(folder.name for folder in MODELS.glob("*") if ModelFolder(folder).exists())


def resolve_model(name_or_path: str) -> ModelFolder:
    """Find a model: a folder, a name, or a Hub id ``user/repo[@revision]``; "" is the default model.

    Of a model on the Hub only the index is fetched here; a component follows when it is read.

    Raises:
        AdaNATError: if there is no such model.
    """
    name = name_or_path or DEFAULT_MODEL
    if ModelFolder(MODELS / name).exists() and Path(name).name == name:
        return ModelFolder(MODELS / name)
    if Path(name).is_dir():
        folder = ModelFolder(Path(name))
        _ = folder.index  # says what is wrong with the folder, if anything
        return folder
    by_folder = {str(known.folder): known for known in known_models().values()}
    if known := known_models().get(name) or by_folder.get(str(Path(name))):
        folder = ModelFolder(known.folder)
        if folder.exists():
            return folder
        raise AdaNATError(f"{absent(known.name)}.")
    if looks_like_hub_id(name):
        return _from_hub(name)
    if not name_or_path:
        raise AdaNATError(
            "No --model was given, and this installation carries no model of its own; give a model folder, or make "
            "one with `adanat import` or `adanat pretrain-nat`."
        )
    names = ", ".join([*model_names(), *known_models()])
    raise AdaNATError(
        f"Model {name!r} is neither a folder nor a known name ({names}) nor a Hub id user/repo; give a folder that "
        "holds model_index.json, or make one with `adanat import`."
    )


def num_trained_on(folder: ModelFolder) -> int | None:
    """Images that a model's NAT was trained on; None where the model does not tell."""
    num_images = folder.index.provenance.get("nat", {}).get("num_images")
    return num_images if isinstance(num_images, int) and num_images > 0 else None


def is_absent(dataset: str, model: str) -> bool:
    """Whether the model of a data set is meant, by whatever name, and is not here."""
    place = PULLED / dataset
    return model in ("", dataset, str(place)) and dataset not in model_names() and not ModelFolder(place).exists()


def missing_parts(dataset: str, model: str, tokens: Path | None = None) -> dict[str, Any]:
    """What a plan says is not here yet: a benchmark's model, and the token set that a NAT is to be trained on."""
    missing = [absent(dataset)] if dataset in BENCHMARKS and is_absent(dataset, model) else []
    if tokens is not None and not tokens.exists() and not looks_like_hub_id(str(tokens)):
        missing.append(f"There is no token set {tokens} yet; `adanat tokenize` makes it")
    return {"missing": missing} if missing else {}


def absent(dataset: str) -> str:
    """Say that the model of a data set is not here, and where it can be had."""
    if dataset in known_models():
        return f"Model {dataset} is not here yet; fetch it with: adanat pull {dataset}"
    return f"No model of {dataset} is here; give its folder or Hub id with --model"


def _from_hub(name: str) -> HubFolder:
    try:
        return HubFolder(HubId.parse(name, "Model"))
    except AdaNATError as error:
        # The most common mistake with such a name is a folder's that is misspelt.
        raise AdaNATError(f"{error} There is no folder {name} here either.") from error


def read_config(folder: ModelFolder, component: str, build: Callable[[dict[str, Any], str], AnyConfig]) -> AnyConfig:
    """Read a component's configuration and hold it against the header of its weights; nothing is built yet.

    Args:
        folder: the model.
        component: such as "nat".
        build: ``from_dict`` of its class, or ``tokenizer_config``.

    Raises:
        AdaNATError: if the component is missing or damaged, or its weights cannot be of this configuration.
    """
    config = build(folder.config(component), str(folder.path / component / "config.json"))
    folder.header(component).check(config.sizes(), f"{folder.path}/{component}")
    return config


def nat_config(folder: ModelFolder) -> NATConfig:
    """Read the NAT's configuration and hold it against its weights and the tokenizer.

    Raises:
        AdaNATError: as ``read_config``, or if it knows tokens that the tokenizer does not.
    """
    nat = read_config(folder, "nat", NATConfig.from_dict)
    if folder.has("tokenizer"):
        tokenizer = read_config(folder, "tokenizer", tokenizer_config)
        known, grid = tokenizer.codebook_size, tokenizer.grid
        require(
            nat.codebook_size == known,
            f"The NAT of {folder.path} knows {nat.codebook_size} tokens, its tokenizer {known}; put them that belong "
            "together into one folder.",
        )
        require(
            nat.grid == grid,
            f"The NAT of {folder.path} makes {nat.grid[0]} x {nat.grid[1]} tokens, but images of its tokenizer are "
            f"{grid[0]} x {grid[1]} (image_size {tokenizer.image_size} of tokenizer/config.json); put them that belong "
            "together into one folder.",
        )
    return nat


def policy_config(folder: ModelFolder, num_steps: int) -> PolicyConfig:
    """Read the configuration of the policy for a step count and hold it against its weights and the NAT.

    Raises:
        AdaNATError: as ``read_config``, or if it is for another step count or NAT.
    """
    component = policy_component(num_steps)
    policy = read_config(folder, component, PolicyConfig.from_dict)
    shape = (policy.num_steps, policy.grid, policy.feature_width)
    expected = (num_steps, policy.grid, policy.feature_width)
    if folder.has("nat"):
        nat = read_config(folder, "nat", NATConfig.from_dict)
        expected = (num_steps, nat.grid, nat.width)
    require(
        shape == expected,
        f"{folder.path}/{component} is for {shape[0]} steps, a grid of {shape[1]} and features of width {shape[2]}; "
        f"expected {expected[0]}, {expected[1]} and {expected[2]}. Fetch or train it again.",
    )
    return policy


def load_tokenizer(folder: ModelFolder, device: torch.device | str = "cpu", image_size: int | None = None) -> Tokenizer:
    """Load the tokenizer: evaluation mode, float32.

    Args:
        folder: the model.
        device: where to put it.
        image_size: side of the images it will see; None for its own. It is fully convolutional.

    Raises:
        AdaNATError: if it is missing, damaged, or its weights do not fit its configuration.
    """
    from adanat_cli.core.checkpoints.strict import load_strict
    from adanat_cli.core.tokenizer.build import build_tokenizer

    tensors = folder.read("tokenizer")[1]
    config = read_config(folder, "tokenizer", tokenizer_config).replace(image_size=image_size)
    return load_strict(lambda: build_tokenizer(config), tensors, f"{folder.path}/tokenizer").to(device)


def load_nat(folder: ModelFolder, device: torch.device | str = "cpu") -> UViT:
    """Load the NAT: evaluation mode, float32.

    Raises:
        AdaNATError: if it is missing or damaged, its weights do not fit its configuration, or it was
            trained on the ids of another tokenizer than the folder's.
    """
    from adanat_cli.core.checkpoints.strict import load_strict
    from adanat_cli.core.nat.uvit import UViT

    tensors, config = folder.read("nat")[1], nat_config(folder)
    check_match(folder, "tokenizer", config.tokenizer_fingerprint, "NAT")
    return load_strict(lambda: UViT(config), tensors, f"{folder.path}/nat").to(device)


def load_policy(folder: ModelFolder, num_steps: int, device: torch.device | str = "cpu") -> Policy | None:
    """Load the policy for a step count: evaluation mode, float32; None if the model has none for it.

    Raises:
        AdaNATError: if it is damaged, its weights do not fit its configuration, or it was trained on
            another NAT than the folder's.
    """
    from adanat_cli.core.checkpoints.strict import load_strict
    from adanat_cli.core.policy.static import build_policy

    component = policy_component(num_steps)
    if not folder.has(component):
        return None
    tensors, config = folder.read(component)[1], policy_config(folder, num_steps)
    check_match(folder, "nat", config.nat_fingerprint, f"policy for {num_steps} steps")
    return load_strict(lambda: build_policy(config), tensors, f"{folder.path}/{component}").to(device)


def load_features(folder: ModelFolder, device: torch.device | str = "cpu") -> FeatureNetwork | None:
    """Load the feature network: evaluation mode, float32; None if the model has none.

    Raises:
        AdaNATError: if it is damaged, or its weights do not fit its configuration.
    """
    from adanat_cli.core.checkpoints.strict import load_strict
    from adanat_cli.core.metrics.features import FeatureNetwork

    if not folder.has("features"):
        return None
    tensors, config = folder.read("features")[1], read_config(folder, "features", FeatureConfig.from_dict)
    return load_strict(lambda: FeatureNetwork(config), tensors, f"{folder.path}/features").to(device)


def check_match(folder: ModelFolder, component: str, expected: str, reader: str) -> None:
    """Refuse a network that was trained on another component than the folder's.

    Args:
        folder: the model.
        component: whose weights ``expected`` is the fingerprint of; it may be absent.
        expected: fingerprint; "" if not known.
        reader: what was trained on the component, for the message.
    """
    if not expected or not folder.has(component):
        return
    actual = folder.fingerprint(component)
    if actual != expected:
        raise AdaNATError(
            f"The {reader} of {folder.path} was trained with {component} {expected[:12]}, but the folder holds "
            f"{component} {actual[:12]}; put them that belong together into one folder."
        )
