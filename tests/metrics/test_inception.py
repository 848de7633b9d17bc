from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adanat_cli.core.metrics.inception import SPATIAL_WIDTH, InceptionV3
from adanat_cli.core.metrics.protocols import InceptionExtractor
from tests.support import analytic_weight, fixture, fixture_json, image


@pytest.fixture(scope="module")
def network() -> InceptionV3:
    """With the fixtures' weights, loaded by the names in the file of the published ones."""
    shapes = fixture_json("inception_keys")["keys"]
    built = InceptionV3()
    state = {name: analytic_weight(name, tuple(shape)) if shape else torch.tensor(0) for name, shape in shapes.items()}
    built.load_state_dict(state)
    return built.eval()


def test_names_and_shapes_are_those_of_the_published_weights() -> None:
    shapes = fixture_json("inception_keys")["keys"]
    with torch.device("meta"):
        own = {name: list(tensor.shape) for name, tensor in InceptionV3().state_dict().items()}
    assert own == shapes
    assert len(own) == 566


@torch.inference_mode()
def test_features_and_logits_are_the_references(network: InceptionV3) -> None:
    arrays = fixture("metrics")
    seen: list[Tensor] = []
    watch = network.Mixed_6d.get_submodule("branch1x1").register_forward_hook(lambda *call: seen.append(call[2]))
    extraction = InceptionExtractor("paper", network, "")(image(2, 64, 64))
    watch.remove()
    torch.testing.assert_close(extraction.features, torch.from_numpy(arrays["inception.2048"]), rtol=0, atol=1e-6)
    expected = torch.from_numpy(arrays["inception.logits_unbiased"])
    torch.testing.assert_close(extraction.logits, expected, rtol=0, atol=1e-6)
    biased = expected + network.fc.bias
    torch.testing.assert_close(biased, torch.from_numpy(arrays["inception.logits"]), rtol=0, atol=1e-6)
    # Spatial features: seven channels of one path, the grid row by row, the channels of a place side by side.
    assert extraction.spatial is not None
    assert extraction.spatial.shape == (2, SPATIAL_WIDTH)
    for row, column, channel in ((0, 0, 0), (0, 1, 3), (16, 2, 6)):
        place = (row * 17 + column) * 7 + channel
        assert torch.equal(extraction.spatial[:, place], seen[0][:, channel, row, column])


@torch.inference_mode()
def test_layers_on_the_way_are_the_references(network: InceptionV3) -> None:
    arrays, seen = fixture("metrics"), {}
    watched = {"64": network.Conv2d_3b_1x1, "192": network.Mixed_5b, "768": network.Mixed_7a}
    watches = [
        module.register_forward_pre_hook(lambda _, inputs, width=width: seen.update({width: inputs[0].mean((2, 3))}))
        for width, module in watched.items()
    ]
    InceptionExtractor("paper", network, "")(image(2, 64, 64))
    for watch in watches:
        watch.remove()
    for width in watched:
        torch.testing.assert_close(seen[width], torch.from_numpy(arrays[f"inception.{width}"]), rtol=0, atol=1e-6)


def test_other_sizes_are_refused(network: InceptionV3) -> None:
    with pytest.raises(ValueError, match="299"):
        network(torch.zeros(1, 3, 300, 299))
