"""The pictures and masks that ``adanat edit`` is given, as files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from adanat_cli.core.config.edit import EditRequest
from adanat_cli.core.data.described import plural
from adanat_cli.core.data.images import to_rgb, why_unreadable, with_image
from adanat_cli.core.data.source_files import IMAGE_SUFFIXES
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.jobs.sample.canvas import Canvas, Mask, canvas_of
from adanat_cli.jobs.sample.pictures import Pixels
from adanat_cli.jobs.sample.sample_folder import RECORD, is_picture

_Read = TypeVar("_Read")
Picture = Image.Image | np.ndarray[Any, Any] | Path | str
_WHITE = 128
"""Least grey of a mask that counts as white."""


@dataclass(frozen=True)
class EditFile:
    """A picture to edit.

    Attributes:
        image: its file.
        mask: that of its mask; None for none.
    """

    image: Path
    mask: Path | None

    def open(self, request: EditRequest) -> Canvas:
        """Read picture and mask.

        Raises:
            AdaNATError: if one of them cannot be read, or mask, box or extension do not fit the picture.
        """
        picture, mask = picture_and_mask(self.image, self.mask)
        return canvas_of(picture, mask, request.box, request.extend, str(self.image))

    def digest(self) -> str:
        """The sha256 of what the files hold."""
        files = filter(None, (self.image, self.mask))
        return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


def picture_and_mask(image: Picture, mask: Picture | None) -> tuple[Pixels, Mask | None]:
    """A picture of any mode as (h, w, 3) bytes, upright; and its mask as (h, w), True where it is lighter than grey.

    Raises:
        AdaNATError: if a file or an array is no image, the mask is transparent in parts, or their sizes differ.
    """
    picture = _use(image, lambda opened: np.asarray(to_rgb(opened)), "image")
    if mask is None:
        return picture, None
    changed, is_opaque = _use(mask, lambda opened: (_is_white(opened), _is_opaque(opened)), "mask")
    name, other = (str(what) if isinstance(what, Path | str) else "The mask" for what in (mask, image))
    other = other if isinstance(image, Path | str) else "the image"
    require(
        is_opaque,  # some programs erase what is to change, others paint it on a transparent layer
        f"{name} is transparent in parts, which could mean either; expected white where to change, black elsewhere.",
    )
    require(
        changed.shape == picture.shape[:2],
        f"{name} has {changed.shape[1]} x {changed.shape[0]} pixels, and {other} {picture.shape[1]} x "
        f"{picture.shape[0]}; expected a mask of the image's size, white where to change.",
    )
    return picture, changed


def _is_white(mask: Image.Image) -> Mask:
    return np.asarray(to_rgb(mask).convert("L")) >= _WHITE


def _is_opaque(mask: Image.Image) -> bool:
    return not mask.has_transparency_data or mask.convert("RGBA").getchannel("A").getextrema()[0] == 255


def _use(given: Picture, use: Callable[[Image.Image], _Read], what: str) -> _Read:
    """What ``use`` makes of a file, an array or a Pillow image."""
    if isinstance(given, Image.Image):
        return use(given)
    if isinstance(given, np.ndarray):
        shape, kind = given.shape, given.dtype
        fits = given.dtype in (np.uint8, bool) and (given.ndim == 2 or (given.ndim == 3 and given.shape[2] in (3, 4)))
        require(fits, f"The {what} is an array of {kind} and shape {shape}; expected (h, w, 3) or (h, w) of uint8.")
        return use(Image.fromarray(given))
    try:
        return with_image(Path(given), use)
    except Exception as problem:  # Pillow raises nearly anything on damaged files
        why = why_unreadable(Path(given), problem)
        raise AdaNATError(f"{given} cannot be read as an image: {why}; give another, or leave it out.") from problem


def find_files(request: EditRequest) -> list[EditFile]:
    """The pictures of a request, each with its mask.

    Raises:
        AdaNATError: if there is no picture, or one has no mask.
    """
    request.check_files()
    image, mask = request.image, request.mask
    images = [image] if not image.is_dir() else _images(image)
    if image.is_dir() and (image / RECORD).exists():  # of `adanat sample`, with a grid beside the images
        images = [file for file in images if not is_picture(file.name)]
    require(bool(images), f"{image} holds no images; expected PNG, JPEG or other image files directly in it.")
    if mask is None or not mask.is_dir():
        return [EditFile(file, mask) for file in images]
    masks = _images(mask)
    by_name, by_stem = {file.name: file for file in masks}, {file.stem: file for file in masks}
    pairs = [EditFile(file, by_name.get(file.name) or by_stem.get(file.stem)) for file in images]
    without = [pair.image.name for pair in pairs if pair.mask is None]
    others = len(without) - 1
    more = f" and for {others} more {plural('image', others)}" if others > 0 else ""
    require(
        not without,
        f"{mask} holds no mask for {(without or [''])[0]}{more}; expected an image of the same name for each.",
    )
    return pairs


def passed_over(files: Sequence[EditFile], given: Path) -> Iterator[str]:
    """Yield a line for each kind of what is given and lost: later pictures of animations, deep colours, sub-folders."""
    facts = {
        file.image.name: with_image(file.image, lambda opened: (_is_animated(opened), _is_deep(opened)))
        for file in files
    }
    if animated := [name for name, (is_animated, _) in facts.items() if is_animated]:
        others = f" and {len(animated) - 1} more" if len(animated) > 1 else ""
        verb = "hold" if others else "holds"
        yield f"{animated[0]}{others} {verb} several pictures; only the first is edited."
    if deep := [name for name, (_, is_deep) in facts.items() if is_deep]:
        others = f" and {len(deep) - 1} more" if len(deep) > 1 else ""
        verb = "have" if others else "has"
        yield f"{deep[0]}{others} {verb} more than 8 bits a channel; results have 8, also where nothing is drawn."
    folders = sorted(entry.name for entry in given.iterdir() if entry.is_dir()) if given.is_dir() else []
    folders = [name for name in folders if not name.startswith(".")]
    if folders:
        others = f" and {len(folders) - 1} more" if len(folders) > 1 else ""
        yield f"The images in {given / folders[0]}{others} are not edited; give a sub-folder itself to edit its images."


def _is_animated(opened: Image.Image) -> bool:
    return getattr(opened, "n_frames", 1) > 1


def _is_deep(opened: Image.Image) -> bool:
    """Whether a file has more than 8 bits a channel; of colours, only the layout of its data tells."""
    return opened.mode.startswith(("I", "F")) or any(";16" in str(tile[3]) for tile in getattr(opened, "tile", ()))


def _images(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted by name."""
    try:
        files = [file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")]
    except OSError as error:
        raise AdaNATError(f"{folder} cannot be read ({error.strerror}); correct its permissions.") from error
    return sorted(file for file in files if file.name.lower().endswith(IMAGE_SUFFIXES))
