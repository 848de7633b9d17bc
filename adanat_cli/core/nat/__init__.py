"""The non-autoregressive transformer (NAT) over image tokens, and its masked-token loss."""

from adanat_cli.core.nat.masking import masked_accuracy, masked_cross_entropy, masks_from, sample_masks
from adanat_cli.core.nat.uvit import NATOutput, UViT

__all__ = [
    "NATOutput",
    "UViT",
    "masked_accuracy",
    "masked_cross_entropy",
    "masks_from",
    "sample_masks",
]
