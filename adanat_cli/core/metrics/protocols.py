"""The field's protocols: image preprocessing and feature network.

Numbers of two protocols are never comparable, and none is better than another; a paper states its protocol.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adanat_cli.core.efficientnet import FEATURE_WIDTH, EfficientNet
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.metrics.extraction import Extraction
from adanat_cli.core.metrics.features import FeatureNetwork
from adanat_cli.core.metrics.inception import INPUT_SIZE, POOL_WIDTH, InceptionV3
from adanat_cli.core.metrics.resize import bilinear_tensorflow1, bilinear_torch
from adanat_cli.core.pretrained import Normalization

EFFICIENTNET_SIZE = 160
"""Pixels that the network of protocol efficientnet sees of each side of an image."""
CLEAN_FILE = "inception-2015-12-05.pt"
"""The name under which clean-fid looks for its network."""


class InceptionExtractor:
    """Protocols ``adm`` and ``paper``, both on the network of pytorch-fid's weights.

    ``adm`` is that of guided-diffusion's evaluator (Dhariwal and Nichol 2021, arXiv 2105.05233): bytes, TensorFlow 1's
    bilinear resizing, (x - 128) / 128. ``paper`` is that of the authors' code of AdaNAT (arXiv 2409.00342): the
    decoder's floats, PyTorch's bilinear resizing, 2x - 1.
    """

    name = "inception-fid"
    feature_width = POOL_WIDTH

    def __init__(self, protocol: Literal["adm", "paper"], network: InceptionV3, weights_hash: str) -> None:
        """Wrap a network in evaluation mode, on its device and in the number format of the computation."""
        self.protocol: str = protocol
        self.weights_hash = weights_hash
        self._network = network

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Extraction:
        """Return features, logits and spatial features of images of any size; see ``Extractor``."""
        weight = self._network.fc.weight
        # Half precision has too few digits for values between two bytes.
        dtype = torch.promote_types(weight.dtype, torch.float32)
        if self.protocol == "adm":
            pixels = as_bytes(images.to(weight.device)).to(dtype)
            inputs = (bilinear_tensorflow1(pixels, INPUT_SIZE) - 128) / 128
        else:
            inputs = 2 * bilinear_torch(as_floats(images.to(weight.device)).to(dtype), INPUT_SIZE) - 1
        if weight.device.type == "cpu":
            inputs = inputs.contiguous(memory_format=torch.channels_last)  # a fifth faster
        with without_tf32():
            pool, logits, spatial = self._network(inputs.to(weight.dtype))
        return Extraction(pool.float(), logits.float(), spatial.float())


class CleanExtractor:
    """Protocol ``clean``: clean-fid's own resizing and network (Parmar et al. 2022, arXiv 2104.11222).

    Images become bytes, are resized by PIL's bicubic filter, channel by channel and in floats, and go through the
    TorchScript form of the network, which has neither logits nor spatial features.
    """

    protocol = "clean"
    name = "inception-clean-fid"
    feature_width = POOL_WIDTH

    def __init__(self, folder: Path, weights_hash: str, device: torch.device | str = "cpu") -> None:
        """Load ``inception-2015-12-05.pt`` from a folder.

        Args:
            folder: folder of the file.
            weights_hash: sha256 of the file, in hexadecimal digits.
            device: device of the network.

        Raises:
            AdaNATError: if the file is damaged, or clean-fid cannot be imported.
        """
        self.weights_hash = weights_hash
        self._device = torch.device(device)
        try:
            from cleanfid.inception_torchscript import InceptionV3W
            from cleanfid.resize import build_resizer
        except (ImportError, RuntimeError) as error:
            # RuntimeError: torchvision, which clean-fid imports, was built for another PyTorch.
            raise AdaNATError(
                f"clean-fid cannot be imported ({error}); install clean-fid, and torchvision from the same index as "
                "PyTorch."
            ) from error
        self._resize = build_resizer("clean")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch.jit.load is deprecated, without an alternative
                self._network: nn.Module = InceptionV3W(str(folder), download=False).to(self._device).eval()
        except (OSError, RuntimeError, ValueError, AttributeError) as error:
            raise AdaNATError(
                f"{folder / CLEAN_FILE} cannot be loaded as clean-fid's network ({type(error).__name__}); fetch it "
                "again."
            ) from error

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Extraction:
        """Return features of images of any size; see ``Extractor``."""
        pixels = as_bytes(images).permute(0, 2, 3, 1).cpu().numpy()
        resized = np.stack([self._resize(image) for image in pixels])  # (B, 299, 299, 3), 0 to 255
        inputs = torch.from_numpy(resized).permute(0, 3, 1, 2).to(self._device)
        with warnings.catch_warnings(), without_tf32():
            warnings.simplefilter("ignore")
            return Extraction(self._network(inputs).float())


class TimmExtractor:
    """Protocol ``timm``: pooled features of any network of timm, such as DINOv2 (Stein et al. 2023, arXiv 2306.04675).

    Images become bytes, are resized without a crop to the network's input size, by its interpolation with
    antialiasing, and normalised by its mean and standard deviation.
    """

    protocol = "timm"

    def __init__(self, name: str, network: nn.Module, config: Mapping[str, Any], weights_hash: str) -> None:
        """Wrap a network that returns pooled features.

        Args:
            name: timm name.
            network: the network without its classifier (``num_classes=0``), in evaluation mode, on its device.
            config: ``timm.data.resolve_model_data_config(network)``.
            weights_hash: sha256 of its weights, in hexadecimal digits.

        Raises:
            AdaNATError: if the network does not return one vector for each image.
        """
        self.name, self.weights_hash, self._network = f"timm/{name}", weights_hash, network
        self._size = tuple(config["input_size"][1:])
        # PyTorch has no others, such as Lanczos.
        self._mode = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"
        parameter = next(network.parameters())
        self._dtype = parameter.dtype
        self._normalize = Normalization(config["mean"], config["std"]).to(parameter.device)
        features = self(torch.zeros(1, 3, *self._size, dtype=torch.uint8)).features
        require(
            features.ndim == 2,
            f"{self.name} returns features of shape {tuple(features.shape)} for one image; take a network that returns "
            "(1, D).",
        )
        self.feature_width = features.shape[1]

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Extraction:
        """Return features of images of any size; see ``Extractor``."""
        pixels = as_bytes(images.to(self._normalize.mean.device)).float() / 255
        resized = F.interpolate(pixels, self._size, mode=self._mode, align_corners=False, antialias=True).clamp(0, 1)
        with without_tf32():
            return Extraction(self._network(self._normalize(resized).to(self._dtype)).float())


class EfficientNetExtractor:
    """Protocol ``efficientnet``: EfficientNet-Lite1 (arXiv 1905.11946), trained on ImageNet-1k and offline.

    ``efficientnet-lite0`` is the same with EfficientNet-Lite0, for what is then measured by the other.

    Images become bytes and are resized without a crop to 160 x 160 pixels by PIL's bicubic filter (a = -1/2), in
    floats that are clipped to the range of bytes and not rounded. The filter spans four pixels where images grow, and
    is widened by the factor where they shrink, against aliasing. Then (x - 127) / 128, as the network was trained.
    """

    feature_width = FEATURE_WIDTH

    def __init__(self, network: EfficientNet) -> None:
        """Wrap a network on its device."""
        self.protocol = "efficientnet" if network.name.endswith("lite1") else "efficientnet-lite0"
        self.name, self.weights_hash, self._network = network.name, network.weights_hash, network

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Extraction:
        """Return features and logits, of ImageNet's 1,000 classes, of images of any size; see ``Extractor``."""
        pixels = as_bytes(images.to(next(self._network.parameters()).device)).float() / 255
        side = (EFFICIENTNET_SIZE, EFFICIENTNET_SIZE)
        resized = F.interpolate(pixels, side, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        with without_tf32():
            return Extraction(*self._network(resized))


class SmallExtractor:
    """Protocol ``small``: the feature network of a model's own folder, for images of its size, without a download."""

    protocol = "small"
    name = "features"

    def __init__(self, network: FeatureNetwork, weights_hash: str) -> None:
        """Wrap a network in evaluation mode, on its device."""
        self.weights_hash, self.feature_width = weights_hash, network.config.feature_width
        self._network = network

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Extraction:
        """Return features and logits of the network's own classes; see ``Extractor``.

        Raises:
            AdaNATError: if the images are not of the network's size.
        """
        device = next(self._network.parameters()).device
        features, logits = self._network(as_bytes(images.to(device)).float() / 255)
        return Extraction(features.float(), logits.float())


def as_bytes(images: Tensor) -> Tensor:
    """Return bytes: floats in [0, 1] rounded as in an image file, bytes unchanged."""
    return images if images.dtype == torch.uint8 else images.float().clamp(0, 1).mul(255).round().byte()


def as_floats(images: Tensor) -> Tensor:
    """Return floats: bytes as floats in [0, 1], floats unchanged."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


@contextmanager
def without_tf32() -> Iterator[None]:
    """Compute convolutions on GPUs in float32: the default, TF32, would be another protocol."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # cudnn.flags() would also turn cuDNN itself off
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
