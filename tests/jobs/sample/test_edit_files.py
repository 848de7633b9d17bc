"""The images and masks of an edit: which belong together, and what is read from a mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adanat_cli.core.config.edit import EditRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.sample.edit_files import find_files, picture_and_mask

SIZE = (8, 8)


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        (2, "no mask for p2.png;"),
        (1, "no mask for p1.png and for 1 more image;"),
        (0, "no mask for p0.png and for 2 more images;"),
    ],
)
def test_images_without_a_mask_are_counted(tmp_path: Path, masks: int, words: str) -> None:
    for folder, number in (("images", 3), ("masks", masks)):
        (tmp_path / folder).mkdir()
        for index in range(number):
            Image.new("L", SIZE).save(tmp_path / folder / f"p{index}.png")
    with pytest.raises(AdaNATError, match=words):
        find_files(EditRequest(tmp_path / "images", mask=tmp_path / "masks"))


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "RGBA", "LA"])
def test_a_mask_may_have_any_mode_if_all_of_it_is_opaque(tmp_path: Path, mode: str) -> None:
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).convert("RGB").convert(mode).save(tmp_path / "mask.png")
    _, changed = picture_and_mask(Image.new("RGB", SIZE), tmp_path / "mask.png")
    assert changed is not None
    assert (changed == np.eye(8, dtype=bool)).all()


@pytest.mark.parametrize(("mode", "paint"), [("LA", (255, 255)), ("RGBA", (255, 255, 255, 255))])
def test_a_mask_that_is_transparent_in_parts_is_refused(mode: str, paint: tuple[int, ...]) -> None:
    """White strokes on a transparent layer, and a hole in a black one, would be read in opposite ways."""
    strokes = Image.new(mode, SIZE)
    strokes.putpixel((1, 2), paint)
    hole = Image.new("L", SIZE).convert(mode)
    hole.putpixel((1, 2), tuple(0 for _ in paint))
    for mask in (strokes, hole):
        with pytest.raises(AdaNATError, match=r"The mask is transparent in parts, .*; expected white where to change"):
            picture_and_mask(Image.new("RGB", SIZE), mask)
