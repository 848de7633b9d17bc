"""Captioned images on disk in their makers' own layouts: Conceptual Captions as TSV, MS-COCO with Karpathy's split."""

from __future__ import annotations

import base64
import binascii
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from adanat_cli.core.config import DataConfig
from adanat_cli.core.data.columns import refuse_column
from adanat_cli.core.data.image_source import TableSource
from adanat_cli.core.data.records import Row
from adanat_cli.core.data.source_files import SourceFiles, file_within
from adanat_cli.core.data.splits import files_of_split
from adanat_cli.core.data.text_files import decode_text, fields_of, first_fields, refuse_pointer
from adanat_cli.core.errors import AdaNATError, MissingSplit, printable, require
from adanat_cli.core.reading import read_bytes, read_json

_KARPATHY = "dataset_coco.json"
_READ_AT_ONCE = 2**24
_NUM_COLUMNS = 4
_LARGEST_LIST = 2**30


def open_captioned(config: DataConfig) -> TableSource | None:
    """Open a TSV of captions and base64 images, or a folder of MS-COCO; None if there is neither.

    Raises:
        AdaNATError: if it is there, but damaged or without this split.
    """
    images = _find(config.path, config.split)
    if images is None:
        return None
    require(not config.classes, f"{config.source} has captions and no classes to choose by; leave the classes out.")
    refuse_column(config)
    return TableSource(
        config=config,
        fetch=images.fetch,
        labels=np.zeros(images.num_images, np.int64),
        rows=np.arange(images.num_images),
        has_captions=True,
        read_captions=images.captions,
        files=SourceFiles.of(config.path, images.files),
    )


def _find(path: Path, split: str) -> TsvImages | KarpathyImages | None:
    if path.is_file():
        return TsvImages(path) if path.suffix == ".tsv" else None
    if (path / _KARPATHY).is_file():
        return KarpathyImages(path, split)
    files = sorted(
        file for file in path.glob("*.tsv") if not file.name.startswith(".") and file.is_file() and _is_captioned(file)
    )
    if not files:
        return None
    of_split = files_of_split(files, split, path, f"cc3m_{split}.tsv")
    names = ", ".join(file.name for file in of_split)
    require(
        len(of_split) == 1,
        f"{path} has {len(of_split)} TSV files of the {split} split ({names}); keep one, or give one as the data.",
    )
    return TsvImages(of_split[0])


def _is_captioned(file: Path) -> bool:
    """Whether a TSV is of images or captions, and not some list beside image files."""
    refuse_pointer(file)
    return len(fields := first_fields(file)) == _NUM_COLUMNS or "caption" in fields


class TsvImages:
    """Lines of key, number, caption and base64 image, as Conceptual Captions is packed; decoded one at a time.

    Lines are found by the byte offsets in the ``.lineidx`` file beside the TSV; without one, the whole file is read
    once for its line breaks.
    """

    def __init__(self, path: Path) -> None:
        refuse_pointer(path)
        self.files, self._name = [path], printable(path.name)
        try:
            self._file = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)
            size = os.fstat(self._file).st_size
            index = path.with_suffix(".lineidx")
            offsets = index.read_text(encoding="ascii").split() if index.exists() else None
            starts = _find_lines(path) if offsets is None else np.array(offsets, np.int64)
        except (OSError, ValueError, OverflowError) as error:
            raise AdaNATError(f"{path} cannot be read: {error}; repair it, or fetch it again.") from error
        require(len(starts) > 0, f"{path} is empty; fetch it again.")
        self._starts, self.num_images = np.append(starts, size), len(starts)
        last, increase = int(starts[-1]), starts[0] == 0 and bool(np.all(np.diff(self._starts) > 0))
        require(
            increase and (last == 0 or os.pread(self._file, 1, last - 1) == b"\n"),
            f"{index} does not fit {path.name}: its offsets are not the starts of lines; remove it to have them found.",
        )
        if "caption" in first_fields(path)[: _NUM_COLUMNS - 1]:
            raise MissingSplit(
                f"{path} holds captions and URLs, but no images; as a validation split it provides captions only."
            )
        num_columns = len(_split(self._line(0))[0]) + 1
        require(
            num_columns == _NUM_COLUMNS,
            f"{path} holds {num_columns} columns; expected 4: key, number, caption, base64 image.",
        )

    def fetch(self, row: int) -> Row:
        """Read a row; no image where the line is damaged."""
        fields, encoded = _split(self._line(row))
        name = f"{self._name} (row {row})"
        if len(fields) != _NUM_COLUMNS - 1:
            return Row(None, (), name)
        try:
            image = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            image = None
        return Row(image, _captions(fields), name)

    def captions(self, row: int) -> tuple[str, ...]:
        """Captions of a row, without its image."""
        return _captions(_split(self._line(row))[0])

    def _line(self, row: int) -> bytes:
        """One line; threads may read at the same time, since no position is kept."""
        start, stop = int(self._starts[row]), int(self._starts[row + 1])
        return os.pread(self._file, stop - start, start).rstrip(b"\r\n")


def _split(line: bytes) -> tuple[list[str], bytes]:
    """Fields before the last, as text, and the last as it is."""
    head, _, image = line.rpartition(b"\t")
    return fields_of(head.decode("utf-8", errors="replace")), image


def _captions(fields: list[str]) -> tuple[str, ...]:
    text = fields[2].strip() if len(fields) > 2 else ""
    return (text,) if text else ()


def _find_lines(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Offsets of all lines."""
    breaks, offset = [np.zeros(1, np.int64)], 0
    with path.open("rb") as file:
        while block := file.read(_READ_AT_ONCE):
            found = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
            breaks.append(found + offset + 1)
            offset += len(block)
    starts = np.concatenate(breaks)
    return starts[starts < offset]


def is_caption_list(path: Path) -> bool:
    """Whether a TSV begins with the names of its columns, one of which is ``caption``."""
    return path.is_file() and "caption" in first_fields(path)


def read_caption_list(path: Path) -> list[str]:
    """Captions of a TSV with a header and no images, as Conceptual Captions' validation is published.

    Raises:
        AdaNATError: if it cannot be read, or has no column ``caption``.
    """
    try:
        lines = decode_text(read_bytes(path, _LARGEST_LIST)).split("\n")
    except ValueError as error:
        raise AdaNATError(f"{path} cannot be read: {error}; expected UTF-8 or UTF-16 text.") from error
    names, *rows = (fields_of(line.rstrip("\r")) for line in lines)
    require(
        "caption" in names,
        f"{path} has no column caption; its first line is {', '.join(names)[:60]}; expected a header that names it.",
    )
    column = names.index("caption")
    return [row[column].strip() for row in rows if len(row) == len(names) and row[column].strip()]


class KarpathyImages:
    """MS-COCO 2014: images in train2014/ and val2014/, captions in Karpathy's ``dataset_coco.json``.

    His split ``train`` is COCO's train2014; the other three (val, test, restval) together are val2014, which the
    field's distance over 30,000 captions is measured on, so none of them is trained on here.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self._folder = folder
        try:
            images = read_json(folder / _KARPATHY, _LARGEST_LIST)["images"]
            self._rows = [
                (f"{image['filepath']}/{image['filename']}", tuple(text["raw"].strip() for text in image["sentences"]))
                for image in images
                if (image["split"] == "train") == (split == "train")
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise AdaNATError(
                f"{folder / _KARPATHY} is not Karpathy's list of MS-COCO's captions ({type(error).__name__}: {error}); "
                "fetch it again."
            ) from error
        if not self._rows:
            raise MissingSplit(f"{folder / _KARPATHY} has no images of the {split} split.")
        self.num_images = len(self._rows)

    @property
    def files(self) -> Iterator[Path]:
        """The list, and the images that it names."""
        yield self._folder / _KARPATHY
        yield from (self._folder / name for name, _ in self._rows)

    def fetch(self, row: int) -> Row:
        """Find a row; no file where the list leads out of the folder."""
        name, captions = self._rows[row]
        return Row(file_within([str(self._folder)], name), captions, printable(name))

    def captions(self, row: int) -> tuple[str, ...]:
        """Captions of a row."""
        return self._rows[row][1]
