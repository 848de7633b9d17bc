"""The non-autoregressive transformer (NAT) over image tokens, and its masked-token loss."""

from adanat_cli.core.nat.masking import masks_from, sample_masks
from adanat_cli.core.nat.uvit import NATOutput, UViT

__all__ = ["NATOutput", "UViT", "masks_from", "sample_masks"]
