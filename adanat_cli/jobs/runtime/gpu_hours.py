"""Hours that work would take on GPUs, from its operations and the rates that their maker states."""

from __future__ import annotations

PEAKS = {
    "A100": {"bf16": 312e12, "tf32": 156e12, "fp32": 19.5e12},
    "H100": {"bf16": 989e12, "tf32": 494e12, "fp32": 67e12},
}
"""Operations a second of dense products by GPU (SXM) and number format, without sparsity: NVIDIA's data sheets of the
A100 and the H100. PyTorch computes convolutions of float32 numbers in TF32."""
SHARE = 0.4
"""Share of these rates that is counted on; ``adanat bench`` measures that of a machine."""


def gpu_hours(**operations: float) -> dict[str, float]:
    """Hours of one GPU that does nothing else, to three digits; a hundred take a hundredth of the time.

    Args:
        operations: number of operations by number format ("bf16", "tf32", "fp32"); a multiply-add counts as 2.

    Returns:
        GPU and the share of its rate -> the sum of ``operations / rate / SHARE / 3600`` over formats.
    """
    hours = {
        name: sum(number / rates[kind] for kind, number in operations.items()) / SHARE / 3600
        for name, rates in PEAKS.items()
    }
    return {f"{name} at {SHARE:.0%} of its rate": float(f"{value:.3g}") for name, value in hours.items()}
