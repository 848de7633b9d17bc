"""Where images come from: data-set presets and the configuration they fill in."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from adanat_cli.core.config.base import MAX_IMAGE_SIZE, Bounds, Config, Natural, Probability
from adanat_cli.core.config.benchmarks import BENCHMARKS
from adanat_cli.core.config.option import REQUIRED, option
from adanat_cli.core.errors import hide_secrets, require

_data = partial(option, panel="Data")


@dataclass(frozen=True)
class DataConfig(Config):
    """One source of images.

    Attributes:
        source: a preset's name, a folder of images by class, a Parquet file or folder, webdataset tars (also
            URLs, ``https://host/train-{0000..0009}.tar``), a TSV of captions and base64 images, or a Hub id
            ``user/name[@revision]``. The secret parts of a URL (password, query, fragment) are in ``address`` only.
        image_column, label_column, caption_column: names of the columns to read; "" finds them.
        num_classes: number of classes of the labels; 0 counts them.
        classes: class ids to keep; empty keeps all.
        address: the whole URL where ``source`` leaves secrets out, for fetching; never shown or saved.
        preset: name of the preset that the user gave, "" for other data; not saved.
    """

    source: str
    image_size: Annotated[int, Bounds(1, MAX_IMAGE_SIZE)] = _data(
        REQUIRED, help="Side of the centre crop in pixels; by default the preset's, or the tokenizer's."
    )
    split: Literal["train", "validation"] = _data("train", help="Split of the data to read.", show_default="train")
    data_dir: str = _data("", help="Local copy of the data set, read instead of the Hub.", kind=Path, read=str)
    image_column: str = _data("", help="Column of the images.")
    label_column: str = _data("", help="Column of the class labels.")
    caption_column: str = _data("", help="Column of the captions.")
    num_classes: Natural = _data(0, help="Number of classes, if a stream does not give it.")
    classes: tuple[int, ...] = ()
    streaming: bool = _data(False, help="Read in order, without a local copy.")
    max_bad: Probability = _data(0.01, help="Fraction of unreadable images to tolerate.", show_default="0.01")
    address: str = field(default="", repr=False)
    preset: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        shown = hide_secrets(self.source)
        if shown != self.source:
            require(not re.search(r"\s", self.source), f"The URL {shown} holds spaces; write them as %20.")
            object.__setattr__(self, "address", self.source)
            object.__setattr__(self, "source", shown)
        require(
            not re.match(r"\w+:/", self.data_dir),
            f"The local copy {hide_secrets(self.data_dir)} is a URL; give a folder, or the URL as the data.",
        )
        require(bool(self.source), "No data source given; name a preset, a folder, a Parquet file or a Hub id.")
        super().__post_init__()

    @property
    def path(self) -> Path:
        """Path of the data on disk, if it is there."""
        return Path(os.path.expanduser(self.data_dir or self.source))

    @property
    def is_here(self) -> bool:
        """Whether the data is on disk; a source that cannot be a path is not."""
        return os.path.exists(self.path)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values of what decides the data, without secrets."""
        return {key: value for key, value in super().to_dict().items() if key not in ("address", "preset")}


DATA_PRESETS: dict[str, dict[str, Any]] = {
    "imagenet64": {"source": "imagenet64", "image_size": 64, "num_classes": 1000},
    **{name: benchmark.data() for name, benchmark in BENCHMARKS.items()},
    "digits": {"source": "sklearn-digits", "image_size": 16, "num_classes": 10},
}
"""Rows by name. ``sklearn-digits`` is scikit-learn's bundled set; ``imagenet64`` and ``mscoco`` need ``data_dir``: they
have no public home with images and split in one place. The others are Hub ids that ``data_dir`` overrides."""


def data_config(dataset: str, **fields: Any) -> DataConfig:
    """Resolve ``--dataset``: a preset's row, or a source of its own; ``fields`` that are None change nothing.

    Raises:
        AdaNATError: if a field is invalid, or an own source comes without image_size.
    """
    row = {**DATA_PRESETS[dataset], "preset": dataset} if dataset in DATA_PRESETS else {"source": dataset}
    row.update({key: value for key, value in fields.items() if value is not None})
    require(
        "image_size" in row,
        f"Data {dataset!r} is not a preset ({', '.join(DATA_PRESETS)}), so its image size must be given "
        "(--image-size).",
    )
    return DataConfig(**row)
