"""The policy network: from NAT features and a step index to raw action values, on any grid."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from adanat_cli.core.config import PolicyConfig

_FREQUENCIES = 256
_MAX_PERIOD = 10_000
_EPSILON = 1e-6


def timestep_embedding(timesteps: Tensor, width: int = _FREQUENCIES) -> Tensor:
    """Return the (B, width) sinusoidal embedding of (B,) step indices, cosines first."""
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps[:, None].float() * torch.exp(-math.log(_MAX_PERIOD) * exponents)  # (B, width / 2)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimestepEmbedder(nn.Module):
    """A sinusoidal embedding, then two linear layers with a SiLU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, timesteps: Tensor) -> Tensor:
        """(B,) step indices to (B, C)."""
        return self.mlp(timestep_embedding(timesteps))


class AdaptiveLayerNorm(nn.Module):
    """LayerNorm whose shift and scale depend on the timestep (DiT, arXiv 2212.09748, section 3.2)."""

    def __init__(self, width: int, condition_width: int) -> None:
        super().__init__()
        self.width = width
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(condition_width, 2 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalise (B, ..., D) over D; the condition, a timestep embedding, is (B, C)."""
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=-1)
        shape = (x.shape[0], *(1,) * (x.dim() - 2), self.width)
        normalized = F.layer_norm(x, (self.width,), eps=_EPSILON)
        return normalized * (1 + scale.view(shape)) + shift.view(shape)


class PolicyNetwork(nn.Module):
    """Raw action values of a decoding state or, with one output, its value.

    Untrained, it returns zeros. The names in its state dict are those of the authors' checkpoints; the
    order of the four outputs is ``ACTION_NAMES``.

    Source: AdaNAT (arXiv 2409.00342), the policy network, as in the authors' code, whose grid is always 16 x 16.
    """

    def __init__(self, config: PolicyConfig) -> None:
        """Build with fresh weights, drawn from PyTorch's global generator."""
        super().__init__()
        self.config = config
        width = config.hidden_width
        # 128, 1024 and 512 at the paper's width of 512.
        pointwise, first, second = max(1, width // 4), 2 * width, width
        num_cells = math.ceil(config.grid[0] / 2) * math.ceil(config.grid[1] / 2)  # after the stride of 2
        # As in the authors' checkpoints, features that already have the width enter as they are.
        self.x_embedder = nn.Linear(config.feature_width, width) if config.feature_width != width else None
        self.t_embedder = TimestepEmbedder(width)
        self.adaLN1 = AdaptiveLayerNorm(width, width)
        self.dw_conv = nn.Conv2d(width, width, 3, stride=2, padding=1, groups=width)
        self.pw_conv = nn.Conv2d(width, pointwise, 1)
        self.linear1 = nn.Linear(pointwise * num_cells, first)
        self.adaLN2 = AdaptiveLayerNorm(first, width)
        self.linear2 = nn.Linear(first, second)
        self.adaLN3 = AdaptiveLayerNorm(second, width)
        self.linear3 = nn.Linear(second, config.out_features)
        self._initialize()

    def forward(self, features: Tensor, timesteps: Tensor) -> Tensor:
        """Return (B, out_features) raw values, before residual, smoothing and activation.

        Args:
            features: (B, N, D), the NAT's features, row by row of the grid.
            timesteps: (B,), step index 0 … T - 1.
        """
        height, width = self.config.grid
        condition = self.t_embedder(timesteps)  # (B, C)
        x = features if self.x_embedder is None else self.x_embedder(features)
        x = rearrange(self.adaLN1(x, condition), "b (h w) c -> b c h w", h=height, w=width)
        x = F.gelu(self.pw_conv(F.gelu(self.dw_conv(x))))  # (B, C / 4, h / 2, w / 2)
        x = self.linear1(rearrange(x, "b c h w -> b (c h w)"))
        x = F.gelu(self.adaLN2(x, condition))
        x = F.gelu(self.adaLN3(self.linear2(x), condition))
        return self.linear3(x)

    def _initialize(self) -> None:
        """Xavier for linear layers, zeros for modulation and output; convolutions keep PyTorch's default."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for name, weight in self.named_parameters():
            if name.startswith("t_embedder") and weight.dim() == 2:
                nn.init.normal_(weight, std=0.02)
            elif "adaLN_modulation" in name or name.startswith("linear3"):
                nn.init.zeros_(weight)
