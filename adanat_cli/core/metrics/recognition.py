"""Recognition: how often a classifier that had no part in the training names an image's class."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from adanat_cli.core.errors import require


@dataclass(frozen=True)
class Recognition:
    """Shares of images, from 0 to 1.

    Attributes:
        top1: whose class has the largest logit of all.
        top5: whose class has one of the five largest logits.
        among: share whose class has the largest logit among the classes that the images are of; 1 for a single class.
    """

    top1: float
    top5: float
    among: float

    def __post_init__(self) -> None:
        shares = (self.top1, self.top5, self.among)
        require(all(0 <= share <= 1 for share in shares), f"shares of images are {shares}; expected 0 to 1")


@torch.no_grad()
def recognition(batches: Iterable[tuple[Tensor, Tensor]], classes: Collection[int]) -> Recognition:
    """Count the images that a classifier recognises as their class; of equal logits, the class's own counts last.

    Args:
        batches: (B, C) logits, and (B,) int64 classes of the images.
        classes: all classes that the images are of.

    Raises:
        AdaNATError: if there are no images, or a class is not one of the classifier's or not one of ``classes``.
    """
    columns = torch.tensor(sorted(classes))
    counts, num = torch.zeros(3, dtype=torch.int64), 0
    for logits, labels in batches:
        strange = labels[(labels < 0) | (labels >= logits.shape[1]) | ~torch.isin(labels, columns.to(labels))]
        require(not len(strange), f"Class {strange[:1].tolist()} is not one of the classifier's {logits.shape[1]}.")
        own = logits.gather(1, labels[:, None])  # (B, 1)
        place = (logits >= own).sum(1)  # (B,), 1 for the largest
        place_among = (logits[:, columns.to(labels)] >= own).sum(1)
        counts += torch.stack([(place <= 1).sum(), (place <= 5).sum(), (place_among <= 1).sum()]).cpu()
        num += len(labels)
    require(num > 0, "There are no images to recognise.")
    return Recognition(*(count / num for count in counts.tolist()))
