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


def write_imagenet64(folder: Path, num_images: int = 60) -> None:
    """Two Parquet files as the ``imagenet64`` preset reads them, with the embedded model's 20 classes in turn."""
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    classes = (1, 107, 145, 207, 291, 301, 323, 387, 779, 839, 850, 873, 945, 950, 963, 970, 972, 973, 975, 978)
    names = [f"class {label}" for label in range(1000)]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    table = pa.table(
        {
            "image": [{"bytes": png(number, 64), "path": f"{number}.png"} for number in range(num_images)],
            "label": [classes[number % len(classes)] for number in range(num_images)],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    folder.mkdir(parents=True)
    pq.write_table(table, folder / "train-00000-of-00001.parquet")
    pq.write_table(table, folder / "validation-00000-of-00001.parquet")
