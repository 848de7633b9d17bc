"""The analytic rules agree with the values stored beside the fixtures."""

import numpy as np
import pytest

from tests.support import analytic_input, analytic_weight, fixture, fixture_json, gumbel, image, token_ids


@pytest.mark.parametrize("name", list(fixture_json("rules_shapes")))
def test_rules_reproduce_the_stored_weights(name: str) -> None:
    stored = fixture("rules")
    flat = analytic_weight(name, tuple(fixture_json("rules_shapes")[name])).numpy().reshape(-1)
    np.testing.assert_allclose(flat[:6], stored[f"weight:{name}"], atol=1e-7)
    np.testing.assert_allclose(flat[-6:], stored[f"weight_tail:{name}"], atol=1e-7)


def test_rules_reproduce_the_stored_inputs() -> None:
    stored = fixture("rules")
    np.testing.assert_allclose(analytic_input("feat", (6,), 1, 0).numpy(), stored["input:feat"], atol=1e-7)
    np.testing.assert_allclose(gumbel("noise.ids", (6,)).numpy(), stored["gumbel:noise.ids"], atol=1e-6)
    np.testing.assert_array_equal(token_ids(8, 64).numpy(), stored["ids:n8_vocab64"])
    corner = image(2, 64, 64)[:, :, :2, :3].numpy()
    np.testing.assert_allclose(corner, stored["image:2x3x64x64_corner"], atol=1e-6)
