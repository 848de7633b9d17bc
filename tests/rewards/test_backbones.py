"""Frozen backbones: what they make of images, where their weights come from, and what they refuse."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from adanat_cli.core import efficientnet
from adanat_cli.core import pretrained as hub
from adanat_cli.core.config import FeatureConfig
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.metrics.features import FeatureNetwork
from adanat_cli.core.rewards.backbones import (
    DINO,
    Backbone,
    ClassifierBackbone,
    EfficientNetBackbone,
    VisionTransformerBackbone,
)
from adanat_cli.core.rewards.projected import ProjectedDiscriminator

# Small enough to build at once, of the same architecture as DINO's.
TINY = "vit_tiny_patch16_224"


def classifier(num_res_blocks: int = 1) -> ClassifierBackbone:
    torch.manual_seed(0)
    config = FeatureConfig(16, 10, (8, 16, 12), num_res_blocks)
    return ClassifierBackbone(FeatureNetwork(config), config.channels)


@pytest.mark.parametrize("num_res_blocks", [1, 3])
@torch.no_grad()
def test_a_classifier_gives_every_resolution_and_its_features_are_the_means_of_the_last(num_res_blocks: int) -> None:
    backbone, images = classifier(num_res_blocks), torch.rand(4, 3, 16, 16)
    levels = backbone.features(images)
    assert [tuple(level.shape) for level in levels] == [(4, 8, 256), (4, 16, 64), (4, 12, 16)]
    assert backbone.widths == (8, 16, 12)
    torch.testing.assert_close(levels[-1].mean(2), backbone.network.features(images))


@pytest.mark.parametrize(
    ("backbone", "num_logits"),
    [(classifier, 256 + 64 + 16), (lambda: EfficientNetBackbone(64), 256 + 64 + 16 + 4)],
    ids=["classifier", "efficientnet"],
)
def test_a_discriminator_on_a_frozen_network_trains_its_heads_alone(
    backbone: Callable[[], Backbone], num_logits: int
) -> None:
    model = ProjectedDiscriminator(backbone(), num_classes=10, condition_width=16).train()
    assert model.heads.training
    assert not any(module.training for module in model.backbone.modules())
    logits = model(torch.rand(6, 3, 16, 16), torch.arange(6))
    assert logits.shape == (6, num_logits)
    logits.mean().backward()
    assert all(weight.grad is None for weight in model.backbone.parameters())
    assert all(weight.grad is not None for weight in model.heads.parameters())
    assert not any(name.startswith("backbone") for name in model.trainable_state())


def test_efficientnet_sees_small_images_enlarged_and_large_ones_reduced() -> None:
    backbone, images = EfficientNetBackbone(96), torch.rand(2, 3, 300, 300, requires_grad=True)
    for pixels, seen in ((8, 96), (64, 96), (160, 160), (300, 224)):
        levels = backbone.features(images[:, :, :pixels, :pixels])
        assert tuple(level.shape[1] for level in levels) == backbone.widths == (64,) * 4
        assert [level.shape[2] for level in levels] == [math.ceil(seen / 2**depth) ** 2 for depth in (2, 3, 4, 5)]
        assert not any(level.requires_grad for level in levels)
    untouched = images[:, :, :160, :160]
    levels, mixed = backbone.network.levels(untouched)[1:], EfficientNetBackbone(64).features(untouched)
    for number, (level, found) in enumerate(zip(levels, mixed, strict=True)):
        expected = torch.einsum("oc,bchw->bohw", backbone.get_buffer(f"mixing{number}"), level).flatten(2)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_efficientnet_is_counted_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "_package", lambda variant: f"absent-{variant}-package")
    with torch.device("meta"):
        model = ProjectedDiscriminator(EfficientNetBackbone(96, pretrained=False), num_classes=10)
    assert sum(weight.numel() for weight in model.backbone.parameters()) == 4_652_008
    with pytest.raises(AdaNATError, match=r"imagenet\]', or use --discriminator classifier or"):
        EfficientNetBackbone(96)


@torch.no_grad()
def test_a_crop_is_what_the_cropped_image_gives() -> None:
    backbone, images = VisionTransformerBackbone(TINY, pretrained=False), torch.rand(2, 3, 256, 240)
    cropped = backbone.features(images[:, :, 9:233, 16:240])
    for found, expected in zip(backbone.features(images, crop=(9, 16)), cropped, strict=True):
        torch.testing.assert_close(found, expected)
    assert not backbone.model.blocks[0]._forward_pre_hooks


@pytest.mark.parametrize("crop", [(-1, 0), (33, 0), (0, 33)])
def test_a_crop_outside_the_image_is_a_bug(crop: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="exceeds images of 256 x 256"):
        VisionTransformerBackbone(TINY, pretrained=False).features(torch.rand(1, 3, 256, 256), crop)


def test_a_local_safetensors_file_is_loaded(tmp_path: Path) -> None:
    weights = timm.create_model(TINY, num_classes=0).state_dict()
    save_file(weights, tmp_path / "weights.safetensors")
    backbone = VisionTransformerBackbone(f"{TINY}={tmp_path / 'weights.safetensors'}")
    assert torch.equal(backbone.model.cls_token, weights["cls_token"])


def test_a_backbone_that_cannot_be_had_is_told_in_one_line(tmp_path: Path) -> None:
    save_file({"cls_token": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    (tmp_path / "pickle.pth").write_bytes(b"")
    cases = {
        f"{DINO}={tmp_path / 'wrong.safetensors'}": "cannot be loaded",
        f"{DINO}={tmp_path / 'broken.safetensors'}": "cannot be loaded",
        f"{DINO}={tmp_path / 'pickle.pth'}": "not a .safetensors file",
        f"{DINO}={tmp_path / 'absent.safetensors'}": "does not exist",
        "no_such_network": "cannot be loaded",
    }
    for backbone, reason in cases.items():
        with pytest.raises(AdaNATError, match=reason) as caught:
            VisionTransformerBackbone(backbone)
        message = str(caught.value)
        assert "\n" not in message
        assert "--discriminator dino=FILE.safetensors" in message
        assert "--discriminator pyramid" in message


def test_a_backbone_without_class_token_is_refused_in_one_line() -> None:
    with pytest.raises(AdaNATError, match="not a vision transformer") as caught:
        VisionTransformerBackbone("test_resnet", pretrained=False)
    assert "\n" not in str(caught.value)


def test_without_a_network_the_refusal_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(url: str) -> None:
        raise TimeoutError("Name or service not known")

    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda repo, filename, revision: None)
    monkeypatch.setattr(hub, "get_hf_file_metadata", no_network)
    start = time.monotonic()
    with pytest.raises(AdaNATError, match=r"Name or service not known.*pyramid"):
        VisionTransformerBackbone()
    assert time.monotonic() - start < 5


def test_a_cached_backbone_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda repo, filename, revision: "/cache/model.safetensors")
    monkeypatch.setattr(hub, "get_hf_file_metadata", lambda url: pytest.fail("asked the Hub"))
    hub.require_reachable("timm/vit_small_patch16_224.dino", "model.safetensors")
