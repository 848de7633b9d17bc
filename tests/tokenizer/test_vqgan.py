"""The VQGAN against the reference: names, ids and images."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adanat_cli.core.config import VQGANConfig
from adanat_cli.core.tokenizer.vqgan import VQGAN
from tests.support import fill_analytic, fixture, fixture_json, image, token_ids

CONFIGS = {
    "tiny": VQGANConfig(image_size=64, codebook_size=64, code_width=32, base_channels=32, num_res_blocks=1),
    "f16": VQGANConfig(image_size=64),
}
STRIDES = {"tiny": 2, "f16": 4}
IMAGE_TOLERANCE, TOLERANCE = 1e-4, 3e-5


@cache
def vqgan(name: str) -> VQGAN:
    return fill_analytic(VQGAN(CONFIGS[name]))


def stats(images: Tensor) -> np.ndarray:
    return torch.stack([images.mean(), images.std(), images.min(), images.max()]).numpy()


def close(actual: Tensor | np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["tiny", "f16"])
def test_state_dict_names_and_shapes_are_the_references(name: str) -> None:
    expected = fixture_json("vqgan_keys")[name]
    with torch.device("meta"):
        state = VQGAN(CONFIGS[name]).state_dict()
    assert {key: list(tensor.shape) for key, tensor in state.items()} == expected["keys"]
    assert sum(tensor.numel() for tensor in state.values()) == expected["n_params"]


@pytest.mark.parametrize("name", ["tiny", "f16"])
@torch.inference_mode()
def test_encoding_agrees_with_the_reference(name: str) -> None:
    arrays, model, picture = fixture("vqgan"), vqgan(name), image(1, 64, 64)
    latents = model.encoder(picture)
    ids = model.encode(picture)
    codes = model.quantize.embedding(ids).view(1, 4, 4, -1).permute(0, 3, 1, 2)
    close(latents[:, ::8], arrays[f"{name}.z_stride"], TOLERANCE)
    np.testing.assert_array_equal(ids.view(4, 4).numpy(), arrays[f"{name}.indices"])
    # The reference's training loss, 0.25 for the codes: it checks the distance to the chosen codes.
    close(1.25 * F.mse_loss(codes, latents), arrays[f"{name}.commit_loss"], TOLERANCE)
    close(stats(model.decode_unclamped(ids)), arrays[f"{name}.recon_stats"], IMAGE_TOLERANCE)


@pytest.mark.parametrize("name", ["tiny", "f16"])
@torch.inference_mode()
def test_decoding_agrees_with_the_reference(name: str) -> None:
    arrays, model = fixture("vqgan"), vqgan(name)
    ids = token_ids(16, CONFIGS[name].codebook_size)[None]
    images, stride = model.decode_unclamped(ids), STRIDES[name]
    np.testing.assert_array_equal(ids.view(1, 4, 4).numpy(), arrays[f"{name}.decode_ids"])
    close(images[:, :, ::stride, ::stride], arrays[f"{name}.decode_strided"], IMAGE_TOLERANCE)
    close(images[:, :, :8, :8], arrays[f"{name}.decode_patch"], IMAGE_TOLERANCE)
    close(stats(images), arrays[f"{name}.decode_stats"], IMAGE_TOLERANCE)
    close(model.decode(ids).mean(), arrays[f"{name}.decode_clamped_mean"], IMAGE_TOLERANCE)


@torch.inference_mode()
def test_the_released_size_decodes_256_pixels_as_the_reference() -> None:
    arrays = fixture("vqgan")
    with torch.device("meta"):
        model = VQGAN(VQGANConfig(image_size=256))
    model.load_state_dict(vqgan("f16").state_dict(), assign=True)
    images = model.decode_unclamped(token_ids(256, 1024)[None])
    close(images[:, :, ::16, ::16], arrays["f16.decode16_strided"], IMAGE_TOLERANCE)
    close(stats(images), arrays["f16.decode16_stats"], IMAGE_TOLERANCE)
    close(F.avg_pool2d(images, 32), arrays["f16.decode16_pool32"], IMAGE_TOLERANCE)


@torch.inference_mode()
def test_ids_of_an_image_do_not_depend_on_its_batch() -> None:
    model, pictures = vqgan("tiny"), image(3, 64, 64)
    assert torch.equal(model.encode(pictures)[1:2], model.encode(pictures[1:2]))
