"""Sets of images to measure: any range can be read, in memory that does not grow with the number of images."""

from __future__ import annotations

import math
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache, partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from adanat_cli.core.config.base import MAX_IMAGE_SIZE
from adanat_cli.core.data.images import Pixels, to_rgb, why_unreadable, with_image
from adanat_cli.core.data.parts import Parts
from adanat_cli.core.data.records import in_order
from adanat_cli.core.data.source_files import SourceFiles, list_files
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.metrics.npz import Archive
from adanat_cli.jobs.runtime.devices import images_at_once
from adanat_cli.jobs.sample.npz import OF_PROMPTS
from adanat_cli.jobs.sample.sample_folder import NPZ, RECORD, is_picture, of_last_run

_SMALLEST, _MOST_READ = 64, 256
_DAMAGE = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)


class ImageBatch(NamedTuple):
    """Some images of a set.

    Attributes:
        images: (B, 3, H, W), bytes or floats in [0, 1].
        labels: (B,) int64, class ids; None where they have none.
        skipped: unreadable images in between, name to reason.
        prompts: B texts; None where they have none.
        errors: (B,), mean squared error against the originals; None where they have none.
    """

    images: Tensor
    labels: Tensor | None = None
    skipped: Mapping[str, str] = {}
    prompts: Sequence[str] | None = None
    errors: Tensor | None = None


class ImagePart(NamedTuple):
    """One part of the images.

    Attributes:
        number: number of the part, from 0.
        batches: images of the part; they are generated or decoded when they are asked for.
    """

    number: int
    batches: Iterator[ImageBatch]


class ImageSet(Protocol):
    """Images in a fixed order.

    Attributes:
        num_images: number of images in the whole set.
        missing_labels: why there are no classes to compare with; "" if there are.
        missing_prompts: why there are no prompts to compare with; "" if there are.
    """

    num_images: int
    missing_labels: str
    missing_prompts: str

    @property
    def origin(self) -> str:
        """Name of the folder, file or model that they come from, without its path."""

    @property
    def image_size(self) -> int:
        """Their longer side in pixels; 0 if not known."""

    def batches(self, start: int, stop: int) -> Iterator[ImageBatch]:
        """Yield images start … stop - 1 in order."""

    def classes(self, num_images: int) -> set[int] | None:
        """Class ids of the first ``num_images``; None where they have no classes."""

    def identity(self) -> dict[str, Any]:
        """Return what identifies these images wherever they are, as JSON values."""


def parts_of(images: ImageSet, parts: Parts, is_done: Callable[[int], bool]) -> Iterator[ImagePart]:
    """Yield this process's parts of the images, but for those whose number is done."""
    for number, start, stop in parts.mine():
        if not is_done(number):
            yield ImagePart(number, images.batches(start, stop))


def images_to_read(height: int, width: int, device: torch.device) -> int:
    """Number of images of this size, in pixels, to decode at a time."""
    return min(images_at_once(max(height, width, _SMALLEST), device), _MOST_READ)


class ImageFolder:
    """All images below a folder, by name, as an ``ImageSet``; they must have one size.

    Attributes:
        height, width: size of the images, in pixels.
        note: what of the folder is left out, and what the run of `adanat sample` that wrote it lacks; "" for nothing.
    """

    missing_labels = "image files do not record the requested class"
    missing_prompts = "image files do not record the prompt"

    def __init__(self, folder: Path, num_workers: int, device: torch.device) -> None:
        """List the images and read the size of each from its first bytes.

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
        self.origin, self.num_images = folder.resolve().name, len(self._files)
        with ThreadPoolExecutor(max(1, num_workers)) as pool:
            sizes = list(pool.map(self._size, self._files))
        self.width, self.height = sizes[0]
        self.image_size = max(sizes[0])
        for file, size in zip(self._files, sizes, strict=True):
            self._check_size(file, size)

    def batches(self, start: int, stop: int) -> Iterator[ImageBatch]:
        """Yield images start … stop - 1 in the order of their names."""
        images = in_order((partial(self._pixels, file) for file in self._files[start:stop]), self._num_workers)
        while batch := list(islice(images, images_to_read(self.height, self.width, self._device))):
            yield ImageBatch(torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2))

    def classes(self, num_images: int) -> None:
        """Image files do not record their class."""
        return

    def identity(self) -> dict[str, Any]:
        """Return the number of files and a digest of their names, sizes and times, which is cheap to compute."""
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

    def _pixels(self, file: str) -> Pixels:
        try:
            pixels = with_image(self._folder / file, lambda image: np.asarray(to_rgb(image)))
        except Exception as error:
            raise AdaNATError(f"{self._folder / file} cannot be read to its end; repair or remove it.") from error
        self._check_size(file, (pixels.shape[1], pixels.shape[0]))  # an image may be stored on its side
        return pixels


def _list_images(folder: Path) -> list[str]:
    """Image files below a folder, without the pictures of `adanat sample`, and in a run's folder without other runs."""

    @cache
    def is_another_run(inside: PurePosixPath) -> bool:
        return inside != PurePosixPath() and ((folder / inside / RECORD).exists() or is_another_run(inside.parent))

    is_run = (folder / RECORD).exists()
    paths = ((file, PurePosixPath(file)) for file in list_files(folder).images)
    return [file for file, path in paths if not is_picture(path.name) and not (is_run and is_another_run(path.parent))]


class SampleFile:
    """Images in an .npz as guided-diffusion's evaluator reads it, as an ``ImageSet`` that is never whole in memory.

    They are ``arr_0``, uint8 (n, H, W, 3); ``arr_1`` (n,) may hold their classes.
    """

    missing_prompts = "files of images hold no prompts"

    def __init__(self, path: Path, device: torch.device) -> None:
        """Read the headers of the arrays.

        Raises:
            AdaNATError: if the file is missing, damaged, or holds something else; pickled objects are never opened.
        """
        self._path, self._device, archive = path, device, Archive(path)
        require(
            "arr_0" in archive.names,
            f"{path} holds no arr_0, where images are expected; it holds {', '.join(archive.names[:8])}.",
        )
        header = archive.header("arr_0")
        shape = header.shape
        require(
            header.dtype == np.uint8
            and len(shape) == 4
            and shape[3] == 3
            and 0 not in shape
            and max(shape[1:]) <= MAX_IMAGE_SIZE,
            f"arr_0 of {path} is {header.dtype} of shape {shape}; expected bytes (uint8) of shape (n, H, W, 3).",
        )
        require(not header.fortran_order, f"arr_0 of {path} is stored column by column; write it in C order.")
        self.num_images, self.height, self.width = shape[:3]
        self.origin, self.image_size = path.name, max(self.height, self.width)
        self._labels, self.missing_labels = self._read_labels(archive)
        # One handle for the whole run: in a compressed file, a seek forward only reads on.
        opened = ExitStack()
        self._zip = opened.enter_context(zipfile.ZipFile(path))
        self._stream = opened.enter_context(self._zip.open("arr_0.npy"))
        weakref.finalize(self, opened.close)

    def batches(self, start: int, stop: int) -> Iterator[ImageBatch]:
        """Yield images start … stop - 1 in order.

        Raises:
            AdaNATError: if the file is damaged.
        """
        size = images_to_read(self.height, self.width, self._device)
        for first in range(start, stop, size):
            shape = (min(first + size, stop) - first, self.height, self.width, 3)
            content = bytearray(self._read(first - self.num_images, math.prod(shape)))
            pixels = torch.frombuffer(content, dtype=torch.uint8).reshape(shape)
            labels = None if self._labels is None else self._labels[first : first + len(pixels)]
            yield ImageBatch(pixels.permute(0, 3, 1, 2), labels)

    def classes(self, num_images: int) -> set[int] | None:
        """Class ids of the first images; None where the file holds no classes."""
        return None if self._labels is None else set(self._labels[:num_images].unique().tolist())

    def identity(self) -> dict[str, Any]:
        """Return the shape of the images, and the checksums of images and classes from the index of the archive."""
        arrays = {"samples": "arr_0.npy"} | ({} if self._labels is None else {"labels": "arr_1.npy"})
        checksums = {f"{name}_crc32": f"{self._zip.getinfo(file).CRC:08x}" for name, file in arrays.items()}
        return {"samples_shape": [self.num_images, self.height, self.width], **checksums}

    def _read(self, images_from_end: int, num_bytes: int) -> bytes:
        """Read bytes from an image on, counted from the end, so that the length of the header does not matter."""
        offset = self._zip.getinfo("arr_0.npy").file_size + images_from_end * self.height * self.width * 3
        try:
            self._stream.seek(offset)
            content = self._stream.read(num_bytes)
        except _DAMAGE as error:
            raise AdaNATError(f"{self._path} is damaged ({error}); write or fetch it again.") from error
        require(len(content) == num_bytes, f"{self._path} ends too early; write or fetch it again.")
        return content

    def _read_labels(self, archive: Archive) -> tuple[Tensor | None, str]:
        """Return the (n,) int64 classes, or why there are none."""
        if "arr_1" not in archive.names or OF_PROMPTS in archive.names:
            return None, f"{self._path.name} holds no classes (arr_1)"
        header = archive.header("arr_1")
        if header.shape != (self.num_images,) or header.dtype.kind not in "iu":
            found = f"arr_1 of {self._path.name} is {header.dtype} of shape {header.shape}"
            return None, f"{found}; classes are whole numbers of shape ({self.num_images},)"
        return torch.from_numpy(archive.read("arr_1").astype(np.int64)), ""
