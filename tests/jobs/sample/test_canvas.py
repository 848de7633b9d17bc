"""The square of a picture that a model sees, and the way back."""

from __future__ import annotations

import numpy as np
import pytest

from adanat_cli.core.config.edit import Box, Sides
from adanat_cli.core.data.images import center_crop
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.sample.canvas import Canvas, canvas_of


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def canvas(height: int, width: int, box: Box | None = None, extend: Sides = Sides()) -> Canvas:  # noqa: B008
    return canvas_of(photo(height, width), None, box, extend, "it")


@pytest.mark.parametrize(
    ("box", "square"),
    [
        (Box(40, 5, 10, 10), (25, 0, 50)),  # in the middle: the central crop
        (Box(2, 5, 10, 10), (2, 0, 50)),  # moved left, no more than it must
        (Box(95, 0, 5, 50), (50, 0, 50)),
        (Box(0, 0, 50, 1), (0, 0, 50)),
        (Box(0, 0, 51, 1), (0, -25, 100)),  # too wide for it: the whole picture
    ],
)
def test_the_square_holds_all_that_changes_as_near_to_the_middle_as_it_can(box: Box, square: tuple[int, ...]) -> None:
    upright = canvas(100, 50, Box(box.y, box.x, box.height, box.width))
    for found, (left, top, side) in ((canvas(50, 100, box), square), (upright, (square[1], square[0], square[2]))):
        assert (found.left, found.top, found.side) == (left, top, side)
        assert not found.extended


def test_a_square_picture_of_the_models_size_is_taken_as_it_is() -> None:
    found = canvas(16, 16, Box(3, 2, 4, 5))
    assert np.array_equal(found.fit(16), photo(16, 16))
    expected = np.zeros((16, 16), bool)
    expected[2:7, 3:7] = True
    assert np.array_equal(found.fit_mask(16), expected)
    assert np.array_equal(found.enlarge(photo(16, 16)), photo(16, 16))


def test_other_pictures_are_scaled_as_training_images_are() -> None:
    from PIL import Image

    found = canvas(48, 100, Box(40, 5, 10, 10))
    square = Image.fromarray(photo(48, 100)[:, 26:74])
    assert np.array_equal(found.fit(16), np.asarray(center_crop(square, 16)))


@pytest.mark.parametrize("size", [7, 16, 200])
def test_no_pixel_that_may_change_is_lost_in_scaling(size: int) -> None:
    for x in (0, 501, 999):
        mask = canvas(1000, 1000, Box(x, x, 1, 1)).fit_mask(size)
        place = x * size // 1000
        assert mask[place, place]
        assert mask.sum() <= 4


def test_an_extension_is_drawn_and_the_rest_of_the_square_is_cut_off() -> None:
    found = canvas(16, 16, extend=Sides(left=4, right=4))
    assert (found.left, found.top, found.side) == (0, -4, 24)
    assert found.picture.shape == (16, 24, 3)
    assert np.array_equal(found.picture[:, 4:20], photo(16, 16))
    mask = found.fit_mask(24)
    assert not mask[4:20, 4:20].any()
    assert mask.sum() == 24 * 24 - 16 * 16
    assert np.array_equal(found.fit(24)[4:20, 4:20], photo(16, 16))
    assert found.scaled_inner(12) == (slice(2, 10), slice(0, 12))
    assert found.scaled_inner(16) == (slice(3, 14), slice(0, 16))
    assert found.enlarge(photo(24, 24)).shape == (16, 24, 3)


def test_a_box_is_added_to_an_extension() -> None:
    found = canvas(16, 16, Box(0, 0, 2, 3), Sides(bottom=8))
    assert found.mask.sum() == 2 * 3 + 8 * 16


@pytest.mark.parametrize(
    ("box", "extend", "words"),
    [
        (None, Sides(), "Nothing says what to change; give --mask FILE, --box"),
        (Box(10, 0, 10, 1), Sides(), r"--box 10,0,10,1 reaches beyond it, which has 16 x 8 pixels; expected x \+ wid"),
        (Box(0, 8, 1, 1), Sides(), "reaches beyond"),
        (None, Sides(left=10**6), r"--extend makes 1,000,016 x 8 pixels of it; expected at most 11,585 a side"),
    ],
)
def test_what_does_not_fit_the_picture_is_one_line(box: Box | None, extend: Sides, words: str) -> None:
    with pytest.raises(AdaNATError, match=words):
        canvas(8, 16, box, extend)


def test_a_black_mask_is_told() -> None:
    with pytest.raises(AdaNATError, match="Nothing of it would change: its mask is black everywhere"):
        canvas_of(photo(8, 8), np.zeros((8, 8), bool), None, Sides(), "it")
