"""Shares of recognised images, counted by hand."""

from __future__ import annotations

import pytest
import torch

from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.metrics.recognition import Recognition, recognition

LOGITS = torch.tensor(
    [
        [9.0, 8, 7, 6, 5, 4, 3],  # of class 0: the largest of all
        [9.0, 8, 7, 6, 5, 4, 3],  # of class 4: the fifth of all, the second of 0, 4 and 5
        [1.0, 9, 9, 9, 9, 8, 9],  # of class 5: the sixth of all, the second of 0, 4 and 5
        [1.0, 9, 9, 9, 2, 8, 0],  # of class 5: the fourth of all, the largest of 0, 4 and 5
    ]
)
LABELS = torch.tensor([0, 4, 5, 5])


@pytest.mark.parametrize("size", [1, 3, 4])
def test_shares_are_those_counted_by_hand_in_any_batches(size: int) -> None:
    batches = zip(LOGITS.split(size), LABELS.split(size), strict=True)
    assert recognition(batches, {0, 4, 5}) == Recognition(top1=1 / 4, top5=3 / 4, among=2 / 4)


def test_equal_logits_recognise_nothing() -> None:
    assert recognition([(torch.zeros(2, 9), torch.tensor([0, 8]))], {0, 8}) == Recognition(0, 0, 0)


def test_one_class_is_right_among_itself() -> None:
    assert recognition([(LOGITS[1:2], LABELS[1:2])], {4}).among == 1


@pytest.mark.parametrize("label", [-1, 1, 7])
def test_a_class_that_was_not_named_is_refused(label: int) -> None:
    with pytest.raises(AdaNATError, match=rf"Class \[{label}\] is not one"):
        recognition([(LOGITS[:1], torch.tensor([label]))], {0, 4})


def test_no_images_have_no_shares() -> None:
    with pytest.raises(AdaNATError, match="no images"):
        recognition([], {0})
