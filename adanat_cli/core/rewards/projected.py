"""The projected discriminator: small conditional heads on the features of a frozen DINO transformer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adanat_cli.core.errors import require
from adanat_cli.core.pretrained import load_timm
from adanat_cli.core.rewards.heads import DiscriminatorHead, MappingNetwork

DINO = "vit_small_patch16_224.dino"
_CONDITION_WIDTH = 512
_CROP_PROBABILITY = 0.5
_NUM_BLOCK_LAYERS = 4
_BACKBONE, _REFERENCE_BACKBONE = "backbone.", "dino.model.model."
_ADVICE = (
    "give a local file with --discriminator dino=FILE.safetensors, or take --discriminator pyramid, which needs "
    "no download"
)


def draw_crop(height: int, width: int, generator: torch.Generator, size: int = 224) -> tuple[int, int] | None:
    """Decide by the toss of a coin whether a batch is cropped, and where.

    Args:
        height: H of the images.
        width: W of the images.
        generator: of any device.
        size: of the square crop.

    Returns:
        Row and column of the crop's corner, or None for the whole image, which is also what smaller images get.
    """
    coin, row, column = torch.rand(3, generator=generator, device=generator.device).tolist()
    if coin >= _CROP_PROBABILITY or min(height, width) < size:
        return None
    return int(row * (height - size + 1)), int(column * (width - size + 1))


class ProjectedDiscriminator(nn.Module):
    """Real or generated, told from the features of four blocks and of the position embedding.

    Only the heads and the mapping of the labels learn. The backbone is frozen, always in evaluation mode and
    always run without gradients, for real and generated images alike: heads train on its features, and a
    reward needs no gradient, so none has to reach the images.

    Attributes:
        size: height and width of what the backbone sees.

    Source: StyleGAN-T (arXiv 2301.09515), as AdaNAT (arXiv 2409.00342) uses it.
    """

    def __init__(
        self, num_classes: int = 0, text_width: int = 0, backbone: str = DINO, pretrained: bool = True
    ) -> None:
        """Load the backbone and draw the rest from PyTorch's global generator.

        Args:
            num_classes: of the labels that are the condition; 0 for none.
            text_width: of the pooled text embedding that is the condition; 0 for none.
            backbone: timm name of a vision transformer, or ``NAME=FILE.safetensors`` for local weights.
            pretrained: False leaves the backbone random, which downloads nothing.

        Raises:
            AdaNATError: if the backbone cannot be had.
            ValueError: if labels and text are both to be the condition.
        """
        super().__init__()
        if num_classes and text_width:
            raise ValueError("The condition is a label or a text, not both.")
        self.backbone = _load_backbone(backbone, pretrained).eval().requires_grad_(False)
        self.size: int = self.backbone.patch_embed.img_size[0]
        depth = len(self.backbone.blocks)
        # The last block of every quarter: 2, 5, 8 and 11 of twelve.
        self._layers = [depth * (quarter + 1) // _NUM_BLOCK_LAYERS - 1 for quarter in range(_NUM_BLOCK_LAYERS)]
        self.mapping = MappingNetwork(num_classes, _CONDITION_WIDTH) if num_classes else None
        self.text_width = text_width
        condition_width = _CONDITION_WIDTH if num_classes else text_width
        self.heads = nn.ModuleList(
            DiscriminatorHead(self.backbone.embed_dim, condition_width) for _ in range(_NUM_BLOCK_LAYERS + 1)
        )
        config = self.backbone.pretrained_cfg
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", Tensor(list(config["mean"])).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", Tensor(list(config["std"])).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> ProjectedDiscriminator:
        """Switch the heads; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor, condition: Tensor | None, crop: tuple[int, int] | None = None) -> Tensor:
        """Judge a batch.

        Local batch norm mixes neighbours, so logits depend on who shares the batch. In training mode every
        call moves the heads' spectral norms by one power step.

        Args:
            images: (B, 3, H, W) in [0, 1].
            condition: (B,) int64 labels, (B, D_text) pooled text embeddings, or None.
            crop: corner of the square of ``size`` to look at, see ``draw_crop``; None for all, resized.

        Returns:
            (B, 5 N) logits, high for real: 980 with the default backbone, layer after layer.

        Raises:
            ValueError: if the crop leaves the images.
        """
        return self.logits(self.features(images, crop), condition)

    @torch.no_grad()
    def features(self, images: Tensor, crop: tuple[int, int] | None = None) -> list[Tensor]:
        """Return (B, D, N) features of each of the five layers; arguments as in ``forward``.

        They do not change while the heads learn, so a caller may keep them.
        """
        seen = (self._framed(images, crop) - self.mean) / self.std
        embedded: list[Tensor] = []
        watch = self.backbone.blocks[0].register_forward_pre_hook(lambda _, inputs: embedded.append(inputs[0]))
        try:
            layers = self.backbone.forward_intermediates(
                seen,
                indices=self._layers,
                return_prefix_tokens=True,
                output_fmt="NLC",
                stop_early=True,
                intermediates_only=True,
            )
        finally:
            watch.remove()
        num_prefix = self.backbone.num_prefix_tokens
        layers = [*layers, (embedded[0][:, num_prefix:], embedded[0])]
        # What the class token has gathered is added to every patch.
        return [(patches + prefix[:, :1]).transpose(1, 2) for patches, prefix in layers]

    def logits(self, features: list[Tensor], condition: Tensor | None) -> Tensor:
        """Judge what ``features`` returned; the rest as in ``forward``."""
        if self.mapping is not None:
            condition = self.mapping(condition)
        elif self.text_width and condition is not None:
            condition = F.normalize(condition.float(), dim=-1)
        judged = [head(layer, condition) for head, layer in zip(self.heads, features, strict=True)]
        return torch.cat(judged, dim=2).squeeze(1)

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the heads and of the mapping."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

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

    def _framed(self, images: Tensor, crop: tuple[int, int] | None) -> Tensor:
        """Crop or resize to (B, 3, size, size)."""
        height, width = images.shape[2:]
        if crop is not None:
            row, column = crop
            if not (0 <= row <= height - self.size and 0 <= column <= width - self.size):
                raise ValueError(f"A crop of {self.size} at {crop} leaves images of {height} x {width}.")
            return images[:, :, row : row + self.size, column : column + self.size]
        if min(height, width) >= self.size:
            return F.interpolate(images, (self.size, self.size), mode="area")
        return F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)


def from_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the authors' discriminator weights, distributed wrapper included, to ours; ours stay as they are."""
    renamed = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return {name.replace(_REFERENCE_BACKBONE, _BACKBONE, 1): tensor for name, tensor in renamed.items()}


def _load_backbone(backbone: str, pretrained: bool) -> Any:
    """Build a vision transformer of timm."""
    model = load_timm(backbone, "Discriminator backbone", _ADVICE, pretrained)
    require(
        getattr(model, "cls_token", None) is not None,
        f"Discriminator backbone {backbone!r} is not a vision transformer with a class token; expected one such as "
        f"{DINO}.",
    )
    return model
