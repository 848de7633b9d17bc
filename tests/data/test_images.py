from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from adanat_cli.core.data import images
from adanat_cli.core.data.images import center_crop, read_pixels, to_rgb
from adanat_cli.core.data.records import Row, decode
from tests.image_files import png


def gradient(width: int, height: int) -> np.ndarray:
    return np.linspace(0, 255, width * height).reshape(height, width).astype(np.uint8)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"]
)
def test_every_mode_becomes_rgb_of_the_same_size(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(gradient(6, 4).astype(np.uint16) * 257)
    else:
        image = Image.new("RGB", (6, 4), "orange").convert("L" if mode in ("I", "F", "PA", "LAB") else mode)
        image = image.convert(mode) if mode in ("I", "F") else image
    rgb = to_rgb(image)
    assert (rgb.mode, rgb.size) == ("RGB", (6, 4))


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    values = gradient(16, 16)
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(values.astype(np.uint16) * 257)))[..., 0], values)
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(values.astype(np.int32) * 257)))[..., 1], values)


def test_16_bit_png_files_come_out_as_8_bit_rgb(tmp_path: Path) -> None:
    Image.fromarray(gradient(8, 8).astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert np.array_equal(read_pixels(tmp_path / "deep.png", 8)[..., 2], gradient(8, 8))


def test_float_grey_in_unit_range_is_scaled() -> None:
    pixels = np.asarray(to_rgb(Image.fromarray(np.array([[0.0, 1.0]], np.float32))))
    assert pixels[0, :, 0].tolist() == [0, 255]


def test_greys_that_are_no_numbers_are_black() -> None:
    pixels = np.asarray(to_rgb(Image.fromarray(np.array([[0.0, np.nan], [1.0, np.inf]], np.float32))))
    assert pixels[..., 0].tolist() == [[0, 0], [0, 255]]
    assert np.asarray(to_rgb(Image.fromarray(np.array([[0.5, np.nan]], np.float32))))[0, :, 0].tolist() == [128, 0]


def test_cmyk_white_and_black_keep_their_meaning() -> None:
    image = Image.fromarray(np.array([[[0, 0, 0, 0], [0, 0, 0, 255]]], np.uint8), "CMYK")
    assert np.asarray(to_rgb(image))[0, :, 0].tolist() == [255, 0]


def test_transparent_pixels_come_out_white() -> None:
    rgba = Image.fromarray(np.array([[[9, 9, 9, 0], [9, 9, 9, 255]]], np.uint8))
    assert np.asarray(to_rgb(rgba))[0, :, 0].tolist() == [255, 9]


def test_transparent_palette_entry_comes_out_white() -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=0)
    assert np.asarray(to_rgb(Image.open(buffer))).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_exif_orientation_turns_the_image_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # the camera was held on its side: turn by 90 degrees clockwise
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=100)
    upright = to_rgb(Image.open(tmp_path / "turned.jpg"))
    assert upright.size == (16, 32)
    assert np.asarray(upright)[:14].min() > 240
    assert np.asarray(upright)[18:].max() < 15


@pytest.mark.parametrize("size", [(8, 8), (9, 8), (100, 37), (16, 500), (3, 5), (64, 65)])
def test_crop_is_a_square_of_the_asked_size(size: tuple[int, int]) -> None:
    assert center_crop(Image.new("RGB", size), 8).size == (8, 8)


def test_crop_of_the_asked_size_changes_nothing() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    assert np.array_equal(center_crop(image, 8), image)


def test_crop_takes_the_centre() -> None:
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:, 2:10] = 200
    assert np.asarray(center_crop(Image.fromarray(pixels), 8)).min() == 200


def test_crop_halves_by_plain_means_while_twice_too_large() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    once = pixels.reshape(16, 2, 16, 2, 3).astype(float).mean((1, 3)).round()
    twice = once.reshape(8, 2, 8, 2, 3).mean((1, 3))
    assert np.abs(np.asarray(center_crop(Image.fromarray(pixels), 8)) - twice).max() <= 2  # Pillow rounds each pass up


def test_crop_keeps_flat_colour_at_every_size() -> None:
    for side in (5, 8, 15, 16, 33):
        assert np.unique(np.asarray(center_crop(Image.new("RGB", (side, side + 3), (7, 7, 7)), 8))).tolist() == [7]


def reason(file: Path | bytes) -> str:
    return decode(Row(file, (), "x.png"), 0, 0, 8).error


@pytest.mark.parametrize("size", [(600, 1), (3, 400), (301, 8), (500, 7), (900, 60), (7, 2001)])
def test_the_square_of_a_long_picture_is_the_same_without_resampling_the_rest(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))
    whole = np.asarray(center_crop(image, 64)).astype(int)
    monkeypatch.setattr(images, "_MOST_RESAMPLED", 0)
    assert np.abs(np.asarray(center_crop(image, 64)) - whole).max() <= 2


def test_a_line_of_pixels_is_read_in_bounded_memory() -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert center_crop(Image.new("RGB", (60_000, 1), (7, 7, 7)), 256).getpixel((99, 99)) == (7, 7, 7)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # kilobytes


@pytest.mark.parametrize("place", ["before the pixels", "after the pixels", "a colour profile"])
def test_png_files_with_much_text_are_read(place: str, tmp_path: Path) -> None:
    file, info = tmp_path / "x.png", PngImagePlugin.PngInfo()
    much = b"x" * 3_000_000
    if place != "a colour profile":
        info.add_text("workflow", much.decode(), zip=True)
    Image.new("RGB", (8, 8), "red").save(file, pnginfo=info, icc_profile=much if place == "a colour profile" else None)
    if place == "after the pixels":
        start, pixels, end = (
            file.read_bytes().index(b"zTXt") - 4,
            *(file.read_bytes().index(c) for c in (b"IDAT", b"IEND")),
        )
        content = file.read_bytes()
        file.write_bytes(
            content[:start] + content[pixels - 4 : end - 4] + content[start : pixels - 4] + content[end - 4 :]
        )
    with pytest.raises(ValueError, match="too large"), Image.open(file) as image:
        image.load()
    assert np.array_equal(read_pixels(file, 8), np.full((8, 8, 3), (255, 0, 0)))
    assert np.array_equal(read_pixels(file.read_bytes(), 8), np.full((8, 8, 3), (255, 0, 0)))


def test_large_pictures_are_read_without_a_warning_and_bombs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    for name, side in (("large", 120), ("huge", 150)):
        Image.new("1", (side, side), 1).save(tmp_path / f"{name}.png")
    assert reason(tmp_path / "large.png") == ""
    assert (
        reason(tmp_path / "huge.png") == f"more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels, which is too large to open"
    )


def test_what_is_no_picture_is_told_and_its_place_is_not(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to("/nowhere/else.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "null.png").symlink_to("/dev/zero")
    (tmp_path / "lfs.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 99\n")
    (tmp_path / "eps.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.png").write_bytes(png(1)[:60])
    told = {file.stem: reason(file) for file in tmp_path.iterdir()}
    assert all(str(tmp_path) not in text and "/nowhere" not in text for text in told.values())
    assert told["pipe"] == told["null"] == told["folder"] == "a pipe, a device or a folder instead of a file"
    assert told["gone"] == "No such file or directory"
    assert "Git LFS pointer" in told["lfs"]
    assert "not an image" in told["eps"]
    assert "empty" in told["empty"]
    assert told["cut"]
