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
    """Decide by the toss of a coin whether a batch is cropped, and where.

    Args:
        height: H of the images.
        width: W of the images.
        generator: of any device.
        size: of the square crop; 0 for none ever.

    Returns:
        Row and column of the crop's corner, or None for the whole image, which is also what smaller images get.
    """
    coin, row, column = torch.rand(3, generator=generator, device=generator.device).tolist()
    if coin >= _CROP_PROBABILITY or min(height, width) < size or not size:
        return None
    return int(row * (height - size + 1)), int(column * (width - size + 1))


class ProjectedDiscriminator(nn.Module):
    """Real or generated, told from the features of several layers of a frozen backbone.

    Only the heads and the mapping of the labels learn.

    Source: StyleGAN-T (arXiv 2301.09515), as AdaNAT (arXiv 2409.00342) uses it.
    """

    def __init__(
        self, backbone: Backbone, num_classes: int = 0, text_width: int = 0, condition_width: int = 512
    ) -> None:
        """Draw heads and mapping from PyTorch's global generator.

        Args:
            backbone: frozen.
            num_classes: of the labels that are the condition; 0 for none.
            text_width: of the pooled text embedding that is the condition; 0 for none.
            condition_width: of what the mapping makes of a label.

        Raises:
            ValueError: if labels and text are both to be the condition.
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
        """Judge a batch.

        Local batch norm mixes neighbours, so logits depend on who shares the batch. In training mode every
        call moves the heads' spectral norms by one power step.

        Args:
            images: (B, 3, H, W) in [0, 1].
            condition: (B,) int64 labels, (B, D_text) pooled text embeddings, or None.
            crop: corner of the square of the backbone's ``crop_size`` to look at, see ``draw_crop``; None for all.

        Returns:
            (B, P) logits of all places of all layers, high for real: 980 with DINO's ViT-S/16.
        """
        return self.logits(self.backbone.features(images, crop), condition)

    def logits(self, features: list[Tensor], condition: Tensor | None) -> Tensor:
        """Judge what the backbone returned, which may be kept: it does not change while the heads learn."""
        if self.mapping is not None:
            condition = self.mapping(condition)
        elif self.text_width and condition is not None:
            condition = F.normalize(condition.float(), dim=-1)
        judged = [head(layer, condition) for head, layer in zip(self.heads, features, strict=True)]
        return torch.cat(judged, dim=2).squeeze(1)

    def trainable_state(self) -> dict[str, Tensor]:
        """The state dict without the backbone: what a run has to save."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(_BACKBONE)}

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Load what ``trainable_state`` returned, or the authors' names; a backbone in it is passed over.

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
    """Rename the authors' discriminator weights, distributed wrapper included, to ours; ours stay as they are."""
    renamed = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return {name.replace(_REFERENCE_TRANSFORMER, _TRANSFORMER, 1): tensor for name, tensor in renamed.items()}
