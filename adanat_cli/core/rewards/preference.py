"""A fixed reward: how well an image fits its prompt, by a pre-trained image-text model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adanat_cli.core.pretrained import Frozen, Normalization, load_clip

_CLASS_PROMPT = "a photo of a {}"
_PROMPTS_AT_ONCE = 256


class PreferenceReward(Frozen):
    """Cosine similarity of image and prompt, by a frozen model of CLIP's architecture.

    Sources: CLIP (arXiv 2103.00020); PickScore (arXiv 2305.01569) for a model trained on human preferences.
    """

    def __init__(
        self,
        model: str,
        class_names: Sequence[str] = (),
        device: torch.device | str = "cpu",
        what: str = "Preference model",
    ) -> None:
        """Load the model and encode the prompt of each class.

        Args:
            model: Hub id, such as ``yuvalkirstain/PickScore_v1``, or a local folder.
            class_names: names in the order of the labels; () if images come with prompts.
            device: device of the model.
            what: the model's purpose, as error messages begin.

        Raises:
            AdaNATError: if transformers is not installed or the model cannot be loaded.
        """
        super().__init__()
        self.clip, self.tokenizer, processor = load_clip(model, "CLIPModel", what, processor=True)
        self.size: int = self.clip.config.vision_config.image_size
        self.normalize = Normalization(processor.image_mean, processor.image_std)
        self.to(device)
        self.class_embeddings: Tensor | None
        prompts = [_CLASS_PROMPT.format(name) for name in class_names]
        self.register_buffer("class_embeddings", self.embed_prompts(prompts) if prompts else None, persistent=False)

    @torch.no_grad()
    def score(self, images: Tensor, prompts_or_labels: Sequence[str] | Tensor) -> Tensor:
        """Return the cosine similarity of each image and its text: (B,), in [-1, 1].

        Args:
            images: (B, 3, H, W) in [0, 1].
            prompts_or_labels: B prompts, of which repeated ones are encoded once; or (B,) int64 labels, if there are
                class names.

        Raises:
            ValueError: if their number is not B, or there are labels and no class names.

        Source: CLIPScore (arXiv 2104.08718), without its factor 2.5 and its cut-off at 0.
        """
        if len(images) != len(prompts_or_labels):
            raise ValueError(f"{len(images)} images and {len(prompts_or_labels)} prompts or labels; expected as many.")
        if not isinstance(prompts_or_labels, Tensor):
            row_of = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts_or_labels))}
            texts = self.embed_prompts(list(row_of))[[row_of[prompt] for prompt in prompts_or_labels]]
        elif self.class_embeddings is not None:
            texts = self.class_embeddings[prompts_or_labels]
        else:
            raise ValueError("Labels need the names of the classes, and none were given; pass class_names.")
        return (self.embed_images(images) * texts).sum(-1)

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """Return the (B, D) embeddings of images, of unit length."""
        pixels = self.normalize(self._framed(images.float()))
        return F.normalize(_pooled(self.clip.get_image_features(pixel_values=pixels)).float(), dim=-1)

    @torch.no_grad()
    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Return the (B, D) embeddings of prompts, of unit length; prompts are truncated to the model's context."""
        embedded = []
        for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
            inputs = self.tokenizer(
                list(prompts[start : start + _PROMPTS_AT_ONCE]),
                padding=True,
                truncation=True,
                max_length=self.clip.config.text_config.max_position_embeddings,
                return_tensors="pt",
            ).to(self.normalize.mean.device)
            features = self.clip.get_text_features(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            )
            embedded.append(F.normalize(_pooled(features).float(), dim=-1))
        return torch.cat(embedded)

    def _framed(self, images: Tensor) -> Tensor:
        """Resize the shorter side to ``size`` and crop the centre, as in the model's training."""
        shorter = min(images.shape[2:])
        height, width = (side * self.size // shorter for side in images.shape[2:])
        resized = F.interpolate(images, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
        top, left = (height - self.size) // 2, (width - self.size) // 2
        return resized[:, :, top : top + self.size, left : left + self.size]


def _pooled(features: Any) -> Tensor:
    """Return the embeddings, which transformers wraps in an output object since 5.23."""
    return features if isinstance(features, Tensor) else features.pooler_output
