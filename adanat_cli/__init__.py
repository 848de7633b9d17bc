"""Token-based image generation with learned, per-sample generation policies."""

__version__ = "0.1.0"
