"""Images as one .npz, written as they come."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from adanat_cli.core.checkpoints.files import atomic_path
from adanat_cli.core.errors import require
from adanat_cli.jobs.sample.conditions import Conditions
from adanat_cli.jobs.sample.pictures import Pixels

OF_PROMPTS = "of_prompts"
"""The array that says that ``arr_1`` numbers prompts, not classes."""

_LABELS_AT_ONCE = 2**16


@contextmanager
def npz_writer(path: Path, num_images: int, size: int, conditions: Conditions) -> Iterator[Callable[[Pixels], None]]:
    """Yield a function that appends images to an .npz as guided-diffusion's evaluator reads it.

    The file holds ``arr_0`` uint8 (n, H, W, 3) and ``arr_1`` int64 (n,), class labels or positions of prompts. It
    appears when it is whole.

    Args:
        path: file to write.
        num_images: n.
        size: side of the images in pixels.
        conditions: classes or prompts of the images.
    """
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": (num_images, size, size, 3)}
            np.lib.format.write_array_header_1_0(member, header)

            def append(images: Pixels) -> None:
                member.write(np.ascontiguousarray(images).tobytes())

            yield append
        if conditions.null is not None:
            with archive.open(f"{OF_PROMPTS}.npy", "w") as member:
                np.lib.format.write_array(member, np.array(True))
        with archive.open("arr_1.npy", "w", force_zip64=True) as member:
            header = {"descr": "<i8", "fortran_order": False, "shape": (num_images,)}
            np.lib.format.write_array_header_1_0(member, header)
            for first in range(0, num_images, _LABELS_AT_ONCE):
                indices = range(first, min(first + _LABELS_AT_ONCE, num_images))
                member.write(conditions.numbers(indices).numpy().astype("<i8").tobytes())


def check_room(folder: Path, num_images: int, size: int) -> None:
    """Find out before hours of sampling that an .npz does not fit on the disk.

    Raises:
        AdaNATError: with both sizes.
    """
    num_bytes, free = num_images * (3 * size**2 + 8), shutil.disk_usage(folder).free
    require(
        num_bytes <= free,
        f"{num_images:,} images of {size} pixels take {num_bytes / 1e9:,.3g} GB, and {folder} has "
        f"{free / 1e9:,.3g} GB left; ask for fewer (-n), or choose another --output.",
    )
