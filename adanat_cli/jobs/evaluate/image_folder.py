"""A folder of generated images, read as they are: no crop, no resampling."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from adanat_cli.core.data.images import Pixels, to_rgb, why_unreadable, with_image
from adanat_cli.core.data.records import ImageRecord, in_order
from adanat_cli.core.data.source_files import SourceFiles, list_files
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.jobs.evaluate.image_sets import ImageBatch, images_to_read
from adanat_cli.jobs.sample.sample_folder import NPZ, RECORD, is_picture, of_last_run


class ImageFolder:
    """All images below a folder, by name; they must have one size.

    Attributes:
        num_images: of the folder.
        height, width: of every image, in pixels.
        note: what of the folder is left out, and what the run of `adanat sample` that wrote it lacks; "" for nothing.
        missing_labels, missing_prompts: why there are no classes and no prompts to compare with.
    """

    missing_labels = "image files do not tell which class was asked for"
    missing_prompts = "image files do not tell which prompt was asked for"

    def __init__(self, folder: Path, num_workers: int, device: torch.device) -> None:
        """List the images and read the size of each, which its first bytes tell.

        Raises:
            AdaNATError: if there are none, one cannot be read, or their sizes differ.
        """
        require(folder.is_dir(), f"--images {folder} is not a folder; give a folder of PNG or JPEG files.")
        self._folder, self._num_workers, self._device = folder, num_workers, device
        self._files, self.note = of_last_run(folder, _list_images(folder))
        require(
            bool(self._files),
            f"{folder} holds no images; expected files such as .png or .jpg, in it or in folders below."
            + (f" Its {NPZ} is measured with --samples {folder / NPZ}." if (folder / NPZ).exists() else ""),
        )
        self.num_images = len(self._files)
        with ThreadPoolExecutor(max(1, num_workers)) as pool:
            sizes = list(pool.map(self._size, self._files))
        self.width, self.height = sizes[0]
        for file, size in zip(self._files, sizes, strict=True):
            self._check_size(file, size)

    @property
    def origin(self) -> str:
        """The folder's name."""
        return self._folder.resolve().name

    @property
    def image_size(self) -> int:
        """The longer side of every image."""
        return max(self.height, self.width)

    def batches(self, start: int, stop: int) -> Iterator[ImageBatch]:
        """Yield images start … stop - 1 in the order of their names."""
        pending = (partial(self._load, index) for index in range(start, stop))
        records = in_order(pending, self._num_workers)
        while batch := list(islice(records, images_to_read(self.height, self.width, self._device))):
            pixels = np.stack([record.pixels for record in batch if record.pixels is not None])
            yield ImageBatch(torch.from_numpy(pixels).permute(0, 3, 1, 2))

    def classes(self, num_images: int) -> None:
        """Files do not tell their class."""
        return

    def identity(self) -> dict[str, Any]:
        """Return number and a digest of names, sizes and times of the files: cheap, and other after a change."""
        return {"files": len(self._files), "files_digest": SourceFiles(self._folder, self._files).digest()}

    def _size(self, file: str) -> tuple[int, int]:
        try:
            return with_image(self._folder / file, lambda image: image.size)
        except Exception as error:  # Pillow raises nearly anything on damaged files
            why = why_unreadable(self._folder / file, error)
            raise AdaNATError(
                f"{self._folder / file} cannot be read as an image ({why}); repair or remove it."
            ) from error

    def _check_size(self, file: str, size: tuple[int, int]) -> None:
        if size != (self.width, self.height):
            raise AdaNATError(
                f"Images of one size are expected, but {self._files[0]} has {self.width} x {self.height} pixels and "
                f"{file} has {size[0]} x {size[1]}; keep one size in {self._folder}."
            )

    def _load(self, index: int) -> ImageRecord:
        file = self._files[index]
        return ImageRecord(index, self._pixels(file), 0, (), file)

    def _pixels(self, file: str) -> Pixels:
        try:
            pixels = with_image(self._folder / file, lambda image: np.asarray(to_rgb(image)))
        except Exception as error:
            raise AdaNATError(f"{self._folder / file} cannot be read to its end; repair or remove it.") from error
        self._check_size(file, (pixels.shape[1], pixels.shape[0]))  # an upright image may be a turned one
        return pixels


def _list_images(folder: Path) -> list[str]:
    """Image files below a folder, without the pictures of `adanat sample`, and in a run's folder without other runs."""

    @cache
    def is_another_run(inside: PurePosixPath) -> bool:
        return inside != PurePosixPath() and ((folder / inside / RECORD).exists() or is_another_run(inside.parent))

    is_run = (folder / RECORD).exists()
    paths = ((file, PurePosixPath(file)) for file in list_files(folder).images)
    return [file for file, path in paths if not is_picture(path.name) and not (is_run and is_another_run(path.parent))]
