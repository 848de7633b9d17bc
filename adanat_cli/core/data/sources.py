"""Where images come from: which reader opens a data set."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

import numpy as np

from adanat_cli.core.config import DataConfig
from adanat_cli.core.data.addresses import is_address, last_part, reachable
from adanat_cli.core.data.captioned import open_captioned
from adanat_cli.core.data.columns import refuse_column
from adanat_cli.core.data.folders import open_folder
from adanat_cli.core.data.image_source import ImageSource, StreamSource, TableSource, preset_note
from adanat_cli.core.data.records import Row
from adanat_cli.core.data.source_files import IMAGE_SUFFIXES, SourceFiles
from adanat_cli.core.data.splits import files_of_split
from adanat_cli.core.data.tables import lacks_images, open_on_hub, open_parquet, open_saved
from adanat_cli.core.data.tars import open_tars
from adanat_cli.core.data.text_files import refuse_pointer
from adanat_cli.core.errors import AdaNATError, MissingSplit, hide_secrets, require
from adanat_cli.core.hub import looks_like_hub_id

__all__ = ["ImageSource", "StreamSource", "TableSource", "open_source"]

_RANGE = re.compile(r"\{\d+\.\.\d+\}")
_HOMELESS = {
    "imagenet64": "the folder of its Parquet files",
    "mscoco": "the folder of train2014/, val2014/ and dataset_coco.json",
}
_TABLES, _TARS = (".parquet",), (".tar", ".tar.gz", ".tgz")


def open_source(config: DataConfig) -> ImageSource:
    """Open a data set: images by class, captioned images, Parquet, webdataset tars, a TSV, a Hub id or a preset.

    Raises:
        MissingSplit: if it has other splits but not the one asked for.
        AdaNATError: if it does not exist, cannot be read, or holds no images.
    """
    try:
        return _numbered_as_train(_open(config)).keep(config.classes)
    except AdaNATError as error:
        if note := preset_note(config):
            raise type(error)(f"{error} ({note}.)") from error
        raise


def _open(config: DataConfig) -> ImageSource:
    if config.source == "sklearn-digits":
        return _digits(config)
    if config.source in _HOMELESS and not config.data_dir:
        raise AdaNATError(f"{config.source} has no public home; give {_HOMELESS[config.source]} with --data-dir.")
    if is_address(config.source) and not config.data_dir:
        addresses = reachable(config.address or config.source)
        return open_tars(config, addresses, SourceFiles(None, [last_part(address) for address in addresses]))
    if not config.is_here:
        _refuse_missing(config)
        return open_on_hub(config)
    if saved := open_saved(config):
        return saved
    if files := _tables_or_tars(config.path, config.split):
        for file in files:
            refuse_pointer(file)
        if files[0].name.endswith(_TABLES):
            return open_parquet(config, files)
        return open_tars(config, [str(file) for file in files], SourceFiles.of(config.path, files))
    if captioned := open_captioned(config):
        return captioned
    path, what = config.path, "is" if config.path.is_file() else "is a pipe or device,"
    require(path.is_dir(), f"{path} {what} not a .parquet, .tar or .tsv file; give one, or a folder of images.")
    return open_folder(config)


def _numbered_as_train(source: ImageSource) -> ImageSource:
    """Give labels that are words the ids of the train split; words that it lacks get the next ones."""
    if not source.has_words or source.config.split == "train":
        return source
    try:
        train = _open(source.config.replace(split="train"))
    except MissingSplit:
        return source
    words = bool(source.class_names)
    require(
        bool(train.class_names) or not words,
        f"The labels of {source.config.source} are words in the {source.config.split} split, but numbers in the train "
        "split; write both the same way.",
    )
    return source.renumber(train.class_names) if train.class_names else source


def _refuse_missing(config: DataConfig) -> None:
    """Refuse a path that does not exist, unless it may be an id on the Hub."""
    path = config.path
    require(
        bool(config.data_dir) or "://" not in config.source,
        f"{hide_secrets(config.source)} is a URL that cannot be read; expected http:// or https:// and a tar, or "
        "download it and give the file.",
    )
    require(
        bool(config.data_dir) or not _RANGE.search(config.source),
        f"{path} does not exist; ranges in braces are for URLs only; give the folder of the files.",
    )
    folder, _, revision = config.source.partition("@")
    here = not revision and os.path.isdir(folder.split("/")[0])
    beside = f", though {path.parent} does" if here and folder[0] != "." else ""
    require(
        not config.data_dir and looks_like_hub_id(config.source) and not here,
        f"{path} does not exist{beside}; expected a folder, a file, a preset "
        "or a Hub id user/name (user/name@main, if it is one).",
    )


def _tables_or_tars(root: Path, split: str) -> list[Path]:
    """Find the Parquet files or the tars of a split, in order; none if there are neither.

    Raises:
        AdaNATError: if there are such files, but of other splits only, or images lie beside them in other forms.
    """
    if root.is_file():
        return [root] if root.name.endswith(_TABLES + _TARS) else []
    tables, tars = _files(root, _TABLES), _files(root, _TARS)
    # Tables without images describe images elsewhere, as those that img2dataset writes beside its tars.
    elsewhere = _class_folders(root) if tables or tars else []
    described = [file.name for file in tables] == ["metadata.parquet"]
    if all(map(lacks_images, tables)) and (tars or elsewhere or described):
        tables = []
    if not tables and not tars:
        return []
    names = [files[0].name for files in (tables, tars) if files] + elsewhere
    require(
        len(names) == 1,
        f"{root} holds images in several forms ({', '.join(names[:3])}); give one of them, or move the others away.",
    )
    return files_of_split(tables or tars, split, root, "validation-00000.parquet")


def _files(root: Path, ends: tuple[str, ...]) -> list[Path]:
    return [
        file
        for folder in (".", "data", "train", "val", "validation", "test")
        for file in sorted((root / folder).glob("*"))
        if file.name.endswith(ends) and not file.name.startswith(".") and file.is_file()
    ]


def _class_folders(root: Path) -> list[str]:
    """The first two folders below that hold images, if there are two; a single one may hold a card's pictures."""
    found: list[str] = []
    for folder, _, names in os.walk(root):
        if folder != str(root) and any(name.lower().endswith(IMAGE_SUFFIXES) for name in names):
            found.append(f"{os.path.relpath(folder, root)}/")
        if len(found) == 2:
            return found
    return []


def _digits(config: DataConfig) -> TableSource:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels; every fifth is for validation."""
    try:
        bundled = importlib.import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        raise AdaNATError(
            "The digits come with scikit-learn, which is not installed; try pip install 'adanat[digits]'."
        ) from error
    refuse_column(config)
    require(not config.data_dir, "--data-dir has no meaning with digits, which come with scikit-learn; leave it out.")
    images = (bundled.images * (255 / 16)).round().astype(np.uint8)
    labels = bundled.target.astype(np.int64)
    validation = np.arange(len(labels)) % 5 == 4
    rows = np.flatnonzero(validation if config.split == "validation" else ~validation)

    def fetch(row: int) -> Row:
        # A portable grey map: two words of header, then the pixels.
        return Row(b"P5 8 8 255\n" + images[row].tobytes(), (), f"digit {row}")

    names = {digit: str(digit) for digit in range(10)}
    return TableSource(config=config, fetch=fetch, labels=labels, rows=rows, class_names=names, num_classes=10)
