"""From the name of a model or token set to its folder, and from a model folder to networks that are ready to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from adanat_cli.core.checkpoints.folder import ModelFolder, policy_component
from adanat_cli.core.checkpoints.hub import HubFolder, fetch_folder
from adanat_cli.core.checkpoints.token_identity import tokens_fingerprint
from adanat_cli.core.config import BENCHMARKS, Config, FeatureConfig, NATConfig, PolicyConfig, tokenizer_config
from adanat_cli.core.errors import AdaNATError, nearest, require
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
_COMPATIBLE = "put a compatible NAT and tokenizer into one folder"


class EmbeddedFolder(ModelFolder):
    """A model of this installation, known by name wherever that is."""

    @property
    def name(self) -> str:
        """The model's name in messages."""
        return self.path.name


def model_names() -> list[str]:
    """Names of the models that are embedded in this installation."""
    return sorted(folder.name for folder in MODELS.glob("*") if ModelFolder(folder).exists())


def resolve_model(name_or_path: str) -> ModelFolder:
    """Find a model by folder, name or Hub id ``user/repo[@revision]``; "" is the default model.

    Of a model on the Hub only the index is fetched here; components are fetched when they are read.

    Raises:
        AdaNATError: if there is no such model.
    """
    name = name_or_path or DEFAULT_MODEL
    if ModelFolder(MODELS / name).exists() and Path(name).name == name:
        return EmbeddedFolder(MODELS / name)
    if Path(name).is_dir():
        folder = ModelFolder(Path(name))
        _ = folder.index  # raises if it is not a model folder
        return folder
    by_folder = {str(known.folder): known for known in known_models().values()}
    if known := known_models().get(name) or by_folder.get(str(Path(name))):
        folder = ModelFolder(known.folder)
        if folder.exists():
            return folder
        raise AdaNATError(f"{absent(known.name)}.")
    if looks_like_hub_id(name):
        with _hub_id_or_folder(name):
            return HubFolder(HubId.parse(name, "Model"))
    if not name_or_path:
        raise AdaNATError(
            "No --model was given, and no model is embedded in this installation; give a model folder, or make one "
            "with `adanat import` or `adanat pretrain-nat`."
        )
    names = [*model_names(), *known_models()]
    meant = f"did you mean {nearest(name, names)}? If not, " if nearest(name, names) else ""
    raise AdaNATError(
        f"Model {name!r} is neither a folder nor a known name ({', '.join(names)}) nor a Hub id user/repo; {meant}"
        "give a folder with a model_index.json, or make one with `adanat import`."
    )


def resolve_tokens(tokens: Path) -> Path:
    """Find a token set: a folder, or a data set ``user/repo[@revision]`` on the Hub, which is fetched as a whole.

    Raises:
        AdaNATError: if it is on the Hub and cannot be fetched.
    """
    from adanat_cli.core.data.token_shards import SUMMARY

    name = str(tokens)
    if tokens.exists() or not looks_like_hub_id(name):
        return tokens
    files = ("tokens-*.parquet", "*.states.npy", "text/*.json", "text/*.safetensors", SUMMARY, "README.md")
    with _hub_id_or_folder(name):
        return fetch_folder(HubId.parse(name, "Token set"), files, "dataset")


@contextmanager
def _hub_id_or_folder(name: str) -> Iterator[None]:
    """Add to an error about a Hub id that there is no such folder: most often, the name of a folder was misspelt."""
    try:
        yield
    except AdaNATError as error:
        raise AdaNATError(f"{error} There is no folder {name} here either.") from error


def num_trained_on(folder: ModelFolder) -> int | None:
    """Number of images that a model's NAT was trained on; None if it is not recorded."""
    num_images = folder.index.provenance.get("nat", {}).get("num_images")
    return num_images if isinstance(num_images, int) and num_images > 0 else None


def is_absent(dataset: str, model: str) -> bool:
    """Whether ``model`` means the model of a data set, and that is not on this machine."""
    folder = PULLED / dataset
    return model in ("", dataset, str(folder)) and dataset not in model_names() and not ModelFolder(folder).exists()


def missing_parts(dataset: str, model: str, tokens: Path | None = None) -> dict[str, Any]:
    """What a plan lists as missing on this machine: a benchmark's model, and the token set to train a NAT on."""
    missing = [absent(dataset)] if dataset in BENCHMARKS and is_absent(dataset, model) else []
    if tokens is not None and not tokens.exists() and not looks_like_hub_id(str(tokens)):
        missing.append(f"There is no token set {tokens} yet; make it with `adanat tokenize`")
    return {"missing": missing} if missing else {}


def absent(dataset: str) -> str:
    """Say that the model of a data set is not on this machine, and how to get it."""
    if dataset in known_models():
        return f"Model {dataset} is not here yet; fetch it with: adanat pull {dataset}"
    return f"No model of {dataset} is here; give its folder or Hub id with --model"


def read_config(folder: ModelFolder, component: str, build: Callable[[dict[str, Any], str], AnyConfig]) -> AnyConfig:
    """Read a component's configuration and check it against the header of its weights; nothing is built yet.

    Args:
        folder: the model.
        component: name, such as "nat".
        build: ``from_dict`` of the configuration's class, or ``tokenizer_config``.

    Raises:
        AdaNATError: if the component is missing or damaged, or its weights do not fit the configuration.
    """
    config = build(folder.config(component), str(folder.path / component / "config.json"))
    folder.header(component).check(config.sizes(), f"{folder.path}/{component}")
    return config


def nat_config(folder: ModelFolder) -> NATConfig:
    """Read the NAT's configuration and check it against its weights and the tokenizer.

    Raises:
        AdaNATError: as ``read_config``, or if its codebook or grid is not the tokenizer's.
    """
    nat = read_config(folder, "nat", NATConfig.from_dict)
    if folder.has("tokenizer"):
        tokenizer = read_config(folder, "tokenizer", tokenizer_config)
        codebook_size, grid = tokenizer.codebook_size, tokenizer.grid
        require(
            nat.codebook_size == codebook_size,
            f"The NAT of {folder.name} has a codebook of {nat.codebook_size} tokens, but its tokenizer has "
            f"{codebook_size}; {_COMPATIBLE}.",
        )
        require(
            nat.grid == grid,
            f"The NAT of {folder.name} generates {nat.grid[0]} x {nat.grid[1]} tokens, but its tokenizer gives "
            f"{grid[0]} x {grid[1]} (image_size {tokenizer.image_size} in tokenizer/config.json); {_COMPATIBLE}.",
        )
    return nat


def policy_config(folder: ModelFolder, num_steps: int) -> PolicyConfig:
    """Read the configuration of the policy for a number of steps and check it against its weights and the NAT.

    Raises:
        AdaNATError: as ``read_config``, or if it is for another number of steps or another NAT.
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
        f"expected {expected[0]}, {expected[1]} and {expected[2]}; fetch or train it again.",
    )
    return policy


def load_tokenizer(folder: ModelFolder, device: torch.device | str = "cpu", image_size: int | None = None) -> Tokenizer:
    """Load the tokenizer: evaluation mode, float32.

    Args:
        folder: the model.
        device: device to load it to.
        image_size: side of the images in pixels; None for the tokenizer's own. It is fully convolutional.

    Raises:
        AdaNATError: if it is missing or damaged, or its weights do not fit its configuration.
    """
    from adanat_cli.core.checkpoints.strict import load_strict
    from adanat_cli.core.tokenizer.build import build_tokenizer

    tensors = folder.read("tokenizer")[1]
    config = read_config(folder, "tokenizer", tokenizer_config).replace(image_size=image_size)
    return load_strict(lambda: build_tokenizer(config), tensors, f"{folder.path}/tokenizer").to(device)


def load_nat(folder: ModelFolder, device: torch.device | str = "cpu") -> UViT:
    """Load the NAT: evaluation mode, float32.

    Raises:
        AdaNATError: if it is missing or damaged, its weights do not fit its configuration, or it was trained with
            another tokenizer than the folder's.
    """
    from adanat_cli.core.checkpoints.strict import load_strict
    from adanat_cli.core.nat.uvit import UViT

    tensors, config = folder.read("nat")[1], nat_config(folder)
    _check_match(folder, "tokenizer", config.tokenizer_fingerprint, "NAT")
    return load_strict(lambda: UViT(config), tensors, f"{folder.path}/nat").to(device)


def load_policy(folder: ModelFolder, num_steps: int, device: torch.device | str = "cpu") -> Policy | None:
    """Load the policy for a number of steps: evaluation mode, float32; None if the model has none for it.

    Raises:
        AdaNATError: if it is damaged, its weights do not fit its configuration, or it was trained with another NAT
            than the folder's.
    """
    from adanat_cli.core.checkpoints.strict import load_strict
    from adanat_cli.core.policy.static import build_policy

    component = policy_component(num_steps)
    if not folder.has(component):
        return None
    tensors, config = folder.read(component)[1], policy_config(folder, num_steps)
    _check_match(folder, "nat", config.nat_fingerprint, f"policy for {num_steps} steps")
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


def _check_match(folder: ModelFolder, component: str, expected: str, reader: str) -> None:
    """Refuse a network that was trained with another component than the folder's.

    Args:
        folder: the model.
        component: name; the folder may lack it.
        expected: fingerprint of its weights; "" if it is not recorded.
        reader: network that was trained with the component, for the message.
    """
    if not expected or not folder.has(component):
        return
    actual = tokens_fingerprint(folder) if component == "tokenizer" else folder.fingerprint(component)
    if actual != expected:
        raise AdaNATError(
            f"The {reader} of {folder.name} was trained with {component} {expected[:12]}, but the folder holds "
            f"{component} {actual[:12]}; put two that were trained together into one folder."
        )
