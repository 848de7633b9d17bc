"""The small autoencoder: shapes, learning and a codebook that stays in use."""

from __future__ import annotations

import pytest
import torch

from adanat_cli.core.config import VQAEConfig
from adanat_cli.core.tokenizer.codebook import Codebook
from adanat_cli.core.tokenizer.losses import (
    PatchDiscriminator,
    discriminator_loss,
    reconstruction_loss,
)
from adanat_cli.core.tokenizer.vqae import VQAE

CONFIG = VQAEConfig(image_size=16, codebook_size=32, code_width=8, channels=(16, 32))


def test_ids_fill_the_grid_and_decode_to_the_image_size() -> None:
    torch.manual_seed(0)
    vqae = VQAE(CONFIG).eval()
    token_ids = vqae.encode(torch.rand(3, 3, 16, 16))
    assert token_ids.shape == (3, CONFIG.num_tokens)
    assert token_ids.dtype == torch.int64
    assert 0 <= int(token_ids.min()) <= int(token_ids.max()) < CONFIG.codebook_size
    with torch.no_grad():
        images = vqae.decode(token_ids)
    assert images.shape == (3, 3, 16, 16)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1


def test_ids_run_along_the_rows_of_the_grid() -> None:
    torch.manual_seed(0)
    vqae = VQAE(CONFIG).eval()
    images = torch.full((1, 3, 16, 16), 0.5)
    changed = images.clone()
    changed[..., 12:, :4] = 1.0  # the lower left corner: first token of the last row
    latents, other = vqae.latents(images), vqae.latents(changed)
    moved = (latents - other).norm(dim=-1)[0]
    assert int(moved.argmax()) == 3 * 4


def test_gradients_pass_straight_through_to_the_encoder() -> None:
    torch.manual_seed(0)
    vqae = VQAE(CONFIG)
    images = torch.rand(2, 3, 16, 16)
    reconstruction_loss(vqae(images).images, images).backward()
    first = vqae.encoder[0].weight.grad
    assert first is not None
    assert float(first.abs().sum()) > 0


def test_a_short_training_beats_the_mean_image_and_uses_the_codebook() -> None:
    torch.manual_seed(0)
    vqae = VQAE(CONFIG)
    codebook = Codebook(vqae.codes, decay=0.9)
    optimizer = torch.optim.Adam(vqae.parameters(), 3e-3)
    # Flat colours and one bright quarter: a few bits an image.
    images = torch.rand(128, 3, 1, 1).expand(-1, -1, 16, 16).clone()
    for index in range(128):
        row, column = index % 2 * 8, index // 2 % 2 * 8
        images[index, :, row : row + 8, column : column + 8] = 1.0
    for step in range(120):
        batch = images[torch.arange(step * 32, step * 32 + 32) % 128]
        result = vqae(batch)
        loss = reconstruction_loss(result.images, batch) + 0.25 * result.commitment
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        codebook.update(result.latents.detach(), result.token_ids)
    decoded = vqae.decode(vqae.encode(images))
    error, spread = (decoded - images).square().mean(), (images - images.mean(0)).square().mean()
    assert error < 0.1 * spread
    assert codebook.perplexity() > CONFIG.codebook_size / 4


def test_dead_codes_are_revived() -> None:
    torch.manual_seed(0)
    latents = torch.nn.functional.normalize(torch.randn(64, 4, 8), dim=-1)
    # All codes but one lie where no latent is.
    codes = -latents.mean((0, 1)).expand(32, 8).clone()
    codes = torch.nn.functional.normalize(codes, dim=-1)
    codebook = Codebook(codes, decay=0.5)
    for _ in range(10):
        ids = (latents @ codes.T).argmax(-1)
        codebook.update(latents, ids)
    assert codebook.perplexity() > 16
    torch.testing.assert_close(codes.norm(dim=-1), torch.ones(32))


def test_perplexity_is_k_for_even_use_and_one_after_collapse() -> None:
    codebook = Codebook(torch.eye(4), decay=0.9)
    codebook.usage.fill_(3.0)
    assert codebook.perplexity() == pytest.approx(4)
    codebook.usage.copy_(torch.tensor([5.0, 0, 0, 0]))
    assert codebook.perplexity() == pytest.approx(1)


def test_the_discriminator_learns_to_tell_noise_from_flat_images() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(32, width=16)
    optimizer = torch.optim.Adam(discriminator.parameters(), 2e-3)
    for _ in range(40):
        real, fake = torch.rand(16, 3, 1, 1).expand(-1, -1, 32, 32), torch.rand(16, 3, 32, 32)
        loss = discriminator_loss(discriminator([real]), discriminator([fake]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert discriminator([real])[0].mean() > discriminator([fake])[0].mean() + 0.5


def test_hinge_loss_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 1.0])
    assert float(discriminator_loss([real], [fake])) == pytest.approx(0.5 * ((0 + 1) / 2 + (0 + 2) / 2))


def test_reconstruction_loss_by_hand() -> None:
    zeros = torch.zeros(1, 3, 2, 2)
    # On the [-1, 1] scale the difference is 1: absolute 1 plus squared 1.
    assert float(reconstruction_loss(zeros + 0.5, zeros)) == pytest.approx(2.0)
