"""The reward of recognition: the log-probability of the class that was asked for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from adanat_cli.core import efficientnet
from adanat_cli.core.efficientnet import EfficientNet
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.rewards.recognition import RecognitionReward


def test_it_is_the_log_probability_of_the_label_under_lite0() -> None:
    torch.manual_seed(0)
    images, labels = torch.rand(3, 3, 16, 16), torch.tensor([0, 207, 999])
    seen = F.interpolate(images, (160, 160), mode="bicubic").clamp(0, 1)
    shares = EfficientNet("lite0", "It", "that")(seen).logits.softmax(1)
    scores = RecognitionReward().score(images, labels)
    torch.testing.assert_close(scores.exp(), shares[torch.arange(3), labels], rtol=1e-4, atol=1e-7)
    assert not scores.requires_grad


def test_without_its_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "_package", lambda variant: f"absent-{variant}-package")
    with pytest.raises(AdaNATError, match=r"Reward recognition needs .*imagenet\]', or use another --reward"):
        RecognitionReward()
