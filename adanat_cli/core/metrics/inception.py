"""The Inception-v3 of 2015, the field's usual feature network.

It is the network of TensorFlow's ``inception-2015-12-05.tgz``, written out here because it differs from the usual
Inception-v3 in its pooling, and because the usual TorchScript file has no spatial features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INPUT_SIZE = 299
POOL_WIDTH = 2048
NUM_LOGITS = 1008
SPATIAL_WIDTH = 17 * 17 * 7
_SPATIAL_CHANNELS = 7
_NORM_EPS = 1e-3

Kernel = tuple[int, int]
Convolution = tuple[int, Kernel | None]
"""Number of output channels, and kernel (height, width)."""
_FORK = None
"""As a kernel: a 1 x 3 and a 3 x 1 convolution of the same input, with those channels each, concatenated."""
Pool = Literal["mean", "max", "halve"]
"""The pooling path: 3 x 3 mean or max pooling before a 1 x 1 convolution, or max pooling with stride 2 alone."""


class InceptionOutput(NamedTuple):
    """The outputs of the network for a batch.

    Attributes:
        pool: (B, 2048), spatial means of the last layer, not negative; for FID, KID, precision and recall.
        logits: (B, 1008), without the head's bias, as usual for the Inception Score.
        spatial: (B, 2023), seven channels on a 17 × 17 grid, channel last; for sFID (Nash et al. 2021,
            arXiv 2103.03841).
    """

    pool: Tensor
    logits: Tensor
    spatial: Tensor


class InceptionV3(nn.Module):
    """The network of Szegedy et al. 2015 (arXiv 1512.00567) with the pooling of the released TensorFlow graph.

    Mean pooling excludes the padding, and the last block has max pooling. The names in the state dict are those of
    ``pt_inception-2015-12-05-6726825d.pth``, which follow torchvision's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _NormalizedConvolution(3, 32, (3, 3), stride=2)
        self.Conv2d_2a_3x3 = _NormalizedConvolution(32, 32, (3, 3), padded=False)
        self.Conv2d_2b_3x3 = _NormalizedConvolution(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = _NormalizedConvolution(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = _NormalizedConvolution(80, 192, (3, 3), padded=False)
        self.Mixed_5b = _grid_35(192, 32)
        self.Mixed_5c = _grid_35(256, 64)
        self.Mixed_5d = _grid_35(288, 64)
        self.Mixed_6a = _Mixed(
            288,
            {"branch3x3": [(384, (3, 3))], "branch3x3dbl": [(64, (1, 1)), (96, (3, 3)), (96, (3, 3))]},
            "halve",
        )
        self.Mixed_6b = _grid_17(128)
        self.Mixed_6c = _grid_17(160)
        self.Mixed_6d = _grid_17(160)
        self.Mixed_6e = _grid_17(192)
        self.Mixed_7a = _Mixed(
            768,
            {
                "branch3x3": [(192, (1, 1)), (320, (3, 3))],
                "branch7x7x3": [(192, (1, 1)), (192, (1, 7)), (192, (7, 1)), (192, (3, 3))],
            },
            "halve",
        )
        self.Mixed_7b = _grid_8(1280, "mean")
        self.Mixed_7c = _grid_8(2048, "max")
        self.fc = nn.Linear(POOL_WIDTH, NUM_LOGITS)

    def forward(self, images: Tensor) -> InceptionOutput:
        """Return features and logits.

        Args:
            images: (B, 3, 299, 299) in [-1, 1].
        """
        if images.shape[1:] != (3, INPUT_SIZE, INPUT_SIZE):
            raise ValueError(f"Images have shape {tuple(images.shape)}; expected (B, 3, {INPUT_SIZE}, {INPUT_SIZE}).")
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))  # (B, 64, 147, 147)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))  # (B, 192, 71, 71)
        x = F.max_pool2d(x, 3, stride=2)  # (B, 192, 35, 35)
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))  # (B, 768, 17, 17)
        x = self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x)))
        # The 1×1 path is the first in the concatenation.
        spatial = x[:, :_SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(self.Mixed_6e(x))))  # (B, 2048, 8, 8)
        pool = x.mean((2, 3))
        return InceptionOutput(pool, F.linear(pool, self.fc.weight), spatial)


class _NormalizedConvolution(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Kernel, stride: int = 1, padded: bool = True
    ) -> None:
        super().__init__()
        # Strided convolutions of this network are never padded.
        padding = (kernel[0] // 2, kernel[1] // 2) if padded and stride == 1 else (0, 0)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class _Mixed(nn.Module):
    """Parallel paths, concatenated in the order given, with the pooling path last."""

    def __init__(
        self, in_channels: int, paths: Mapping[str, Sequence[Convolution]], pool: Pool, pool_channels: int = 0
    ) -> None:
        """Build the paths; the convolutions of a path are named ``<path>``, or ``<path>_1``, ``_2``, … if several.

        Args:
            in_channels: channels of the block's input.
            paths: name to convolutions. Where the pooling halves the grid, so does the last convolution of each.
            pool: kind of pooling.
            pool_channels: output channels of the 1×1 convolution after the pooling; 0 for no convolution.
        """
        super().__init__()
        self.pool = pool
        self.steps = [self._add_path(name, in_channels, parts) for name, parts in paths.items()]
        if pool_channels:
            self.branch_pool = _NormalizedConvolution(in_channels, pool_channels, (1, 1))

    def _add_path(self, path: str, in_channels: int, parts: Sequence[Convolution]) -> list[list[str]]:
        """Build the convolutions of a path; return their names for each step, of which a fork has two."""
        steps: list[list[str]] = []
        for number, (channels, kernel) in enumerate(parts, start=1):
            name = path if len(parts) == 1 else f"{path}_{number}"
            kernels = {f"{name}a": (1, 3), f"{name}b": (3, 1)} if kernel is _FORK else {name: kernel}
            stride = 2 if self.pool == "halve" and number == len(parts) else 1
            for leaf, shape in kernels.items():
                self.add_module(leaf, _NormalizedConvolution(in_channels, channels, shape, stride))
            in_channels = channels
            steps.append(list(kernels))
        return steps

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for steps in self.steps:
            h = x
            for names in steps:
                h = torch.cat([self.get_submodule(name)(h) for name in names], 1)
            outputs.append(h)
        return torch.cat([*outputs, self._pooled(x)], 1)

    def _pooled(self, x: Tensor) -> Tensor:
        if self.pool == "halve":
            return F.max_pool2d(x, 3, stride=2)
        if self.pool == "max":
            return self.branch_pool(F.max_pool2d(x, 3, stride=1, padding=1))
        return self.branch_pool(F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False))


def _grid_35(in_channels: int, pool_channels: int) -> _Mixed:
    paths: dict[str, list[Convolution]] = {
        "branch1x1": [(64, (1, 1))],
        "branch5x5": [(48, (1, 1)), (64, (5, 5))],
        "branch3x3dbl": [(64, (1, 1)), (96, (3, 3)), (96, (3, 3))],
    }
    return _Mixed(in_channels, paths, "mean", pool_channels)


def _grid_17(channels: int) -> _Mixed:
    paths: dict[str, list[Convolution]] = {
        "branch1x1": [(192, (1, 1))],
        "branch7x7": [(channels, (1, 1)), (channels, (1, 7)), (192, (7, 1))],
        "branch7x7dbl": [
            (channels, (1, 1)),
            (channels, (7, 1)),
            (channels, (1, 7)),
            (channels, (7, 1)),
            (192, (1, 7)),
        ],
    }
    return _Mixed(768, paths, "mean", 192)


def _grid_8(in_channels: int, pool: Pool) -> _Mixed:
    paths: dict[str, list[Convolution]] = {
        "branch1x1": [(320, (1, 1))],
        "branch3x3": [(384, (1, 1)), (384, _FORK)],
        "branch3x3dbl": [(448, (1, 1)), (384, (3, 3)), (384, _FORK)],
    }
    return _Mixed(in_channels, paths, pool, 192)
