"""Image files that tests write: sources in every layout, with a number hidden in every image."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from adanat_cli.core.config import VQAEConfig
from adanat_cli.core.tokenizer.base import Tokenizer

SIZE = 8


def picture(number: int, size: int = SIZE) -> np.ndarray:
    """(size, size, 3) bytes: left half ``number``, right half its complement."""
    pixels = np.full((size, size, 3), 255 - number, np.uint8)
    pixels[:, : size // 2] = number
    return pixels


def png(number: int, size: int = SIZE) -> bytes:
    """``picture`` as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture(number, size)).save(buffer, "PNG")
    return buffer.getvalue()


def write_class_folder(
    root: Path, num_images: int, classes: tuple[str, ...] = ("cat", "dog"), size: int = SIZE
) -> Path:
    """Images 0 … num_images - 1 in turn over class folders; image i is ``<class>/i.png``."""
    for number in range(num_images):
        file = root / classes[number % len(classes)] / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(number, size))
    return root


def patch_tokenizer(image_size: int = 16) -> Tokenizer:
    """A tokenizer without training: the id of a 4 x 4 patch is its brightness in 64 levels."""
    import torch
    from torch import Tensor, nn

    class PatchTokenizer(Tokenizer):
        def __init__(self) -> None:
            super().__init__()
            self.config = VQAEConfig(image_size=image_size, codebook_size=64, channels=(8, 8))
            self.scale = nn.Parameter(torch.tensor(63.0))

        def encode(self, images: Tensor) -> Tensor:
            means = nn.functional.avg_pool2d(images.mean(1, keepdim=True), 4)  # (B, 1, h, w)
            return (means * self.scale).round().long().flatten(1)

        def decode(self, token_ids: Tensor) -> Tensor:
            side = int(token_ids.shape[1] ** 0.5)
            grid = (token_ids / self.scale).view(-1, 1, side, side)
            return nn.functional.interpolate(grid, scale_factor=4).expand(-1, 3, -1, -1)

    return PatchTokenizer().eval()


EMBEDDED = (1, 107, 145, 207, 291, 301, 323, 387, 779, 839, 850, 873, 945, 950, 963, 970, 972, 973, 975, 978)
"""Classes of the embedded model."""


def write_imagenet64(
    folder: Path,
    num_images: int = 60,
    classes: tuple[int, ...] = EMBEDDED,
    first_validation: int = 0,
    wordnet: bool = False,
) -> None:
    """Two Parquet files as the ``imagenet64`` preset reads them, with classes in turn; images of a number are equal.

    ``wordnet`` gives the classes the names that ImageNet has for them, instead of "class 0", "class 1" and so on.
    """
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    from adanat_cli.core.data.labels import imagenet_synsets

    names = list(imagenet_synsets()) if wordnet else [f"class {label}" for label in range(1000)]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    folder.mkdir(parents=True)
    for split, first in (("train", 0), ("validation", first_validation)):
        table = pa.table(
            {
                "image": [{"bytes": png(first + number, 64), "path": f"{number}.png"} for number in range(num_images)],
                "label": [classes[number % len(classes)] for number in range(num_images)],
            }
        ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
