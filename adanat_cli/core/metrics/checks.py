"""What all metrics ask of features before they compute with them."""

from __future__ import annotations

from torch import Tensor

from adanat_cli.core.errors import require

_ROWS_AT_ONCE = 4096


def require_finite(*tensors: Tensor) -> None:
    """Refuse infinities and NaN.

    Raises:
        AdaNATError: if a value is not finite.
    """
    parts = (part for tensor in tensors for part in tensor.split(_ROWS_AT_ONCE))
    require(
        all(bool(part.isfinite().all()) for part in parts),
        "Features, logits or moments hold values that are not finite; check the images and the network.",
    )


def require_two_sets(real: Tensor, fake: Tensor) -> None:
    """Refuse features of two sets of images that cannot be compared.

    Raises:
        AdaNATError: if they are not (n, D) and (m, D), or a value is not finite.
    """
    require(
        real.ndim == fake.ndim == 2 and real.shape[1] == fake.shape[1],
        f"Features have the shapes {tuple(real.shape)} and {tuple(fake.shape)}; expected (n, D) and (m, D).",
    )
    require_finite(real, fake)


def as_double(tensor: Tensor) -> Tensor:
    """Return a tensor in float64: on its device, or on the CPU where the device (mps) has no float64."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
