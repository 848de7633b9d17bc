"""Folders of images by class, or with captions or labels in files beside them."""

from __future__ import annotations

import numpy as np

from adanat_cli.core.config import DataConfig
from adanat_cli.core.data.annotations import read_annotations
from adanat_cli.core.data.columns import refuse_column
from adanat_cli.core.data.image_source import TableSource
from adanat_cli.core.data.labels import ClassIds, class_ids, count_classes
from adanat_cli.core.data.layout import Layout, number_folders, read_layout
from adanat_cli.core.data.records import Row
from adanat_cli.core.data.source_files import SourceFiles
from adanat_cli.core.errors import printable, require

_IMAGENET = ("imagenet64", "ILSVRC/imagenet-1k")


def open_folder(config: DataConfig) -> TableSource:
    """Open a folder of images with their labels or captions, which class folders or files beside them hold.

    Raises:
        MissingSplit: if there are other splits but not this one.
        AdaNATError: if there are no images, or it is not clear what their folders mean.
    """
    refuse_column(config)
    layout = read_layout(config.path, config.split)
    annotated = read_annotations(layout, config)
    names: dict[int, str] = {}
    if annotated is None:
        files, labels, names, num_classes = _by_class(config, layout)
    elif annotated.labels is not None:
        files = annotated.files
        labels, names, num_classes = class_ids(annotated.labels, config.source)
    else:
        require(not config.classes, f"{config.source} has captions and no classes to choose by; leave the classes out.")
        files, num_classes = annotated.files, 1
        labels = np.zeros(len(files), np.int64)
    captions = annotated.captions if annotated else None

    def fetch(row: int) -> Row:
        # Token sets list unreadable images by name; the path of the data set is not part of it.
        name = printable(layout.branch.within(files[row]))
        return Row(layout.root / files[row], captions(row) if captions else (), name)

    # Captions may lie in any of the files beside the images; labels in them are compared as labels.
    read = [*files, *(layout.listing.others if captions else ())]
    return TableSource(
        config=config,
        fetch=fetch,
        labels=labels,
        rows=np.arange(len(files)),
        class_names=names,
        num_classes=count_classes(config, labels, num_classes),
        has_captions=captions is not None,
        read_captions=captions,
        notes=(*layout.branch.notes, *(annotated.notes if annotated else ())),
        files=SourceFiles(layout.root.resolve(), read, by_row=True),
        has_words=annotated is not None and captions is None,
    )


def _by_class(config: DataConfig, layout: Layout) -> tuple[list[str], ClassIds, dict[int, str], int]:
    """Number the class folders, as ``number_folders``, unless an option or a data set asks for others."""
    asked = "--label-column" if config.label_column else "--caption-column" if config.caption_column else ""
    require(not asked, f"{asked} has no meaning with {config.source}, which has no columns; leave it out.")
    files, labels, names, num_classes = number_folders(layout)
    first = names.get(int(labels[0]), "")
    require(
        bool(first) or config.num_classes <= 1,
        f"{layout.folder} has no class folders; expected a folder for each class.",
    )
    require(
        config.source not in _IMAGENET or num_classes == 1000 or first.isdigit(),
        f"{layout.folder} has the class folder {first!r}; expected synset ids (n01440764) or class ids.",
    )
    return files, labels, names, num_classes
