"""Grids with labels: every image is there pixel by pixel, and text stays within its column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adanat_cli.jobs.sample.labelled_grid import _FONT_SIZE, _fit, _font, enlarge, labelled_grid
from adanat_cli.jobs.sample.trace import _draw

NOISE = np.random.default_rng(0)


def noise(num: int, size: int) -> np.ndarray:
    """Images without a white pixel, which the grid's ground has."""
    return NOISE.integers(0, 200, (num, size, size, 3), np.uint8)


@pytest.mark.parametrize(("size", "factor"), [(8, 16), (28, 4), (64, 2), (100, 1), (128, 1), (256, 1)])
def test_small_images_are_enlarged_by_a_whole_factor(size: int, factor: int) -> None:
    images = noise(2, size)
    large = enlarge(images)
    assert large.shape == (2, factor * size, factor * size, 3)
    for row in range(factor):
        np.testing.assert_array_equal(large[:, row::factor, ::factor], images)


def places(grid: Image.Image, images: np.ndarray) -> list[tuple[int, int]]:
    """Upper left corners of images in a grid, each of which is there exactly once."""
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(grid), (4, 4, 3))[:, :, 0]
    found = []
    for image in images:
        ((top, left),) = np.argwhere((windows == image[:4, :4]).all((2, 3, 4)))
        np.testing.assert_array_equal(np.asarray(grid)[top : top + len(image), left : left + len(image)], image)
        found.append((int(top), int(left)))
    return found


@pytest.mark.parametrize(
    ("labels", "columns", "tops"),
    [
        (["a"] * 4, 0, [15, 15, 145, 145]),  # once above all
        (["a", "b"] * 2, 2, [15, 15, 145, 145]),  # once above each column
        (["a", "b", "c", "d"], 2, [15, 15, 160, 160]),  # above each image
        (["long name " * 4, "b", "c", "d"], 2, [30, 30, 175, 175]),  # in two lines
    ],
)
def test_labels_stand_above_what_they_name(labels: list[str], columns: int, tops: list[int]) -> None:
    images = noise(4, 128)
    grid = labelled_grid(images, labels, columns)
    assert places(grid, images) == list(zip(tops, [0, 130, 0, 130], strict=True))
    band = np.asarray(grid)[: tops[0]]
    assert band.min() < 50  # something is written there
    assert grid.size == (258, tops[-1] + 128)


def test_a_picture_without_room_has_no_label() -> None:
    images = NOISE.integers(0, 200, (2, 200, 20, 3), np.uint8)
    assert labelled_grid(images, ["a", "b"]).size == (42, 200)


@pytest.mark.parametrize(
    "label",
    ["word", "many short words in a row " * 5, "Unbrokenandmuchtoolongforitscolumn" * 3, "日本" * 40, "a\nb", ""],
)
def test_text_stays_within_its_width(label: str) -> None:
    font = _font()
    assert font.size == _FONT_SIZE
    text = _fit(label, 100, font)
    assert text.count("\n") <= 1
    assert all(font.getlength(line) <= 100 for line in text.split("\n"))
    whole = " ".join(label.split()).replace(" ", "")
    if not text.endswith("…"):
        assert text.replace("\n", "").replace(" ", "").replace("\\n", "") == whole or "\n" in label


def test_a_trace_shows_every_pixel_as_a_square_of_whole_pixels(tmp_path: Path) -> None:
    images, masks = noise(3, 16), np.zeros((3, 4, 4), bool)
    _draw(tmp_path / "trace.png", images, masks, torch.rand(3, 4), "title")
    with Image.open(tmp_path / "trace.png") as picture:
        shown = np.asarray(picture.convert("RGB"))
    for image in images:
        assert any(is_inside(shown, image.repeat(factor, 0).repeat(factor, 1), factor) for factor in range(8, 14))


def is_inside(shown: np.ndarray, large: np.ndarray, edge: int) -> bool:
    """Whether a picture shows an image without its edge, where the frame is drawn."""
    inner = large[edge:-edge, edge:-edge]
    found = np.argwhere((shown == inner[0, 0]).all(-1))
    return any(np.array_equal(shown[y : y + len(inner), x : x + len(inner)], inner) for y, x in found)
