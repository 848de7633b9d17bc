"""Hours that work would take on GPUs, from its operations and the rates that their makers state."""

from __future__ import annotations

PEAKS = {
    "A100": {"bf16": 312e12, "fp32": 19.5e12},
    "H100": {"bf16": 989e12, "fp32": 67e12},
}
"""Operations a second of dense products by GPU (SXM) and number format, without sparsity or TF32: NVIDIA's data sheets
of the A100 and the H100."""
SHARE = 0.4
"""Share of these rates that is counted on; ``adanat bench`` measures that of a machine."""


def gpu_hours(bf16: float = 0.0, fp32: float = 0.0) -> dict[str, float]:
    """Hours of one GPU that does nothing else, to three digits, by GPU; a hundredth of it on a hundred.

    Args:
        bf16: operations in bf16; a multiply-add counts as 2.
        fp32: operations in float32.

    Returns:
        GPU and the share of its rate -> ``(bf16 / rate + fp32 / rate) / SHARE / 3600``.
    """
    hours = {name: (bf16 / rates["bf16"] + fp32 / rates["fp32"]) / SHARE / 3600 for name, rates in PEAKS.items()}
    return {f"{name} at {SHARE:.0%} of its rate": float(f"{value:.3g}") for name, value in hours.items()}
