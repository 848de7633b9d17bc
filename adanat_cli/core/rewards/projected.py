"""The projected discriminator: small conditional heads on the features of a frozen network."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adanat_cli.core.errors import require
from adanat_cli.core.rewards.backbones import Backbone
from adanat_cli.core.rewards.heads import DiscriminatorHead, MappingNetwork

_CROP_PROBABILITY = 0.5
_BACKBONE = "backbone."
_TRANSFORMER, _REFERENCE_TRANSFORMER = "backbone.model.", "dino.model.model."


def draw_crop(height: int, width: int, generator: torch.Generator, size: int) -> tuple[int, int] | None:
    """Decide at random whether a batch is cropped, with probability 0.5, and where.

    Args:
        height: H of the images, in pixels.
        width: W of the images, in pixels.
        generator: on any device.
        size: side of the square crop in pixels; 0 for no crops.

    Returns:
        Row and column of the crop's top left corner, or None for the whole images, as always for smaller images.
    """
    coin, row, column = torch.rand(3, generator=generator, device=generator.device).tolist()
    if coin >= _CROP_PROBABILITY or min(height, width) < size or not size:
        return None
    return int(row * (height - size + 1)), int(column * (width - size + 1))


class ProjectedDiscriminator(nn.Module):
    """Distinguish real from generated images by the features of several layers of a frozen backbone.

    Only the heads and the mapping of the labels learn.

    Source: StyleGAN-T (arXiv 2301.09515), section 3.2, as AdaNAT (arXiv 2409.00342) uses it.
    """

    def __init__(
        self, backbone: Backbone, num_classes: int = 0, text_width: int = 0, condition_width: int = 512
    ) -> None:
        """Initialise heads and mapping from PyTorch's global generator.

        Args:
            backbone: the frozen feature network.
            num_classes: number of classes if labels are the condition, else 0.
            text_width: width of the pooled text embedding if it is the condition, else 0.
            condition_width: C, width of a mapped label.

        Raises:
            ValueError: if both labels and text are the condition.
        """
        super().__init__()
        if num_classes and text_width:
            raise ValueError("The condition is a label or a text, not both.")
        self.backbone = backbone
        self.mapping = MappingNetwork(num_classes, condition_width) if num_classes else None
        self.text_width = text_width
        width = condition_width if num_classes else text_width
        self.heads = nn.ModuleList(DiscriminatorHead(features, width) for features in backbone.widths)

    def forward(self, images: Tensor, condition: Tensor | None, crop: tuple[int, int] | None = None) -> Tensor:
        """Return the logits of a batch.

        Local batch norm mixes neighbouring samples, so logits depend on the batch. In training mode each call
        updates the heads' spectral norms by one power iteration.

        Args:
            images: (B, 3, H, W) in [0, 1].
            condition: (B,) int64 labels, (B, D_text) pooled text embeddings, or None.
            crop: top left corner of a crop, see ``draw_crop``; None for the whole images.

        Returns:
            (B, L) logits of all positions of all layers, higher for real: L = 980 with DINO's ViT-S/16.
        """
        return self.logits(self.backbone.features(images, crop), condition)

    def logits(self, features: list[Tensor], condition: Tensor | None) -> Tensor:
        """Return the (B, L) logits of features, which may be cached: they do not change while the heads learn."""
        if self.mapping is not None:
            condition = self.mapping(condition)
        elif self.text_width and condition is not None:
            condition = F.normalize(condition.float(), dim=-1)
        logits = [head(layer, condition) for head, layer in zip(self.heads, features, strict=True)]  # (B, 1, N) each
        return torch.cat(logits, dim=2).squeeze(1)

    def trainable_state(self) -> dict[str, Tensor]:
        """Return the state dict without the backbone: what a run has to save."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(_BACKBONE)}

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Load what ``trainable_state`` returned, or the authors' weights; a backbone among them is ignored.

        Raises:
            AdaNATError: if a name is missing or unknown, or a shape differs.
        """
        renamed = from_reference(state)
        given = {name: tensor for name, tensor in renamed.items() if not name.startswith(_BACKBONE)}
        own = self.trainable_state()
        differing = sorted(own.keys() ^ given.keys()) or [name for name in own if own[name].shape != given[name].shape]
        require(
            not differing,
            f"Discriminator weights do not fit the network: {', '.join(differing[:3])} (of {len(differing)} that "
            "differ); expected those of a discriminator with the same condition and backbone.",
        )
        self.load_state_dict(given, strict=False)


def from_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the authors' discriminator weights, with or without the distributed wrapper's prefix, to ours."""
    renamed = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return {name.replace(_REFERENCE_TRANSFORMER, _TRANSFORMER, 1): tensor for name, tensor in renamed.items()}
