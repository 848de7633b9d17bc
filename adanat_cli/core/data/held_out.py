"""Real images to measure with: the validation split of the data, or a share held back from training."""

from __future__ import annotations

from collections.abc import Callable

from adanat_cli.core.config import DataConfig
from adanat_cli.core.data.sources import ImageSource, open_source
from adanat_cli.core.errors import MissingSplit, require

_STRIDE = 10


def open_disjoint(config: DataConfig, keep: Callable[[ImageSource], ImageSource]) -> tuple[ImageSource, ImageSource]:
    """Open the images to train on and those to measure with, which have none in common.

    Where the data has no validation split, every tenth image, class by class, is held back to measure with. Other
    trainings, such as those of a tokenizer, may have seen them, so ``measured_on`` does not call them held out.
    ``keep`` chooses among the images of either before that.

    Raises:
        AdaNATError: if the data cannot be opened, or there are too few images to keep some back.
    """
    source = keep(open_source(config))
    try:
        validation = open_source(config.replace(split="validation"))
    except MissingSplit:
        validation = None
    if validation is not None and not same_files(source, validation):
        return source, keep(validation)
    num = source.num_images
    require(
        num is None or num >= 2 * _STRIDE,
        f"{config.source} holds {num} training image{'s' if num != 1 else ''} of the model's classes and no validation "
        f"split, too few to keep some back to measure with; give at least {2 * _STRIDE}, or split them into train/ and "
        "val/.",
    )
    note = "it has no validation split, so every tenth image is kept from this training"
    return source.share(_STRIDE, False, note), source.share(_STRIDE, True, "every tenth image, kept from this training")


def same_files(one: ImageSource, other: ImageSource) -> bool:
    """Whether two sources are one: a single file or URL is the same data under any split's name."""
    return one.files is not None and one.files == other.files


def measured_on(source: ImageSource) -> str:
    """What the images to measure with are, for results and cards: only a validation split is held out."""
    return "held-out images" if source.config.split == "validation" else "images kept from the policy's training"
