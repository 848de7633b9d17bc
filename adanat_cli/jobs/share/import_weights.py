"""Convert the authors' weight files into the components of a model folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adanat_cli.core.checkpoints import convert
from adanat_cli.core.checkpoints.card import write_card
from adanat_cli.core.checkpoints.entries import shown
from adanat_cli.core.checkpoints.folder import Component, ModelFolder, policy_component
from adanat_cli.core.checkpoints.foreign import ForeignWeights, read_foreign
from adanat_cli.core.checkpoints.lock import is_empty
from adanat_cli.core.checkpoints.strict import check_weights
from adanat_cli.core.config import Config, NATConfig, TokenizerConfig, tokenizer_config
from adanat_cli.core.config.share_requests import ImportRequest
from adanat_cli.core.errors import AdaNATError, printable, require
from adanat_cli.core.nat import UViT
from adanat_cli.core.policy import PolicyNetwork
from adanat_cli.core.tokenizer.vqgan import VQGAN
from adanat_cli.jobs.resolve.models import nat_config, read_config
from adanat_cli.jobs.runtime.output_lock import holds_output
from adanat_cli.jobs.runtime.reporter import Reporter

if TYPE_CHECKING:
    from torch import Tensor, nn

_PUBLISHED_IMAGE_SIZE, _PUBLISHED_DOWNSAMPLING = 256, 16
_ADAGEN_SMOOTHING = 0.8
_IMAGENET_CLASSES = 1000
_TIED = 2
"""Largest ratio of a network's bytes to its file's: a file stores tied weights once, the network has them twice."""


@dataclass(frozen=True)
class _File:
    """A file, and the network to import from it."""

    weights: ForeignWeights
    network: convert.Network

    @property
    def source(self) -> str:
        """The file's name for messages."""
        return str(self.weights.path)


@dataclass
class _Parts:
    """Configurations of the model after the import."""

    image_size: int
    tokenizer: TokenizerConfig | None = None
    nat: NATConfig | None = None


@holds_output
def import_weights(request: ImportRequest, reporter: Reporter) -> dict[str, Any]:
    """Convert the files and write their networks into the model folder, all or none.

    Returns:
        The folder, its image size, and per component its kind, file, sha256, number of parameters and
        configuration.

    Raises:
        AdaNATError: if a file is not a known network, the networks are not compatible, or the folder cannot be
            written.
    """
    folder = ModelFolder(request.output)
    check_output(folder)
    files = [_identify(path, request) for path in request.files]
    parts = _existing_parts(folder, request, {file.network.kind for file in files})
    components = []
    # The NAT first: its grid gives the image size of the tokenizer and the grid of the policies.
    for kind in ("nat", "vqgan", "policy"):
        for file in (file for file in files if file.network.kind == kind):
            component = {"nat": _nat, "vqgan": _vqgan, "policy": _policy}[kind](file, request, parts, reporter)
            reporter.log(f"{file.weights.path.name}: {_summary(component, file.network)}")
            components.append(replace(component, provenance={**component.provenance, **request.origin}))
    _check_compatible(components, folder, request, parts)
    image_size = parts.tokenizer.image_size if parts.tokenizer else parts.image_size
    folder.write_all(components, image_size=image_size)
    if parts.nat and parts.nat.condition == "class" and not folder.labels():
        _write_labels(folder, parts.nat.num_classes, reporter)
    write_card(folder)
    return {
        "model": str(folder.path),
        "image_size": image_size,
        "components": [
            {
                "component": component.name,
                **component.provenance,
                "parameters": sum(tensor.numel() for tensor in component.tensors.values()),
                "config": dict(component.config),
            }
            for component in components
        ],
    }


def check_output(folder: ModelFolder) -> None:
    """Refuse a folder of other files as the output of a model.

    Raises:
        AdaNATError: if the folder is neither new, empty nor a model folder.
    """
    if folder.exists():
        _ = folder.index
    elif folder.path.exists() and (not folder.path.is_dir() or not is_empty(folder.path)):
        raise AdaNATError(
            f"{folder.path} is not a model folder and is not empty; choose a new or empty --output, or a model folder."
        )


def _identify(path: Path, request: ImportRequest) -> _File:
    weights = read_foreign(path)
    network = convert.identify(weights, None if request.kind == "auto" else request.kind, request.entry)
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in network.tensors.values())
    require(
        num_bytes <= _TIED * path.stat().st_size,
        f"{path} lists {num_bytes / 1e9:,.1f} GB of weights, more than the file can hold; give another file.",
    )
    return _File(weights, network)


def _existing_parts(folder: ModelFolder, request: ImportRequest, kinds: set[convert.Kind]) -> _Parts:
    """Configurations of the folder's networks that are not going to be replaced."""
    if not folder.exists():
        return _Parts(request.image_size or 0)
    parts = _Parts(request.image_size or folder.index.image_size)
    if folder.has("tokenizer") and "vqgan" not in kinds:
        parts.tokenizer = read_config(folder, "tokenizer", tokenizer_config)
    if folder.has("nat") and "nat" not in kinds:
        parts.nat = nat_config(folder)
    return parts


def _nat(file: _File, request: ImportRequest, parts: _Parts, _: Reporter) -> Component:
    tensors = file.network.tensors
    parts.nat = convert.nat_config(tensors, request.num_heads, file.source)
    return _component("nat", parts.nat, UViT, tensors, file)


def _vqgan(file: _File, request: ImportRequest, parts: _Parts, _: Reporter) -> Component:
    tensors, source = convert.vqgan_tensors(file.network.tensors), file.source
    downsampling = 2 ** (convert.num_vqgan_levels(tensors) - 1)
    by_grid = parts.nat.grid[0] * downsampling if parts.nat else parts.image_size
    config = convert.vqgan_config(tensors, request.image_size or by_grid or _PUBLISHED_IMAGE_SIZE, source)
    parts.tokenizer = config
    return _component("tokenizer", config, VQGAN, tensors, file)


def _policy(file: _File, request: ImportRequest, parts: _Parts, reporter: Reporter) -> Component:
    num_steps = _policy_steps(file, request, reporter)
    layout = file.network.layout
    bare = layout == "bare"
    # AdaNAT's programs call the residual "heu", off by default; AdaGen's policies always have it.
    residual = bare or _argument(file, "heu") == 1
    smoothing = _ADAGEN_SMOOTHING if bare else 0.0
    tensors = convert.policy_tensors(file.network.tensors)
    config = convert.policy_config(
        tensors,
        num_steps,
        residual if request.residual is None else request.residual,
        smoothing if request.smoothing is None else request.smoothing,
        parts.nat.grid if parts.nat else None,
        file.source,
    )
    return _component(policy_component(num_steps), config, PolicyNetwork, tensors, file, layout=layout)


def _policy_steps(file: _File, request: ImportRequest, reporter: Reporter) -> int:
    """T of a policy: as requested, else as recorded by its training."""
    recorded = _argument(file, "gen_steps")
    if request.num_steps is None:
        if recorded is None or recorded < 1:
            raise AdaNATError(
                f"{file.source} is a policy whose number of steps is not recorded; give --steps (AdaNAT's ImageNet "
                "policies: 8; AdaGen's MaskGIT policy: 16)."
            )
        return recorded
    if recorded not in (None, request.num_steps):
        reporter.warn(
            f"{file.source} was trained for {recorded} steps according to its gen_steps, but is imported for "
            f"{request.num_steps} because of --steps."
        )
    return request.num_steps


def _argument(file: _File, name: str) -> int | None:
    """An integer setting that a training program stored in the file; None if there is none of this name."""
    value = file.weights.arguments.get(name)
    return int(value) if isinstance(value, int) else None


def _component(
    name: str,
    config: Config,
    network: Callable[[Any], nn.Module],
    tensors: dict[str, Tensor],
    file: _File,
    **provenance: Any,
) -> Component:
    """Check the weights against the network, name by name, and record their origin."""
    kind, entry = file.network.kind, file.network.entry
    tensors = {name: convert.widened(tensor) for name, tensor in tensors.items()}
    check_weights(lambda: network(config), tensors, f"{file.source} ({kind})")
    origin = {"kind": kind, "file": printable(file.weights.path.name), "sha256": file.weights.sha256}
    origin |= {"entry": shown(entry)} if entry else {}
    return Component(name, config.to_dict(), tensors, {**origin, **provenance})


def _check_compatible(
    components: Sequence[Component], folder: ModelFolder, request: ImportRequest, parts: _Parts
) -> None:
    """Refuse incompatible networks, two files for one component, and replacing one without ``--replace``."""
    names = [component.name for component in components]
    for name in names:
        require(names.count(name) == 1, f"Two of the files are a {name}, but a model has one; give one of them.")
        present = folder.exists() and folder.has(name)
        require(
            request.replace or not present,
            f"Model {folder.path} already has {name}; add --replace to replace it, or choose another --output.",
        )
    tokenizer, nat = parts.tokenizer, parts.nat
    if tokenizer and request.image_size not in (None, tokenizer.image_size):
        raise AdaNATError(
            f"--image-size is {request.image_size}, but the model's tokenizer is for {tokenizer.image_size}; "
            "leave --image-size out."
        )
    if tokenizer and nat:
        require(
            (tokenizer.codebook_size, tokenizer.grid) == (nat.codebook_size, nat.grid),
            f"The NAT is for {nat.codebook_size} codes on a {nat.grid[0]} x {nat.grid[1]} grid, but the tokenizer has "
            f"{tokenizer.codebook_size} codes on {tokenizer.grid[0]} x {tokenizer.grid[1]} at {tokenizer.image_size} "
            "pixels; give compatible files, or another --image-size.",
        )
    if not tokenizer and nat and not parts.image_size:
        parts.image_size = nat.grid[0] * _PUBLISHED_DOWNSAMPLING
    for component in components:
        if component.provenance["kind"] == "policy" and nat:
            width = component.config["feature_width"]
            require(
                width == nat.width,
                f"The policy reads features of width {width}, but the NAT's have width {nat.width}; import it into the "
                "model that it was trained with.",
            )


def _summary(component: Component, network: convert.Network) -> str:
    """One line about what was found and which part of it was imported."""
    num_parameters = sum(tensor.numel() for tensor in component.tensors.values())
    line = f"{network.kind}, {num_parameters:,} parameters, becomes {component.name}"
    if network.entry:
        line += f"; taken from {shown(network.entry)}"
    if network.passed_over:
        line += f", not from {', '.join(map(shown, network.passed_over[:3]))} (choose with --entry)"
    if network.left_out:
        line += f"; {len(network.left_out)} other entries are left out, such as {shown(network.left_out[0])}"
    return line


def _write_labels(folder: ModelFolder, num_classes: int, reporter: Reporter) -> None:
    """Write ImageNet's class names for a model with its number of classes."""
    if num_classes != _IMAGENET_CLASSES:
        return
    try:
        from timm.data import ImageNetInfo
    except (ImportError, RuntimeError) as error:  # a torchvision for another torch raises RuntimeError
        reporter.warn(f"Class names are left out because timm cannot be imported: {error}.")
        return
    imagenet = ImageNetInfo()
    # The first of the synonyms that ImageNet lists.
    names = {index: imagenet.index_to_description(index).split(",")[0] for index in range(num_classes)}
    folder.write_labels(names)
