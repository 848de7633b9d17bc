"""Token-based image generation with learned, per-sample generation policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adanat_cli.pipeline import Pipeline

__version__ = "0.1.0"
__all__ = ["Pipeline", "__version__"]


def __getattr__(name: str) -> Any:
    """Load the pipeline, and with it PyTorch, when it is first asked for."""
    if name == "Pipeline":
        from adanat_cli.pipeline import Pipeline

        return Pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
