"""Images of a folder with their classes or captions, wherever these are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adanat_cli.core.config import DataConfig
from adanat_cli.core.data.annotations import Annotated, read_annotations
from adanat_cli.core.data.labels import ClassIds, class_ids
from adanat_cli.core.data.layout import Layout, number_folders, read_layout
from adanat_cli.core.errors import printable, require

_IMAGENET = ("imagenet64", "ILSVRC/imagenet-1k")


@dataclass(frozen=True)
class FolderImages:
    """Rows with random access.

    Attributes:
        layout: of the folders.
        files: from the folder that was opened.
        labels: (files,) class ids, -1 where there is none; zeros where captions are the condition.
        names: class id to name.
        num_classes: of the numbering.
        captions: row to captions; None where classes are the condition.
        notes: what was left out or decided, for people.
        has_words: whether the ids are those of labels in files beside the images.
    """

    layout: Layout
    files: list[str]
    labels: ClassIds
    names: dict[int, str]
    num_classes: int
    captions: Callable[[int], tuple[str, ...]] | None
    notes: tuple[str, ...]
    has_words: bool = False

    def fetch(self, row: int) -> tuple[Path, tuple[str, ...], str]:
        """File, captions and name of a row."""
        # Token sets list what cannot be read by name: where the folder lies tells nobody more.
        name = printable(self.layout.part.within(self.files[row]))
        return self.layout.root / self.files[row], self.captions(row) if self.captions else (), name


def open_folder(config: DataConfig, place: Path) -> FolderImages:
    """Read a folder of images by class, or with captions or labels in files beside them, optionally below splits.

    Raises:
        MissingSplit: if there are other splits but not this one.
        AdaNATError: if there are no images, or what they are of cannot be told.
    """
    layout = read_layout(place, config.split)
    told = read_annotations(layout, config)
    return _annotated(config, layout, told) if told else _by_class(config, layout)


def _annotated(config: DataConfig, layout: Layout, told: Annotated) -> FolderImages:
    notes = (*layout.part.notes, *told.notes)
    if told.labels is not None:
        return FolderImages(layout, told.files, *class_ids(told.labels, config.source), None, notes, True)
    require(not config.classes, f"{config.source} has captions and no classes to choose by.")
    return FolderImages(layout, told.files, np.zeros(len(told.files), np.int64), {}, 1, told.captions, notes)


def _by_class(config: DataConfig, layout: Layout) -> FolderImages:
    asked = "--label-column" if config.label_column else "--caption-column" if config.caption_column else ""
    require(not asked, f"{asked} has no meaning with {config.source}, which has no columns; leave it out.")
    classes = number_folders(layout)
    first = classes.names.get(int(classes.labels[0]), "")
    require(
        bool(first) or config.num_classes <= 1,
        f"{layout.place} has no class folders; expected a folder for each class.",
    )
    require(
        config.source not in _IMAGENET or classes.num_classes == 1000 or first.isdigit(),
        f"{layout.place} has the class folder {first!r}; expected synset ids (n01440764) or class ids.",
    )
    return FolderImages(
        layout, classes.files, classes.labels, classes.names, classes.num_classes, None, tuple(layout.part.notes)
    )
