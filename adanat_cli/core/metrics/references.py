"""Reference statistics: the ``.npz`` files that papers publish, and ours, which also record their extractor.

* pytorch-fid and many others: ``mu`` (D,), ``sigma`` (D, D).
* adm, guided-diffusion's: also ``mu_s`` and ``sigma_s`` of spatial features, and ``arr_0``, (n, H, W, 3) bytes.
* adanat, ours: as adm without ``arr_0``, but with ``features`` (n, D) of some images, and ``metadata``, a JSON string.
  Its compact form, which models bring, holds the features of all images in 16 bits, compressed, and no moments: these
  are computed at reading. Of 1,000 images and D = 1,280 it takes 1.6 MB instead of 18.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from adanat_cli.core.config.schema import build
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.metrics.extraction import Extractor
from adanat_cli.core.metrics.frechet import Gaussian, Moments, checked_gaussian
from adanat_cli.core.metrics.inception import POOL_WIDTH, SPATIAL_WIDTH
from adanat_cli.core.metrics.npz import Archive, Array
from adanat_cli.core.metrics.recognition import Recognition
from adanat_cli.core.reading import parse_json, sha256_of

Format = Literal["pytorch-fid", "adm", "adanat"]
_FORMAT_VERSION = 1
_TEXTS = ("protocol", "extractor", "weights_hash", "resize", "source")
_INCEPTION_PROTOCOLS = ("adm", "paper", "clean")
_RESIZES = {
    "adm": "bilinear of TensorFlow 1, bytes",
    "paper": "bilinear, floats",
    "clean": "bicubic of PIL, bytes",
    "timm": "the network's own, antialiased, bytes",
    "efficientnet": "bicubic of PIL to 160 pixels, bytes to floats",
    "small": "none, bytes",
}


class StoredImages(NamedTuple):
    """Images in a reference file, which are read on demand.

    Attributes:
        archive: the file.
        shape: (n, H, W, 3).
    """

    archive: Archive
    shape: tuple[int, ...]

    def batches(self, size: int) -> Iterator[Array]:
        """Yield batches of ``size`` images, (B, H, W, 3) bytes, in the order of the file.

        Raises:
            AdaNATError: if the file is damaged.
        """
        return self.archive.parts("arr_0", size)


@dataclass(frozen=True)
class Reference:
    """Statistics of real images, with which generated images are compared.

    Attributes:
        gaussian: mean (D,) and covariance (D, D) of the features, float64.
        spatial: mean and covariance of the spatial features, for sFID; None where the file has none.
        features: (n, D) float32 of some of the images, for precision and recall; None where the file has none.
        images: images from which ``features`` can be computed; None where the file has none.
        num_images: number of images behind the Gaussian; 0 if unknown.
        protocol: protocol of the features; "" if unknown, as for the next three.
        extractor: name of the feature network.
        weights_hash: sha256 of the network's weights, in hexadecimal digits.
        resize: how images were resized to the network's input.
        source: description of the images.
        classes: class id to number of images; None if unknown, or if the images have no classes.
        image_size: side of the images in pixels; 0 if unknown.
        recognition: shares of the images that the network recognises as their class; None if they were not counted.
        format: format of the file.
        sha256: sha256 of the file's bytes; "" for a reference that was not read from a file.
    """

    gaussian: Gaussian
    spatial: Gaussian | None = None
    features: Tensor | None = None
    images: StoredImages | None = None
    num_images: int = 0
    protocol: str = ""
    extractor: str = ""
    weights_hash: str = ""
    resize: str = ""
    source: str = ""
    classes: Mapping[int, int] | None = None
    image_size: int = 0
    recognition: Recognition | None = None
    format: Format = "adanat"
    sha256: str = ""

    @property
    def feature_width(self) -> int:
        """D."""
        return len(self.gaussian.mean)


def extractor_fields(extractor: Extractor) -> dict[str, Any]:
    """Return the fields of a ``Reference`` that identify an extractor and its preparation of images."""
    return {
        "protocol": extractor.protocol,
        "extractor": extractor.name,
        "weights_hash": extractor.weights_hash,
        "resize": _RESIZES.get(extractor.protocol, ""),
    }


def read_reference(path: Path) -> Reference:
    """Read any of the three formats; images stay on disk.

    Raises:
        AdaNATError: if the file is missing, damaged or not an archive, lacks moments, holds pickled objects, values
            that are not finite or a covariance that is not symmetric, or its shapes do not match.
    """
    archive = Archive(path)
    if _is_compact(archive):
        return _read_compact(archive)
    if not holds_statistics(archive):
        raise AdaNATError(
            f"{path} holds {', '.join(archive.names[:8])}; expected mu and sigma. `adanat stats` makes reference "
            "statistics of images."
        )
    gaussian = _read_gaussian(archive, "mu", "sigma")
    spatial = _read_gaussian(archive, "mu_s", "sigma_s") if {"mu_s", "sigma_s"} & set(archive.names) else None
    reference = Reference(
        gaussian,
        spatial,
        _read_features(archive, len(gaussian.mean)),
        _find_images(archive),
        sha256=sha256_of(path),
    )
    if "metadata" in archive.names:
        return replace(reference, **_read_metadata(archive))
    require(
        spatial is None or len(spatial.mean) == SPATIAL_WIDTH,
        f"{path} has spatial features of width {len(spatial.mean) if spatial else 0}; expected {SPATIAL_WIDTH}.",
    )
    return replace(reference, format="adm" if spatial or reference.images else "pytorch-fid")


def holds_statistics(archive: Archive) -> bool:
    """Whether an archive holds the moments of a reference, or the compact form's features in their place."""
    return {"mu", "sigma"} <= set(archive.names) or _is_compact(archive)


def write_reference(path: Path, reference: Reference, compact: bool = False) -> None:
    """Write our own format, without images.

    Args:
        path: file to write in place; the caller renames it when it is complete.
        reference: statistics to write.
        compact: whether to write the compact form, for a reference with the features of all images; spatial moments
            are left out.
    """
    arrays: dict[str, Array] = {}
    features = None if reference.features is None else reference.features.float().cpu().numpy()
    if compact and (features is None or len(features) != reference.num_images):
        raise ValueError("the compact form needs the features of all images")
    for gaussian, names in ((reference.gaussian, ("mu", "sigma")), (reference.spatial, ("mu_s", "sigma_s"))):
        if gaussian is not None and not compact:
            arrays |= {name: part.double().cpu().numpy() for name, part in zip(names, gaussian, strict=True)}
    if features is not None:
        arrays["features"] = features.astype(np.float16) if compact else features
    metadata: dict[str, Any] = {"format_version": _FORMAT_VERSION, "num_images": reference.num_images}
    metadata |= {name: getattr(reference, name) for name in _TEXTS}
    metadata["image_size"] = reference.image_size
    if reference.classes is not None:
        metadata["classes"] = {str(label): num for label, num in sorted(reference.classes.items())}
    if reference.recognition is not None:
        metadata["recognition"] = asdict(reference.recognition)
    arrays["metadata"] = np.array(json.dumps(metadata))
    with path.open("wb") as file:  # NumPy would append a suffix to a name
        (np.savez_compressed if compact else np.savez)(file, **arrays)  # type: ignore[arg-type]


def check_reference(reference: Reference, extractor: Extractor) -> None:
    """Refuse a reference whose features are not comparable with those of an extractor.

    A file that does not record its extractor counts as Inception features, as the field's files are, of whichever
    Inception protocol the extractor has.

    Raises:
        AdaNATError: if the width, the protocol, the network or its weights differ.
    """
    if not reference.protocol:
        require(
            reference.feature_width == POOL_WIDTH,
            f"The reference has features of width {reference.feature_width} and does not record their network; "
            f"expected width {POOL_WIDTH}, Inception's, or a file written by `adanat stats`.",
        )
        require(
            extractor.protocol in _INCEPTION_PROTOCOLS,
            f"The reference holds Inception features, and the images are measured by protocol {extractor.protocol!r} "
            f"with {extractor.name}; use --protocol {', '.join(_INCEPTION_PROTOCOLS[:-1])} or "
            f"{_INCEPTION_PROTOCOLS[-1]}, or make a reference with `adanat stats`.",
        )
    for what, theirs, ours in (
        ("protocol", reference.protocol, extractor.protocol),
        ("feature network", reference.extractor, extractor.name),
        ("weights", reference.weights_hash[:12], extractor.weights_hash[:12]),
    ):
        require(
            theirs in ("", ours),
            f"The reference was computed with {what} {theirs}, and the images are measured with {ours}; use the same, "
            "or compute the reference again with `adanat stats`.",
        )
    require(
        reference.feature_width == extractor.feature_width,
        f"The reference has features of width {reference.feature_width}, and {extractor.name} has features of width "
        f"{extractor.feature_width}; use the network of the reference.",
    )


def compare_classes(reference: Mapping[int, int] | None, images: Set[int] | None) -> dict[str, int]:
    """Count the classes of reference and images, and their intersection; empty if they agree or are unknown.

    Args:
        reference: class id to number of images; None if unknown.
        images: class ids of the images that are compared with it; None if unknown.
    """
    if reference is None or images is None or reference.keys() == images:
        return {}
    return {"reference": len(reference), "images": len(images), "shared": len(reference.keys() & images)}


def _is_compact(archive: Archive) -> bool:
    return {"features", "metadata"} <= set(archive.names) and not {"mu", "sigma", "arr_0"} & set(archive.names)


def _read_compact(archive: Archive) -> Reference:
    """Read features and metadata, and compute the moments."""
    shape = archive.header("features").shape
    features, fields = _read_features(archive, shape[-1] if shape else 0), _read_metadata(archive)
    if features is None or not 2 <= len(features) == fields["num_images"]:
        raise AdaNATError(
            f"{archive.path} holds features of shape {shape} for {fields['num_images']} images, and no moments; "
            "expected mu and sigma, or the features of all of at least 2 images."
        )
    moments = Moments()
    moments.add(features)
    return Reference(moments.gaussian(), None, features, sha256=sha256_of(archive.path), **fields)


def _read_gaussian(archive: Archive, mean: str, covariance: str) -> Gaussian:
    """Read mean and covariance, after a check of their shapes."""
    shapes = archive.header(mean).shape, archive.header(covariance).shape
    require(
        len(shapes[0]) == 1 and shapes[0][0] >= 1 and shapes[1] == 2 * shapes[0],
        f"{archive.path} holds {mean} of shape {shapes[0]} and {covariance} of shape {shapes[1]}; expected (D,) and "
        "(D, D).",
    )
    try:
        gaussian = checked_gaussian(Gaussian(_read_numbers(archive, mean), _read_numbers(archive, covariance)))
        require(bool((gaussian.covariance.diagonal() >= 0).all()), "The covariance has negative variances.")
    except AdaNATError as error:
        raise AdaNATError(f"{archive.path} cannot serve as a reference. {mean}, {covariance}: {error}") from error
    return gaussian


def _read_features(archive: Archive, width: int) -> Tensor | None:
    if "features" not in archive.names:
        return None
    shape = archive.header("features").shape
    require(
        len(shape) == 2 and shape[0] >= 1 and shape[1] == width,
        f"{archive.path} holds features of shape {shape}; expected (n, {width}), the width of mu.",
    )
    features = _read_numbers(archive, "features").float()
    require(bool(features.isfinite().all()), f"{archive.path} holds features that are not finite; make it again.")
    return features


def _read_numbers(archive: Archive, name: str) -> Tensor:
    values = archive.read(name)
    require(values.dtype.kind == "f", f"{name} in {archive.path} is of type {values.dtype}; expected floats.")
    return torch.from_numpy(values.astype(np.float32 if values.dtype.itemsize == 4 else np.float64, copy=False))


def _find_images(archive: Archive) -> StoredImages | None:
    if "arr_0" not in archive.names:
        return None
    shape, dtype, _ = archive.header("arr_0")
    require(
        len(shape) == 4 and shape[0] >= 1 and shape[3] == 3 and dtype == np.uint8,
        f"{archive.path} holds arr_0 of shape {shape} and type {dtype}; expected images, (n, H, W, 3) bytes.",
    )
    return StoredImages(archive, shape)


@dataclass(frozen=True)
class _Metadata:
    """The JSON of our own format; fields that older files lack have a default."""

    format_version: int
    num_images: int
    protocol: str
    extractor: str
    weights_hash: str
    resize: str
    source: str
    classes: Mapping[int, int] | None = None
    image_size: int = 0
    recognition: Recognition | None = None

    def __post_init__(self) -> None:
        least = min([self.num_images, self.image_size, *(self.classes or {}).values()])
        require(least >= 0, f"it counts {least}; expected 0 or more")


def _read_metadata(archive: Archive) -> dict[str, Any]:
    """Read the fields of ``Reference`` that our own format records as JSON."""
    try:
        values = parse_json(str(archive.read("metadata")), "it")
        version = values.get("format_version") if isinstance(values, dict) else None
        require(
            type(version) is not int or version == _FORMAT_VERSION,
            f"format version {version}; this toolkit reads version {_FORMAT_VERSION}, upgrade adanat",
        )
        fields = dict(vars(build(_Metadata, values, "it")))
    except AdaNATError as error:
        raise AdaNATError(
            f"The metadata of {archive.path} cannot be read ({error}); make it again with `adanat stats`."
        ) from error
    del fields["format_version"]
    return {**fields, "format": "adanat"}
