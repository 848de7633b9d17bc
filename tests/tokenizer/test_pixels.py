"""Pixels as tokens."""

from __future__ import annotations

import pytest
import torch

from adanat_cli.core.config import PixelConfig, tokenizer_config
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.tokenizer.build import build_tokenizer


def test_grey_levels_survive_the_round_trip() -> None:
    tokenizer = build_tokenizer(PixelConfig(image_size=4, codebook_size=17))
    ids = torch.arange(16).view(1, 16).repeat(2, 1) + torch.tensor([[0], [1]])
    images = tokenizer.decode(ids)
    assert images.shape == (2, 3, 4, 4)
    assert images[1, :, -1, -1].tolist() == [1, 1, 1]
    assert torch.equal(tokenizer.encode(images), ids)


def test_colours_become_the_nearest_grey() -> None:
    tokenizer = build_tokenizer(PixelConfig(image_size=1, codebook_size=3))
    colour = torch.tensor([1.0, 0.5, 0.1]).view(1, 3, 1, 1)
    assert tokenizer.encode(colour).tolist() == [[1]]


def test_all_colours_survive_the_round_trip() -> None:
    tokenizer = build_tokenizer(PixelConfig(image_size=6, codebook_size=27, colour=True))
    ids = torch.arange(36)[None] % 27
    images = tokenizer.decode(ids)
    assert torch.equal(tokenizer.encode(images), ids)
    assert tokenizer.codebook.shape == (27, 3)
    assert images[0, :, 0, 1].tolist() == [0, 0, 0.5]
    assert images[0, :, 3, 0].tolist() == [1, 0, 0]
    with pytest.raises(AdaNATError, match="cube of levels"):
        PixelConfig(codebook_size=28, colour=True)


def test_a_token_may_be_the_mean_colour_of_a_patch() -> None:
    tokenizer = build_tokenizer(PixelConfig(image_size=4, codebook_size=8, colour=True, patch=2))
    ids = torch.tensor([[0, 4, 6, 7]])
    images = tokenizer.decode(ids)
    assert images.shape == (1, 3, 4, 4)
    assert torch.equal(images[0, 0], torch.tensor([[0.0, 0, 1, 1]] * 2 + [[1.0, 1, 1, 1]] * 2))
    assert torch.equal(tokenizer.encode(images), ids)


def test_its_configuration_survives_json() -> None:
    config = PixelConfig(image_size=8, codebook_size=17)
    assert tokenizer_config(config.to_dict(), "here") == config
    assert config.grid == (8, 8)
