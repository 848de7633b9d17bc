"""Real images that are measured: which of a data set, by default those of a model's classes, and how they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import DataConfig
from adanat_cli.core.data.records import PendingImage, SkippedImages, in_order
from adanat_cli.core.data.sources import ImageSource, open_source
from adanat_cli.core.errors import require
from adanat_cli.jobs.evaluate.image_sets import ImageBatch
from adanat_cli.jobs.resolve.classes import find_classes, numbered_as_imagenet, shared_ids
from adanat_cli.jobs.resolve.models import nat_config
from adanat_cli.jobs.runtime.reporter import Reporter


class Chosen(NamedTuple):
    """The images that are measured.

    Attributes:
        source: the images.
        num_classes: number of chosen classes; 0 for all.
        ids: class id in the data to class id of the model; empty without a model.
    """

    source: ImageSource
    num_classes: int = 0
    ids: Mapping[int, int] = {}

    def own_ids(self, labels: Tensor) -> Tensor:
        """Map (n,) class ids in the data to class ids of the model; those that have none stay."""
        return torch.tensor([self.ids.get(label, label) for label in labels.tolist()], dtype=torch.int64)


def choose_images(config: DataConfig, classes: Sequence[str], folder: ModelFolder | None, reporter: Reporter) -> Chosen:
    """Open the images of some classes.

    Args:
        config: the data.
        classes: ids or names in the data, or "all"; empty for those that the model was trained on.
        folder: the model; None takes all classes.
        reporter: logs what follows from the model.

    Raises:
        AdaNATError: if the data cannot be read, or a class is not in it.
    """
    source = open_source(config)
    require("all" not in classes or len(classes) == 1, "--class all includes all classes; give no other beside it.")
    if tuple(classes) == ("all",):
        return Chosen(source)
    if asked := find_classes(classes, source.class_names, source.num_classes, "the data"):
        return Chosen(source.keep(tuple(asked)), len(asked))
    return Chosen(source) if folder is None else _own_classes(source, folder, reporter)


def _own_classes(source: ImageSource, folder: ModelFolder, reporter: Reporter) -> Chosen:
    """The images of the classes that a model was trained on, if they can be found in the data."""
    ids, num_seen = model_ids(source, folder), len(folder.labels())
    if ids is None:
        reporter.warn(
            f"The {num_seen} classes that model {folder.name} was trained on cannot be found among the "
            f"{source.num_classes} of {source.name} by name or number; all of these are used. Choose with --class."
        )
    if not ids:
        return Chosen(source)
    kept = source.keep(tuple(ids))
    if source.num_images is not None and kept.num_images == source.num_images:
        return Chosen(source, 0, ids)
    reporter.log(
        f"Images of the {num_seen} classes that model {folder.name} was trained on; --class all includes all classes."
    )
    return Chosen(kept, num_seen, ids)


def model_ids(source: ImageSource, folder: ModelFolder) -> dict[int, int] | None:
    """Class id in the data to class id of the model; empty if one has no classes, None if they cannot be matched."""
    seen = folder.labels()
    if source.has_captions or source.num_classes <= 1 or not seen or not folder.has("nat"):
        return {}
    return shared_ids(source.class_names, source.num_classes, seen, nat_config(folder).num_classes)


def have_imagenet_ids(source: ImageSource, ids: Mapping[int, int], folder: ModelFolder | None) -> bool:
    """Whether the class ids of images are ImageNet's: the model's, where ``ids`` leads to them, or else the data's."""
    names, num_classes = source.class_names, source.num_classes
    if folder is not None and ids:
        names, num_classes = folder.labels(), nat_config(folder).num_classes
    return not source.has_captions and numbered_as_imagenet(names, num_classes)


def read_batches(
    pending: Iterator[PendingImage], size: int, num_workers: int, skipped: SkippedImages
) -> Iterator[ImageBatch]:
    """Decode images in their order, ``size`` at a time; those that cannot be read are left out and named."""
    records = in_order(pending, num_workers)
    while batch := list(islice(records, size)):
        for record in batch:
            skipped.see(record)
        pixels = [record.pixels for record in batch if record.pixels is not None]
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) if pixels else torch.empty(0, 3, 1, 1)
        labels = torch.tensor([record.label for record in batch if record.pixels is not None])
        yield ImageBatch(images, labels, {record.name: record.error for record in batch if record.pixels is None})
