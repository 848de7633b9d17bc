"""Webdataset tars as a data set: which kinds of their members are images, labels and captions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from adanat_cli.core.config import DataConfig
from adanat_cli.core.data.classes import MAX_UNASKED
from adanat_cli.core.data.columns import CONDITION_NAMES, IMAGE_NAMES, Columns, find_conditions, inside, texts
from adanat_cli.core.data.labels import RawLabel, is_label, number_words, read_label
from adanat_cli.core.data.tables import Row
from adanat_cli.core.data.tar_files import Sample, is_address, is_image, samples, shown
from adanat_cli.core.errors import require

_CLOSED = ("pkl", "pickle", "pyd", "pt", "pth", "npy", "npz")
"""Kinds that are never read: most of them run code."""
_NUM_PEEKED = 5


@dataclass(frozen=True)
class Tars:
    """The tars of one data set, and which kinds of their members are what.

    Attributes:
        places: paths or addresses.
        columns: paths to label and caption, and the kind of the images, "" for any.
        ids: class ids of labels that are words.
        class_names, num_classes: of those words; 0 classes where numbers as labels were not looked up.
    """

    places: list[str] = field(repr=False)
    columns: Columns
    ids: dict[RawLabel, int]
    class_names: dict[int, str]
    num_classes: int

    def rows(self) -> Iterator[Row]:
        """Yield all rows in order.

        Raises:
            AdaNATError: if a tar cannot be read to its end, or is no webdataset.
        """
        columns = self.columns
        for place in self.places:
            folders: set[str] = set()
            for sample in samples(place, self._is_wanted):
                if not columns.label and not columns.caption:
                    _refuse_more(place, folders, sample)
                kinds = (columns.image, *IMAGE_NAMES, *sample)
                image = next((sample[kind] for kind in kinds if self._is_image(kind) and sample.get(kind)), None)
                label = read_label(inside(sample, columns.label))
                captions = texts(inside(sample, columns.caption))
                yield image, self.ids.get(label, label), captions, sample["__key__"]

    def _is_image(self, kind: str) -> bool:
        return kind == self.columns.image if self.columns.image else is_image(kind)

    def _is_wanted(self, kind: str) -> bool:
        return self._is_image(kind) or kind in (*self.columns.label[:1], *self.columns.caption[:1])


def open_tars(config: DataConfig, places: list[str]) -> Tars:
    """Find labels and captions in the first samples; how many classes there are is looked up in all of them.

    Raises:
        AdaNATError: if a tar cannot be read, or it is not clear what its members are.
    """
    first = list(islice(samples(places[0], lambda kind: kind.rpartition(".")[2] not in _CLOSED), _NUM_PEEKED))
    known: Sample = {}
    for sample in first:
        known |= {kind: value for kind, value in sample.items() if known.get(kind) is None and kind != "__key__"}
    asked = config.image_column
    require(
        asked in known if asked else any(map(is_image, known)),
        f"{shown(places[0])} begins without {asked or 'images'}; it has {', '.join(known) or 'no members'} (expected "
        "0001.jpg, 0001.txt …; another kind of member is named by --image-column).",
    )
    label, caption = find_conditions(known, config, (is_label,), lambda value: bool(texts(value)))
    if not label and not caption:
        _refuse_unclear(config, places, known)
    columns = Columns(asked, label, caption)
    labels = [read_label(inside(sample, label)) for sample in first]
    words = [label for label in labels if isinstance(label, str)]
    if not label or (not words and (config.num_classes or is_address(places[0]))):
        return Tars(places, columns, {}, {}, 0)
    require(
        not is_address(places[0]),
        f"The labels of {config.source} are words such as {', '.join(words[:1])!r}, which a stream cannot "
        "number; read a local copy, or write numbers.",
    )
    every = (sample for place in places for sample in samples(place, lambda kind: kind == label[0]))
    found = {read_label(inside(sample, label)) for sample in every}
    if any(isinstance(label, str) for label in found):
        return Tars(places, columns, *number_words(found, config.source))
    high = max((label for label in found if isinstance(label, int)), default=0)
    require(
        high < MAX_UNASKED,
        f"{config.source} has labels up to {high}; number the classes from 0, or give --num-classes {high + 1} if "
        "there are really so many.",
    )
    return Tars(places, columns, {}, {}, high + 1)


def _refuse_unclear(config: DataConfig, places: list[str], known: Sample) -> None:
    """Images without labels and captions are one class only if nothing else could tell more."""
    closed = [kind for kind in known if kind.rpartition(".")[2] in _CLOSED]
    require(
        not closed,
        f"{config.source} has members .{', .'.join(closed)}, which are never read, and beside them no labels or "
        "captions; write those as .cls, .txt or .json.",
    )
    for place in places if not is_address(places[0]) else ():
        folders: set[str] = set()
        for sample in samples(place, lambda _: False):
            _refuse_more(place, folders, sample)


def _refuse_more(place: str, folders: set[str], sample: Sample) -> None:
    """Refuse labels, captions and folders among images of which the first have none."""
    late = [f".{kind}" for kind in sample if kind in CONDITION_NAMES]
    require(
        not late,
        f"{shown(place)} has {', '.join(late)} of {sample['__key__']}, but its first images have no label or caption; "
        "give them to all images, or leave out those without.",
    )
    folders.add(sample["__key__"].rpartition("/")[0])
    require(
        len(folders) < 2,
        f"{shown(place)} holds folders of images ({', '.join(sorted(folders))}), which may be classes; unpack it, and "
        "give the folder.",
    )
