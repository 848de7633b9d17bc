"""The trainable parts of a projected discriminator: heads on frozen features, and the mapping of labels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

_GROUP_SIZE = 8
_EPSILON = 1e-5
_SPECTRAL_EPSILON = 1e-12
_MOMENT_EPSILON = 1e-8
_NEGATIVE_SLOPE = 0.2
_CONDITION_CHANNELS = 64
_KERNEL_SIZE = 9
_MAPPING_LAYERS = 8
_MAPPING_RATE = 0.01


def num_groups(batch_size: int, fewer: bool = False) -> int:
    """Return the number of groups of consecutive samples into which local batch norm divides a batch.

    Args:
        batch_size: B.
        fewer: where ceil(B / 8) does not divide B, take the largest smaller number that does, instead of failing.

    Raises:
        ValueError: if ceil(B / 8) does not divide B.
    """
    groups = math.ceil(batch_size / _GROUP_SIZE)
    if fewer:
        return next(count for count in range(groups, 0, -1) if batch_size % count == 0)
    if batch_size % groups:
        raise ValueError(f"A batch of {batch_size} cannot be divided into {groups} equal groups; pass fewer=True.")
    return groups


class BatchNormLocal(nn.Module):
    """Batch norm over small groups of consecutive samples, without running statistics.

    Training and evaluation compute the same, so a sample's score depends on its group.

    Source: StyleGAN-T (arXiv 2301.09515), section 3.2.
    """

    def __init__(self, width: int, fewer_groups: bool = False) -> None:
        """Initialise scale to one and shift to zero; for ``fewer_groups`` see ``num_groups``."""
        super().__init__()
        self.fewer_groups = fewer_groups
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, D, N) over positions and the samples of a group."""
        # Always in float32: the variance of few samples is a small difference of large numbers.
        grouped = rearrange(x.float(), "(g s) d n -> g s d n", g=num_groups(len(x), self.fewer_groups))
        variance, mean = torch.var_mean(grouped, dim=(1, 3), correction=0, keepdim=True)
        normalized = rearrange((grouped - mean) * (variance + _EPSILON).rsqrt(), "g s d n -> (g s) d n")
        return normalized * self.weight[:, None] + self.bias[:, None]


class SpectralConv1d(nn.Module):
    """A circular 1-d convolution whose weight is divided by an estimate of its largest singular value.

    The estimate's two vectors are part of the state, under the names of PyTorch's first implementation. Each
    forward pass in training mode updates them by one power iteration; evaluation leaves them as they are.

    Source: spectral normalisation (arXiv 1802.05957), section 2.
    """

    def __init__(self, width: int, out_width: int, kernel_size: int = 1) -> None:
        """Draw the weight as PyTorch's convolutions do, and the two vectors on the unit sphere."""
        super().__init__()
        self.padding = kernel_size // 2
        plain = nn.Conv1d(width, out_width, kernel_size)
        self.weight_orig = plain.weight
        self.bias = plain.bias
        self.weight_u: Tensor
        self.weight_v: Tensor
        self.register_buffer("weight_u", F.normalize(torch.randn(out_width), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.randn(width * kernel_size), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D, N) to (B, D_out, N)."""
        padded = F.pad(x, (self.padding, self.padding), mode="circular") if self.padding else x
        return F.conv1d(padded, self._normalized_weight(), self.bias)

    def _normalized_weight(self) -> Tensor:
        # Products in half precision would make the norm drift from step to step.
        with torch.autocast(self.weight_orig.device.type, enabled=False):
            matrix = self.weight_orig.flatten(1)  # (D_out, D * taps)
            if self.training:
                self._power_iteration(matrix.detach())
            # Copies: the next power iteration must not change what this forward pass saves for its gradient.
            u, v = self.weight_u.clone(), self.weight_v.clone()
            return self.weight_orig / torch.dot(u, matrix @ v)

    @torch.no_grad()
    def _power_iteration(self, matrix: Tensor) -> None:
        self.weight_v.copy_(F.normalize(matrix.T @ self.weight_u, dim=0, eps=_SPECTRAL_EPSILON))
        self.weight_u.copy_(F.normalize(matrix @ self.weight_v, dim=0, eps=_SPECTRAL_EPSILON))


class ScaledLinear(nn.Module):
    """A linear layer that stores its weight at unit variance and scales it when used (equalised learning rate).

    Source: Progressive GAN (arXiv 1710.10196), section 4.1.
    """

    def __init__(self, width: int, out_width: int, rate: float = 1.0) -> None:
        """Build the layer; ``rate`` is a factor on its learning rate under Adam."""
        super().__init__()
        self.gain = rate / math.sqrt(width)
        self.rate = rate
        self.weight = nn.Parameter(torch.randn(out_width, width) / rate)
        self.bias = nn.Parameter(torch.zeros(out_width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D) to (B, D_out)."""
        return F.linear(x, self.weight * self.gain, self.bias * self.rate)


class MappingNetwork(nn.Module):
    """Class labels to the vectors that condition the heads.

    Source: StyleGAN2-ADA (arXiv 2006.06676), the mapping network, without a latent.
    """

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embed = ScaledLinear(num_classes, width)
        for index in range(_MAPPING_LAYERS):
            self.add_module(f"fc{index}", ScaledLinear(width, width, _MAPPING_RATE))

    def forward(self, labels: Tensor) -> Tensor:
        """Map (B,) int64 labels to (B, C)."""
        x = self.embedding(labels)
        for index in range(_MAPPING_LAYERS):
            x = math.sqrt(2) * F.leaky_relu(self.get_submodule(f"fc{index}")(x), _NEGATIVE_SLOPE)
        return x

    def embedding(self, labels: Tensor) -> Tensor:
        """Map (B,) int64 labels to (B, C), of mean square one."""
        x = self.embed(F.one_hot(labels, self.num_classes).to(self.embed.weight.dtype))
        return x * (x.square().mean(1, keepdim=True) + _MOMENT_EPSILON).rsqrt()


class ResidualBlock(nn.Module):
    """Input plus branch, divided by sqrt(2) so that the variance stays the same."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D, N) to (B, D, N)."""
        return (x + self.fn(x)) / math.sqrt(2)


class DiscriminatorHead(nn.Module):
    """One logit for each position of one layer's features.

    The condition enters as an inner product (projection discriminator, arXiv 1802.05637). The names in the
    state dict are those of the authors' checkpoints.

    Source: StyleGAN-T (arXiv 2301.09515), section 3.2.
    """

    def __init__(self, width: int, condition_width: int = 0) -> None:
        """Build for features of width D and a condition of width C, 0 for none."""
        super().__init__()
        self.main = nn.Sequential(_conv_block(width, 1), ResidualBlock(_conv_block(width, _KERNEL_SIZE)))
        self.cmapper = ScaledLinear(condition_width, _CONDITION_CHANNELS) if condition_width else None
        self.cls = SpectralConv1d(width, _CONDITION_CHANNELS if condition_width else 1)

    def forward(self, features: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the (B, 1, N) logits of (B, D, N) features under a (B, C) condition."""
        projected = self.cls(self.main(features))
        if self.cmapper is None:
            return projected
        mapped = self.cmapper(condition)[:, :, None]  # (B, 64, 1)
        return (projected * mapped).sum(1, keepdim=True) / math.sqrt(_CONDITION_CHANNELS)


def _conv_block(width: int, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(
        SpectralConv1d(width, width, kernel_size),
        BatchNormLocal(width, fewer_groups=True),
        nn.LeakyReLU(_NEGATIVE_SLOPE),
    )
