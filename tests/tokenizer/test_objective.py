"""The loss of the autoencoder: what frozen networks compare, and what a discriminator reads of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adanat_cli.core.config import PROJECTED_TRAINING, TokenizerTrainingConfig
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.tokenizer.losses import (
    EFFICIENTNET,
    EfficientNetLevels,
    LevelsAndPatches,
    TimmLevels,
    discriminator_loss,
    feature_distance,
    require_backbones,
)
from adanat_cli.core.tokenizer.objective import Objective, judge
from adanat_cli.core.tokenizer.vqae import Reconstruction

PROJECTED = TokenizerTrainingConfig(**{**PROJECTED_TRAINING, "discriminator": "efficientnet", "feature_size": 32})
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def levels() -> EfficientNetLevels:
    return EfficientNetLevels(32)


@pytest.fixture(scope="module")
def objective() -> Objective:
    torch.manual_seed(0)
    return Objective(PROJECTED, 16, CPU)


def blurred(images: Tensor) -> Tensor:
    return torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(images, 4), scale_factor=4)


def reconstruction(images: Tensor) -> Reconstruction:
    return Reconstruction(images, torch.zeros(2, 4, 8), torch.zeros(2, 4, dtype=torch.int64), torch.zeros(()))


def test_equal_images_are_at_distance_zero_and_blurred_ones_are_not(levels: EfficientNetLevels) -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 32, 32)
    assert float(feature_distance(levels(images), levels(images))) == 0
    assert float(feature_distance(levels(blurred(images)), levels(images))) > 0.1


def test_the_distance_is_of_directions_and_in_float32_for_features_of_half_precision() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 16, 3, 3)
    assert float(feature_distance([3 * features], [features])) == pytest.approx(0, abs=1e-6)
    assert float(feature_distance([-features], [features])) == pytest.approx(4, rel=1e-5)
    half = feature_distance([features.bfloat16()], [features.flip(0).bfloat16()])
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(feature_distance([features], [features.flip(0)])), rel=0.01)


def test_small_images_are_enlarged_and_large_ones_left_as_they_are(levels: EfficientNetLevels) -> None:
    shapes = [tuple(level.shape[1:]) for level in levels(torch.rand(1, 3, 16, 16))]
    assert shapes == [(width, 16 // 2**index, 16 // 2**index) for index, width in enumerate(EfficientNetLevels.widths)]
    assert levels(torch.rand(1, 3, 64, 64))[0].shape[2:] == (32, 32)


def test_the_network_computes_in_bf16_where_the_autoencoder_does(levels: EfficientNetLevels) -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 32, 32)
    full = levels(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = levels(images)
    assert {level.dtype for level in half} == {torch.bfloat16}
    assert float(feature_distance(half, full)) < 0.01 * float(feature_distance(levels(blurred(images)), full))


def test_levels_count_alike_and_together_as_much_as_the_images() -> None:
    torch.manual_seed(0)
    discriminator = LevelsAndPatches((16, 40), 32)
    logits = discriminator([torch.randn(2, 16, 8, 8), torch.randn(2, 40, 2, 2), torch.rand(2, 3, 32, 32)])
    assert [tuple(level.shape) for level in logits] == [(2, 1, 8, 8), (2, 1, 2, 2), (2, 1, 8, 8)]
    fine, coarse, patches = torch.full((2, 1, 8, 8), -1.0), torch.full((2, 1, 2, 2), 3.0), torch.zeros(2, 1, 4, 4)
    # Of real images: 2 at the fine level, 0 at the coarse one, 1 at patches; of generated ones: 0, 4 and 1.
    expected = 0.5 * (0.5 * (1 + 1) + 0.5 * (2 + 1))
    assert float(discriminator_loss([fine, coarse, patches], [fine, coarse, patches])) == pytest.approx(expected)
    assert float(discriminator_loss([fine], [coarse])) == pytest.approx(0.5 * (2 + 4))


def test_both_losses_reach_the_images_and_leave_network_and_heads_alone(objective: Objective) -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 16, 16)
    outputs = torch.rand(2, 3, 16, 16, requires_grad=True)
    objective.discriminator.requires_grad_(False)
    with torch.no_grad():
        targets = objective.views(images, adversarial=True)
    loss, error = objective.loss(reconstruction(outputs), images, objective.views(outputs, True), targets)
    (rest,) = torch.autograd.grad(loss - 0.5 * error, outputs)
    assert float(rest.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in objective.discriminator.parameters())
    assert not any(parameter.requires_grad for parameter in EfficientNetLevels(32).parameters())


def test_a_discriminator_update_reaches_the_heads_alone(objective: Objective) -> None:
    outputs = torch.rand(2, 3, 16, 16, requires_grad=True)
    objective.discriminator.requires_grad_(True)
    views = objective.views(outputs, True)
    loss, accuracy = judge(objective.discriminator, views.detached(), objective.views(torch.rand(2, 3, 16, 16), True))
    loss.backward()
    assert outputs.grad is None
    assert all(parameter.grad is not None for parameter in objective.discriminator.parameters())
    assert 0 <= accuracy.item() <= 1


def test_one_pass_of_the_network_serves_both_losses(objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    forward = EfficientNetLevels.forward
    monkeypatch.setattr(
        EfficientNetLevels, "forward", lambda self, images: passes.append(len(images)) or forward(self, images)
    )
    views = objective.views(torch.rand(2, 3, 16, 16), adversarial=True)
    assert passes == [2]
    assert all(a is b for a, b in zip(views.compared, views.judged[:-1], strict=True))
    assert views.judged[-1].shape == (2, 3, 16, 16)
    assert objective.views(torch.rand(2, 3, 16, 16), adversarial=False).judged == []


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ()),
        ({"discriminator": "efficientnet", "perceptual_backbone": "resnet18"}, (EFFICIENTNET, "resnet18")),
        ({"discriminator": "efficientnet", "perceptual_backbone": EFFICIENTNET}, (EFFICIENTNET,)),
        ({"discriminator": "efficientnet", "adversarial_weight": 0.0}, ()),
        ({"perceptual_backbone": EFFICIENTNET, "perceptual_weight": 0.0}, ()),
    ],
)
def test_networks_that_no_loss_reads_are_not_loaded(changes: dict[str, Any], names: tuple[str, ...]) -> None:
    assert TokenizerTrainingConfig(**changes).backbones == names


def test_a_timm_backbone_is_read_from_a_local_file_and_sees_blur(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    backbone = timm.create_model("test_resnet", pretrained=False)
    save_file(backbone.state_dict(), tmp_path / "backbone.safetensors")
    network = TimmLevels(f"test_resnet={tmp_path / 'backbone.safetensors'}")
    images = torch.rand(2, 3, 64, 64)
    assert float(feature_distance(network(images), network(images))) == 0
    assert float(feature_distance(network(blurred(images)), network(images))) > 0.01
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_unknown_networks_are_one_clear_line() -> None:
    with pytest.raises(AdaNATError, match=r"no_such_backbone.*name=FILE"):
        TimmLevels("no_such_backbone")
    with pytest.raises(AdaNATError, match=r"no_such_backbone.*name=FILE"):
        require_backbones(EFFICIENTNET, "no_such_backbone")
    with pytest.raises(AdaNATError, match="discriminator is 'dino'; expected 'patch' or 'efficientnet'"):
        TokenizerTrainingConfig(discriminator="dino")  # type: ignore[arg-type]


def test_a_backbone_is_read_from_safetensors_that_hold_it_and_never_from_a_pickle(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.save({"weight": torch.zeros(2)}, tmp_path / "backbone.pth")
    with pytest.raises(AdaNATError, match=r"backbone\.pth is not a \.safetensors file"):
        TimmLevels(f"test_resnet={tmp_path / 'backbone.pth'}")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(AdaNATError, match="weights are of another network"):
        TimmLevels(f"test_resnet={tmp_path / 'other.safetensors'}")
