"""Labels and captions in files beside images: metadata of Hugging Face's imagefolder, or a text file per image."""

from __future__ import annotations

import csv
import io
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from adanat_cli.core.config import DataConfig
from adanat_cli.core.data.columns import find_conditions, inside, texts
from adanat_cli.core.data.described import listed
from adanat_cli.core.data.labels import RawLabel, is_label, read_label
from adanat_cli.core.data.layout import Layout
from adanat_cli.core.data.source_files import inside_folder
from adanat_cli.core.data.text_files import decode_text, refuse_pointer, text_lines
from adanat_cli.core.errors import AdaNATError, printable, require
from adanat_cli.core.reading import parse_json, read_bytes

_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_FILE_NAMES = ("file_name", "image_file_name", "filename", "file", "image")
_CAPTION_SUFFIXES = (".txt", ".caption")
_LARGEST_TABLE, _LARGEST_CAPTION = 2**30, 2**16
_NUM_PEEKED = 50


@dataclass(frozen=True)
class Annotated:
    """Images of a folder with the labels or captions from files beside them.

    Attributes:
        files: paths of the images, relative to the root of the layout.
        labels: label of each image; None where captions are the condition.
        captions: function from a row to its captions; None where labels are the condition.
        notes: which files were read and what was left out, for people.
    """

    files: list[str]
    labels: list[RawLabel] | None
    captions: Callable[[int], tuple[str, ...]] | None
    notes: list[str]


def read_annotations(layout: Layout, config: DataConfig) -> Annotated | None:
    """Read metadata files, or else find captions beside images; None if there is neither.

    Raises:
        AdaNATError: if they cannot be read, leave the folder, or name few of the images.
    """
    return _read_metadata(layout, config) or _find_captions(layout)


def _read_metadata(layout: Layout, config: DataConfig) -> Annotated | None:
    """Rows of ``metadata.jsonl``, ``.csv`` or ``.parquet``; several rows of an image are several captions of it."""
    tables = [file for file in layout.listing.others if posixpath.basename(file).lower() in _METADATA]
    rows: dict[str, list[dict[str, Any]]] = {}
    known: dict[str, Any] = {}
    for table in tables:
        for row in _rows(layout.root / table):
            known.update({key: value for key, value in row.items() if known.get(key) in (None, "")})
            file = _file_of(row, table, layout.root)
            if file.startswith(layout.branch.base):
                rows.setdefault(file, []).append(row)
    if not rows:
        return None
    label, caption = find_conditions(known, config, (is_label,), lambda value: bool(texts(value)))
    shown = listed(tables)
    if not label and not caption:
        layout.branch.notes.append(f"{shown} has neither captions nor labels, but {', '.join(known)}")
        return None
    files = sorted(rows)
    notes = [f"{'labels' if label else 'captions'} from {shown}"]
    if unnamed := sorted(set(layout.branch.files) - set(files)):
        require(
            len(unnamed) <= len(files) / 2,
            f"{layout.folder} holds {len(unnamed)} images that {shown} does not name, such as "
            f"{printable(unnamed[0])}, and {len(files)} that it names; add a line for each, or move them away.",
        )
        notes.append(f"left out: {len(unnamed):,} not named there ({listed([printable(file) for file in unnamed])})")
    if label:
        return Annotated(files, [_label_of(file, rows[file], label, shown) for file in files], None, notes)
    captions = [tuple(text for row in rows[file] for text in texts(inside(row, caption))) for file in files]
    return Annotated(files, None, captions.__getitem__, notes)


def _label_of(file: str, rows: list[dict[str, Any]], label: tuple[str, ...], shown: str) -> RawLabel:
    labels = {read_label(inside(row, label)): None for row in rows}
    require(
        len(labels) == 1,
        f"{shown} gives {printable(file)} several labels ({listed([str(one) for one in labels])}); expected one.",
    )
    return next(iter(labels))


def _file_of(row: dict[str, Any], table: str, root: Path) -> str:
    name = next((row[key] for key in _FILE_NAMES if isinstance(row.get(key), str) and row[key]), None)
    require(
        name is not None,
        f"{root / table} has a row without file_name, the image that it describes, but with {listed([*row])}; add "
        "file_name to every row.",
    )
    folder = posixpath.dirname(table)
    file = inside_folder(f"{folder}/" if folder else "", str(name))
    require(
        bool(file), f"{root / table} names {printable(str(name))!r}, outside the data set; expected paths inside it."
    )
    return file


def _rows(table: Path) -> Iterator[dict[str, Any]]:
    """Rows of a metadata file."""
    require(table.is_file(), f"{table} is a pipe, a device or a link to nothing; replace it with the file itself.")
    refuse_pointer(table)
    try:
        if table.suffix.lower() == ".parquet":
            for batch in pq.ParquetFile(table).iter_batches():
                yield from batch.to_pylist()
            return
        text = decode_text(read_bytes(table, _LARGEST_TABLE))
        if table.suffix.lower() == ".csv":
            yield from csv.DictReader(io.StringIO(text, newline=""))
            return
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise AdaNATError(
            f"{table} cannot be read: {str(error).splitlines()[0].rstrip('.')}; repair it, or move it elsewhere."
        ) from error
    for line in text_lines(text):
        row = parse_json(line, str(table))
        require(isinstance(row, dict), f"{table} holds {line[:40]!r}; expected one JSON object per line.")
        yield row


def _find_captions(layout: Layout) -> Annotated | None:
    """``dog.txt`` beside ``dog.jpg``, one caption per line."""
    stems: list[dict[str, str]] = [
        {path[: -len(suffix)]: path for path in layout.listing.others if path.lower().endswith(suffix)}
        for suffix in _CAPTION_SUFFIXES
    ]
    if not any(stems):
        return None
    beside = [
        next((found[stem] for found in stems for stem in (posixpath.splitext(file)[0], file) if stem in found), "")
        for file in layout.branch.files
    ]
    found = [path for path in beside if path]
    kinds = "/".join(sorted({posixpath.splitext(path)[1].lower() for path in found}))
    has_classes = bool(layout.branch.folders())
    if not found or (has_classes and 2 * len(found) < len(beside)):
        return None
    peeked = found[:: max(1, len(found) // _NUM_PEEKED)]
    if not any(re.search(r"[^\W\d_]{2}", text) for path in peeked for text in _texts(layout.root, path)):
        layout.branch.notes.append(f"the {kinds} files beside the images hold numbers, not captions")
        return None
    notes = [f"captions from {kinds} files beside the images" + (", folders are not classes" if has_classes else "")]
    return Annotated(layout.branch.files, None, lambda row: _texts(layout.root, beside[row]), notes)


def _texts(root: Path, file: str) -> tuple[str, ...]:
    """Captions of a text file; none without one."""
    if not file:
        return ()
    try:
        return tuple(text_lines(decode_text(read_bytes(root / file, _LARGEST_CAPTION))))
    except ValueError as error:
        raise AdaNATError(f"{root / file} is not a caption: {error}; expected UTF-8 or UTF-16 text.") from error
