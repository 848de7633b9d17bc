"""Images in an .npz as guided-diffusion's evaluator reads it, streamed: they are never whole in memory."""

from __future__ import annotations

import math
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adanat_cli.core.config.base import MAX_IMAGE_SIZE
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.metrics.npz import Archive
from adanat_cli.jobs.evaluate.image_sets import ImageBatch, images_to_read
from adanat_cli.jobs.sample.npz import OF_PROMPTS

_DAMAGE = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)


class SampleFile:
    """``arr_0`` uint8 (n, H, W, 3) of an .npz, and its ``arr_1`` (n,) if it holds the images' classes.

    Attributes:
        num_images: n.
        height, width: of every image, in pixels.
        missing_labels: why there are no classes to compare with; "" if there are.
        missing_prompts: why there are no prompts to compare with.
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
        self._labels, self.missing_labels = self._read_labels(archive)
        # One handle for the whole run: in a compressed file, a seek forward only reads on.
        opened = ExitStack()
        self._zip = opened.enter_context(zipfile.ZipFile(path))
        self._stream = opened.enter_context(self._zip.open("arr_0.npy"))
        weakref.finalize(self, opened.close)

    @property
    def origin(self) -> str:
        """The file's name."""
        return self._path.name

    @property
    def image_size(self) -> int:
        """The longer side of every image."""
        return max(self.height, self.width)

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
        """Return the images' shape, and the checksums of images and classes, which the archive's index holds."""
        arrays = {"samples": "arr_0.npy"} | ({} if self._labels is None else {"labels": "arr_1.npy"})
        checksums = {f"{name}_crc32": f"{self._zip.getinfo(file).CRC:08x}" for name, file in arrays.items()}
        return {"samples_shape": [self.num_images, self.height, self.width], **checksums}

    def _read(self, images_from_end: int, num_bytes: int) -> bytes:
        """Read bytes from an image on, which is counted back from the end: the header's length does not matter."""
        place = self._zip.getinfo("arr_0.npy").file_size + images_from_end * self.height * self.width * 3
        try:
            self._stream.seek(place)
            content = self._stream.read(num_bytes)
        except _DAMAGE as error:
            raise AdaNATError(f"{self._path} is damaged ({error}); write or fetch it again.") from error
        require(len(content) == num_bytes, f"{self._path} ends too early; write or fetch it again.")
        return content

    def _read_labels(self, archive: Archive) -> tuple[Tensor | None, str]:
        """(n,) int64 classes, where the file has them in a form that fits, or why there are none."""
        if "arr_1" not in archive.names or OF_PROMPTS in archive.names:
            return None, f"{self._path.name} holds no classes (arr_1)"
        header = archive.header("arr_1")
        if header.shape != (self.num_images,) or header.dtype.kind not in "iu":
            found = f"arr_1 of {self._path.name} is {header.dtype} of shape {header.shape}"
            return None, f"{found}; classes are whole numbers of shape ({self.num_images},)"
        return torch.from_numpy(archive.read("arr_1").astype(np.int64)), ""
