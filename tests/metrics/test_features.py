from __future__ import annotations

import pytest
import torch

from adanat_cli.core.config import FEATURE_TRAINING, FeatureConfig, data_config
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.metrics.features import FeatureNetwork


def network(config: FeatureConfig) -> FeatureNetwork:
    """Random weights, including those that start at zero."""
    torch.manual_seed(0)
    built = FeatureNetwork(config)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return built.eval()


@pytest.mark.parametrize("image_size", [8, 16, 32, 64])
def test_every_small_size_has_features_of_the_configured_width(image_size: int) -> None:
    config = FeatureConfig(image_size, num_classes=3, channels=(8, 16), num_res_blocks=2)
    output = network(config)(torch.rand(2, 3, image_size, image_size))
    assert output.features.shape == (2, config.feature_width) == (2, 16)
    assert output.logits.shape == (2, 3)
    assert bool((output.features >= 0).all())


@torch.inference_mode()
@pytest.mark.parametrize("training", [False, True])
def test_features_of_an_image_do_not_depend_on_its_batch(training: bool) -> None:
    net, images = network(FeatureConfig(16, 3, (8, 16))).train(training), torch.rand(9, 3, 16, 16)
    together = net.features(images)
    alone = torch.cat([net.features(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    other = net.features(torch.cat([images[:1], torch.ones(8, 3, 16, 16)]))
    torch.testing.assert_close(other[0], together[0], rtol=1e-5, atol=1e-6)


def test_features_tell_images_apart_and_gradients_reach_the_images() -> None:
    net, images = network(FeatureConfig(16, 3, (8, 16))), torch.rand(2, 3, 16, 16, requires_grad=True)
    features = net.features(images)
    assert not torch.allclose(features[0], features[1], atol=1e-3)
    features.sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0


@pytest.mark.parametrize("dataset", FEATURE_TRAINING)
def test_every_preset_builds_for_its_data(dataset: str) -> None:
    data = data_config(dataset)
    config = FeatureConfig(data.image_size, data.num_classes, **FEATURE_TRAINING[dataset]["shape"])
    with torch.device("meta"):
        FeatureNetwork(config)
    assert FeatureConfig.from_dict(config.to_dict(), "test") == config


def test_images_of_another_size_are_refused() -> None:
    net = network(FeatureConfig(16, 3, (8, 16)))
    with pytest.raises(AdaNATError, match=r"\(B, 3, 16, 16\), but got \(1, 3, 32, 32\)"):
        net.features(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 4}, "at least 8"),
        ({"image_size": 20, "channels": (8, 8, 8, 8)}, "multiple of 8"),
        ({"channels": (8,)}, "at least two"),
        ({"channels": (8, 10)}, "multiples of 4"),
        ({"channels": ()}, "at least two"),
        ({"num_classes": 1}, "num_classes is 1"),
        ({"num_res_blocks": 0}, "num_res_blocks is 0"),
        ({"kind": "plain"}, "kind is 'plain'; expected 'residual'"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_in_one_line(fields: dict[str, object], message: str) -> None:
    with pytest.raises(AdaNATError, match=message) as caught:
        FeatureConfig.from_dict({"image_size": 16, "num_classes": 3, **fields}, "test")
    assert "\n" not in str(caught.value)
