"""Which columns of a table, or members of a tar, are images, labels and captions."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from adanat_cli.core.config import DataConfig
from adanat_cli.core.errors import printable, require

IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "picture", "photo")
_LABEL_NAMES = ("label", "labels", "cls", "class", "class_id", "fine_label", "target", "category_id")
_TEXT_NAMES = ("raw", "caption", "text", "sentence")
_CAPTION_NAMES = ("caption", "captions", "text", "txt", "prompt", "sentences", "sentences_raw", "sentence", "title")
CONDITION_NAMES = {*_LABEL_NAMES, *_CAPTION_NAMES}
JSON_NAMES = ("json", "jsn")
_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Columns:
    """Paths of the columns, outermost name first (``("json", "label")``); () where there is none.

    Attributes:
        image, label, caption: paths of the image, label and caption columns.
        class_names: names of the classes that the table records, in the order of their ids.
    """

    image: str
    label: tuple[str, ...] = ()
    caption: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()

    @property
    def needed(self) -> set[str]:
        """Names of the columns to read."""
        return {path[0] for path in ((self.image,), self.label, self.caption) if path}

    @property
    def uses_captions(self) -> bool:
        """Whether captions, not labels, are the condition."""
        return bool(self.caption) and not self.label


def find_columns(features: Mapping[str, Any], config: DataConfig) -> Columns:
    """Find image, label and caption columns by name and type; names in the configuration win.

    Raises:
        AdaNATError: if there is no image column, or a column that was named does not exist or cannot be used.
    """
    image = config.image_column or image_column(features)
    require(
        bool(image), f"{config.source} has no image column; it has {', '.join(features)} (name it with --image-column)."
    )
    label, caption = find_conditions(features, config, (is_number, _is_word), _is_caption)
    require(image in features, f"{config.source} has no column {image!r}; it has {', '.join(features)}.")
    names = list(getattr(_feature_at(features, label), "names", None) or [])
    return Columns(image, label, caption, tuple(names))


def refuse_column(config: DataConfig) -> None:
    """Refuse --image-column with data that has no columns."""
    require(
        not config.image_column,
        f"--image-column has no meaning with {config.source}, which has no columns; leave it out.",
    )


Fits: TypeAlias = Callable[[Any], bool]
"""Whether a column's type, or a value, can serve as a label or a caption."""


def find_conditions(
    features: Mapping[str, Any], config: DataConfig, labels: Sequence[Fits], is_caption: Fits
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Find the paths to label and caption, () where there is none.

    Args:
        features: column to type, or kind of member to value; one called ``json`` holds more.
        config: columns that the user named, which come first.
        labels: tests of what a label may be, the most certain first.
        is_caption: test of what a caption may be.

    Raises:
        AdaNATError: if a column that was named does not exist, or one that is named like a label holds something else.
    """
    for asked in (config.label_column, config.caption_column):
        require(
            not asked or bool(_find(features, (asked,), lambda _: True)),
            f"{config.source} has no column {asked!r}; it has {', '.join(features)}.",
        )
    names = (config.label_column,) if config.label_column else () if config.caption_column else _LABEL_NAMES
    label = next((path for fits in labels if (path := _find(features, names, fits))), ())
    caption = _find(features, (config.caption_column,) if config.caption_column else _CAPTION_NAMES, is_caption)
    unfit = () if label or (caption and not config.label_column) else _find(features, names, lambda _: True)
    require(
        not unfit,
        f"Column {'.'.join(unfit)!r} of {config.source} holds {shortened(_feature_at(features, unfit))}; expected "
        "whole numbers or names as labels (name another with --label-column, or --caption-column for captions).",
    )
    require(
        bool(caption) or not config.caption_column,
        f"Column {config.caption_column!r} of {config.source} holds no text; name another with --caption-column.",
    )
    return label, caption


def shortened(feature: Any) -> str:
    """An untrusted type or value in a few words."""
    return "missing" if feature is None else textwrap.shorten(printable(str(feature)[:1000]), 80, placeholder=" …")


def _feature_at(features: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        features = features[name]
    return features if path else None


def image_column(features: Mapping[str, Any]) -> str:
    """The column with the Image feature, or one of a usual name that holds bytes; usual names first."""
    usual = [name for name in IMAGE_NAMES if name in features]
    candidates = [*usual, *(name for name in features if name not in usual)]
    typed = [name for name in candidates if is_feature(features[name], "Image")]
    return str((typed or [name for name in candidates if holds_bytes(features[name])] or [""])[0])


def holds_bytes(feature: Any) -> bool:
    """Whether a column holds encoded images."""
    if isinstance(feature, dict):
        return "bytes" in feature and holds_bytes(feature["bytes"])
    return getattr(feature, "dtype", "") in ("binary", "large_binary")


def is_number(feature: Any) -> bool:
    """Whether a column holds whole numbers or class ids."""
    return is_feature(feature, "ClassLabel") or "int" in dtype_of(feature)


def holds_words(features: Mapping[str, Any], columns: Columns) -> bool:
    """Whether the labels are not numbers, and may be words."""
    return bool(columns.label) and not is_number(_feature_at(features, columns.label))


def _is_word(feature: Any) -> bool:
    return dtype_of(feature) in ("string", "large_string", "bool", "null") or "float" in dtype_of(feature)


def dtype_of(feature: Any) -> str:
    """The type of a column of single values; "" for lists and structs."""
    return str(feature.dtype) if is_feature(feature, "Value") else ""


def is_feature(feature: Any, kind: str) -> bool:
    """Whether a column is of this kind of the ``datasets`` library, which takes seconds to load where there is none."""
    if not type(feature).__module__.startswith("datasets."):
        return False
    import datasets

    return isinstance(feature, getattr(datasets, kind))


def _is_caption(feature: Any) -> bool:
    inner = getattr(feature, "feature", feature)
    if isinstance(inner, list) and inner:
        inner = inner[0]
    if isinstance(inner, dict):
        return any(_is_caption(inner[name]) for name in _TEXT_NAMES if name in inner)
    return dtype_of(inner) in ("string", "large_string")


def _find(features: Any, names: tuple[str, ...], fits: Fits) -> tuple[str, ...]:
    """Path to the first column with a usual name and a fitting type, also inside a ``json`` column."""
    for name in names:
        if name in features and fits(features[name]):
            return (name,)
    for json in JSON_NAMES:
        if isinstance(features.get(json), dict) and (inside := _find(features[json], names, fits)):
            return (json, *inside)
    return ()


def texts(value: Any) -> tuple[str, ...]:
    """Captions of one image from a text, a struct that holds one, or a list of either."""
    if isinstance(value, dict):
        value = next((value[name] for name in _TEXT_NAMES if value.get(name)), None)
    if isinstance(value, list):
        return tuple(text for part in value for text in texts(part))
    # Half a surrogate pair, which JSON can hold, is not a character.
    text = _HALF.sub("\ufffd", value).strip() if isinstance(value, str) else ""
    return (text,) if text else ()


def inside(values: Any, path: tuple[str, ...]) -> Any:
    """The value at a path of names, None where there is none."""
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values if path else None
