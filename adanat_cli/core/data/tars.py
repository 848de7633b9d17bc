"""Webdataset tars as a data set: which kinds of their members are images, labels and captions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

from adanat_cli.core.config import DataConfig
from adanat_cli.core.data.addresses import is_address, last_part
from adanat_cli.core.data.columns import CONDITION_NAMES, IMAGE_NAMES, Columns, find_conditions, inside, texts
from adanat_cli.core.data.image_source import StreamSource, stream_source
from adanat_cli.core.data.labels import RawLabel, is_label, number_labels, read_label, refuse_large
from adanat_cli.core.data.records import Row
from adanat_cli.core.data.source_files import SourceFiles
from adanat_cli.core.data.tar_files import Sample, is_compressed, is_image, samples
from adanat_cli.core.errors import require

_CLOSED = ("pkl", "pickle", "pyd", "pt", "pth", "npy", "npz")
"""Kinds that are never read: most of them run code."""
_NUM_PEEKED = 5


def open_tars(config: DataConfig, tars: list[str], files: SourceFiles) -> StreamSource:
    """Open tars by paths or URLs: labels and captions are found in the first samples, classes in all of them.

    Raises:
        AdaNATError: if a tar cannot be read, or it is not clear what its members are.
    """
    first = list(islice(samples(tars[0], lambda kind: not _is_closed(kind)), _NUM_PEEKED))
    known: Sample = {}
    for sample in first:
        known |= {kind: value for kind, value in sample.items() if known.get(kind) is None and kind != "__key__"}
    image = config.image_column
    require(
        image in known if image else any(map(is_image, known)),
        f"{last_part(tars[0])} begins without {image or 'images'}; it has {', '.join(known) or 'no members'} (expected "
        "0001.jpg, 0001.txt …; another kind of member is named by --image-column).",
    )
    label, caption = find_conditions(known, config, (is_label,), lambda value: bool(texts(value)))
    columns = Columns(image, label, caption)
    if not label and not caption:
        _refuse_unclear(config, tars, known)
    ids, names, num_classes = _classes(config, tars, label, first) if label else ({}, {}, 0)
    rows = partial(_rows, tars, columns, ids)
    count = None if is_address(tars[0]) or any(map(is_compressed, tars)) else partial(_count, tars)
    facts: dict[str, Any] = {"count_rows": count, "files": files, "has_words": bool(names)}
    return stream_source(config, rows, columns, names, num_classes, **facts)


def _is_closed(kind: str) -> bool:
    return kind.rpartition(".")[2] in _CLOSED


def _classes(
    config: DataConfig, tars: list[str], label: tuple[str, ...], first: list[Sample]
) -> tuple[dict[RawLabel, int], dict[int, str], int]:
    """Number the labels of all tars, unless the first ones are numbers and the classes known or the tars remote."""
    words = [word for sample in first if isinstance(word := read_label(inside(sample, label)), str)]
    if not words and (config.num_classes or is_address(tars[0])):
        return {}, {}, 0
    require(
        not is_address(tars[0]),
        f"The labels of {config.source} are words such as {', '.join(words[:1])!r}, which a stream cannot "
        "number; read a local copy, or write numbers.",
    )
    all_samples = (sample for tar in tars for sample in samples(tar, lambda kind: kind == label[0]))
    labels = {read_label(inside(sample, label)) for sample in all_samples}
    ids, names, num_classes = number_labels(labels, config.source)
    if not names:
        num_classes = max(ids.values(), default=0) + 1
        refuse_large(config, num_classes)
    return ids, names, num_classes


def _count(tars: list[str]) -> int:
    """Number of rows, by the headers of the tars."""
    return sum(1 for tar in tars for _ in samples(tar, lambda _: False))


def _rows(tars: list[str], columns: Columns, ids: dict[RawLabel, int], start: int) -> Iterator[Row]:
    """Yield the rows from a position on, in order; of those before it, only headers are read."""
    number = 0

    def holds_image(kind: str) -> bool:
        return kind == columns.image if columns.image else is_image(kind)

    def is_wanted(kind: str) -> bool:
        return number >= start and (holds_image(kind) or kind in (*columns.label[:1], *columns.caption[:1]))

    for tar in tars:
        folders: set[str] = set()
        for sample in samples(tar, is_wanted):
            if not columns.label and not columns.caption:
                _refuse_more(tar, folders, sample)
            number += 1
            if number <= start:
                continue
            kinds = (columns.image, *IMAGE_NAMES, *sample)
            image = next((sample[kind] for kind in kinds if holds_image(kind) and sample.get(kind)), None)
            label = read_label(inside(sample, columns.label))
            yield Row(image, texts(inside(sample, columns.caption)), sample["__key__"], ids.get(label, label))


def _refuse_unclear(config: DataConfig, tars: list[str], known: Sample) -> None:
    """Refuse images without labels and captions where other members or folders may hold some."""
    closed = [kind for kind in known if _is_closed(kind)]
    require(
        not closed,
        f"{config.source} has members .{', .'.join(closed)}, which are never read, and beside them no labels or "
        "captions; write those as .cls, .txt or .json.",
    )
    for tar in tars if not is_address(tars[0]) else ():
        folders: set[str] = set()
        for sample in samples(tar, lambda _: False):
            _refuse_more(tar, folders, sample)


def _refuse_more(tar: str, folders: set[str], sample: Sample) -> None:
    """Refuse labels, captions and folders among images of which the first have none."""
    late = [f".{kind}" for kind in sample if kind in CONDITION_NAMES]
    require(
        not late,
        f"{last_part(tar)} has {', '.join(late)} of {sample['__key__']}, but its first images have no label or "
        "caption; give them to all images, or leave out those without.",
    )
    folders.add(sample["__key__"].rpartition("/")[0])
    require(
        len(folders) < 2,
        f"{last_part(tar)} holds folders of images ({', '.join(sorted(folders))}), which may be classes; unpack it, "
        "and give the folder.",
    )
