"""Captions of a data set as conditions: a pool to train a policy on, and the list that results are measured on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adanat_cli.core.config import BENCHMARKS, DataConfig, data_config
from adanat_cli.core.data.captioned import is_caption_list, read_caption_list
from adanat_cli.core.data.sources import ImageSource, open_source
from adanat_cli.core.data.splits import split_of
from adanat_cli.core.errors import require

_MOST_IMAGES, _MOST_OF_STREAM = 100_000, 10_000
_NUM_WORDS, _COMMON = 256, 0.9
EVALUATION_SEED = 0
"""Draws the evaluation captions, which are the same for everybody."""


def caption_pool(source: ImageSource, seed: int) -> list[str]:
    """Return all captions of a source in random order; of at most 100,000 images, or the first 10,000 of a stream.

    Raises:
        AdaNATError: if there are none.
    """
    generator = np.random.default_rng(seed)
    if source.num_images is None:
        texts = [record().captions for record in source.pending(0, _MOST_OF_STREAM)]
    else:
        texts = [source.captions(int(index)) for index in generator.permutation(source.num_images)[:_MOST_IMAGES]]
    pool = [caption for captions in texts for caption in captions]
    require(
        bool(pool),
        f"{source.config.source} ({source.config.split}) holds no captions; give --caption-column, or other data.",
    )
    generator.shuffle(pool)
    return pool


def evaluation_captions(dataset: str, num_captions: int | None = None, **fields: Any) -> list[str]:
    """Return the captions that a benchmark's results are measured on: one per image, drawn with a fixed seed.

    Where there are fewer images than captions to draw, the images are cycled through.

    Args:
        dataset: benchmark, or data with captions.
        num_captions: how many; None for the benchmark's own number, or 30,000 for other data.
        fields: other fields of ``DataConfig``.

    Raises:
        AdaNATError: if the validation split cannot be read or holds no captions.
    """
    benchmark = BENCHMARKS.get(dataset)
    size = {"image_size": benchmark.image_size if benchmark else 1}
    config = data_config(dataset, **{**size, **fields, "split": "validation"})
    total = num_captions or (benchmark.eval_images if benchmark else 30_000)
    require(total >= 1, f"{total} captions are requested; expected at least 1.")
    texts = _all_captions(config)
    generator = np.random.default_rng(EVALUATION_SEED)
    order, draws = generator.permutation(len(texts)), generator.random(total)
    picked = (texts[order[number % len(texts)]] for number in range(total))
    return [captions[int(draw * len(captions))] for captions, draw in zip(picked, draws, strict=True)]


def _all_captions(config: DataConfig) -> list[tuple[str, ...]]:
    """Captions of each image that has any; also of a TSV that has captions only."""
    path = config.path
    files = [path] if path.suffix == ".tsv" else sorted(path.glob("*.tsv")) if path.is_dir() else []
    for file in files:
        if is_caption_list(file) and (file == path or split_of(file.name) == config.split):
            return [(caption,) for caption in read_caption_list(file)]
    source = open_source(config)
    require(source.has_captions, f"{config.source} has class labels, not captions; give data with captions.")
    if source.num_images is None:
        texts = [record().captions for record in source.pending()]
    else:
        texts = [source.captions(index) for index in range(source.num_images)]
    found = [captions for captions in texts if captions]
    require(bool(found), f"{config.source} ({config.split}) holds no captions; give data with captions.")
    return found


def telling_words(captions: Sequence[str]) -> tuple[str, ...]:
    """Return the words that distinguish images, for a small network to learn from captions: frequent, but not in all.

    Raises:
        AdaNATError: if there are fewer than two.
    """
    # In the captions' order: that of a set differs between processes.
    counts = Counter(word for caption in captions for word in dict.fromkeys(caption.lower().split()))
    words = [word for word, count in counts.most_common() if 2 <= count <= _COMMON * len(captions)][:_NUM_WORDS]
    require(len(words) >= 2, "The captions have no words in common that distinguish images; add a features/ component.")
    return tuple(words)


def word_targets(captions: Sequence[str], words: Sequence[str]) -> Tensor:
    """Return (B, num_words) probabilities: even over the words of each caption, or over all if it has none of them."""
    targets = torch.tensor([[word in caption.lower().split() for word in words] for caption in captions]).float()
    targets[targets.sum(1) == 0] = 1.0
    return targets / targets.sum(1, keepdim=True)
