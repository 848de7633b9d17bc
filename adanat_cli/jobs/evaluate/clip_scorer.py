"""How well images fit their prompts by CLIP, beside the features that a protocol measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adanat_cli.core.checkpoints.files import fingerprint
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.metrics.protocols import as_bytes, without_tf32
from adanat_cli.core.rewards.preference import PreferenceReward
from adanat_cli.jobs.resolve.text_encoders import recorded_name
from adanat_cli.jobs.runtime.devices import Processes
from adanat_cli.jobs.runtime.reporter import Reporter

DEFAULT_CLIP = "openai/clip-vit-large-patch14"
"""ViT-L/14, the model of most published CLIP scores and torchmetrics' default; its weights are safetensors."""
NO_CLIP = "none"


class ClipScorer:
    """Cosine similarity of images and their prompts, by a frozen model of CLIP's architecture in float32.

    Attributes:
        model: Hub id, or name of the folder, that it was loaded from.
        weights_hash: sha256 of both towers' weights, in hexadecimal digits.

    Source: CLIPScore (arXiv 2104.08718), without its factor 2.5 and its clipping at 0.
    """

    def __init__(self, model: str, device: torch.device) -> None:
        """Load the model.

        Raises:
            AdaNATError: if transformers is not installed or the model cannot be loaded.
        """
        self.model = recorded_name(model)
        self._device = device
        self._towers = PreferenceReward(model, device=device, what="CLIP model")
        self.weights_hash = fingerprint(dict(self._towers.clip.named_parameters()))

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return (B,) similarities in [-1, 1].

        Args:
            images: (B, 3, H, W), bytes or floats in [0, 1], which are rounded to bytes: as images are saved and sent.
            prompts: B texts.
        """
        with without_tf32():
            return self._towers.score(as_bytes(images.to(self._device)).float() / 255, prompts)

    def identity(self) -> dict[str, Any]:
        """Return what decides the similarities of given images, as JSON values."""
        return {"clip": self.model, "clip_hash": self.weights_hash}


def load_clip_scorer(model: str, processes: Processes, reporter: Reporter) -> tuple[ClipScorer | None, str]:
    """Load the requested model, or else the default one where it is available.

    Args:
        model: Hub id or folder; "" for the default one, "none" for no CLIP score.
        processes: processes that call this together.
        reporter: warns where the default one is not available.

    Returns:
        The scorer, or None and the reason.

    Raises:
        AdaNATError: if a named model cannot be loaded.
    """
    if model == NO_CLIP:
        return None, f"--clip {NO_CLIP} leaves it out"
    try:
        with processes.state.local_main_process_first():  # which downloads; the others find the files
            return ClipScorer(model or DEFAULT_CLIP, processes.device), ""
    except AdaNATError as error:
        if model:
            raise
        reporter.warn(f"There will be no CLIP score (--clip MODEL names another, --clip {NO_CLIP} none): {error}")
        return None, f"CLIP model {DEFAULT_CLIP} could not be loaded"
