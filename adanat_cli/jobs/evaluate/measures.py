"""The metrics of a set of features: one function per metric or group of metrics, all over the same store."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import torch
from torch import Tensor

from adanat_cli.core.metrics.frechet import FrechetReference, Gaussian, Moments
from adanat_cli.core.metrics.manifold import NUM_DENSITY_NEIGHBORS, NUM_NEIGHBORS, manifold_scores
from adanat_cli.core.metrics.recognition import Recognition, recognition
from adanat_cli.core.metrics.references import Reference, compare_classes
from adanat_cli.core.metrics.scores import inception_score, kernel_distance, signal_to_noise
from adanat_cli.jobs.runtime.reporter import Task

NEIGHBORS = {
    "precision": NUM_NEIGHBORS,
    "recall": NUM_NEIGHBORS,
    "density": NUM_DENSITY_NEIGHBORS,
    "coverage": NUM_DENSITY_NEIGHBORS,
}
"""k of each metric that looks at the k nearest of the other images."""
_LEAST_FOR_MANIFOLD = max(NEIGHBORS.values()) + 1
_LEAST_FOR_KERNEL = 2
MOST_HELD = 50_000
"""Images whose features or logits are held in memory: as many as published numbers are of. Of more images, only the
first 50,000 count, except for Fréchet distances, accuracy, recognition and CLIP score, which go through the store part
by part."""
_INCEPTION_SPLITS, _ADM_SPLIT_SIZE = 10, 5000


class AbsentError(Exception):
    """A metric that cannot be computed here; the message says why."""


class Columns(Protocol):
    """Features with what goes along with them, one row per image; see ``FeatureStore``."""

    def pieces(self, column: str) -> Iterator[Tensor]:
        """Yield a column part by part."""

    def column(self, name: str, most: int | None = None) -> Tensor | None:
        """The first ``most`` rows of a column, or all; None where there is none."""


@dataclass(frozen=True)
class Measured:
    """Features of the images, and what they are compared with.

    Attributes:
        store: features of all images.
        num_images: images in the store.
        reference: moments of the real images.
        reference_features: (n, D), features of some of the real images; None where the reference has none.
        protocol: protocol of the features.
        missing_labels: why the images have no classes; "" if they have.
        missing_recognition: why ImageNet's classes cannot be recognised in the images; "" if they can.
        missing_clip: why the store has no similarities to prompts; "" if it has.
        device: for large matrix products.
        num_subsets: subsets of the KID.
        known_classes: classes of the images, where the store holds only some of them; None for those in the store.
    """

    store: Columns
    num_images: int
    reference: Reference
    reference_features: Tensor | None
    protocol: str
    missing_labels: str
    missing_recognition: str
    missing_clip: str
    device: torch.device
    num_subsets: int = 100
    known_classes: frozenset[int] | None = None

    @cached_property
    def classes(self) -> frozenset[int]:
        """The classes of the images."""
        if self.known_classes is not None:
            return self.known_classes
        labels = self.store.column("labels")
        return frozenset() if labels is None else frozenset(labels.unique().tolist())

    @cached_property
    def recognition(self) -> Recognition:
        """How many images the network recognises as their class.

        Raises:
            AbsentError: if its classes are not those of the images.
        """
        if self.protocol != "efficientnet":
            raise AbsentError("only the protocol efficientnet recognises classes of ImageNet")
        if self.missing_recognition:
            raise AbsentError(self.missing_recognition)
        pairs = zip(self.store.pieces("logits"), self.store.pieces("labels"), strict=True)
        return recognition(pairs, self.classes)


Measure = Callable[[Measured], dict[str, float]]


def frechet(measured: Measured) -> dict[str, float]:
    """FID, in the features of the protocol."""
    return {"fid": _distance(measured, "features", measured.reference.gaussian)}


def spatial_frechet(measured: Measured) -> dict[str, float]:
    """sFID: the same distance between spatial features (Nash et al. 2021, arXiv 2103.03841)."""
    if measured.reference.spatial is None:
        raise AbsentError("the reference has no spatial moments (mu_s, sigma_s)")
    return {"sfid": _distance(measured, "spatial", measured.reference.spatial)}


def inception(measured: Measured) -> dict[str, float]:
    """Inception Score, or the same formula with the classifier of the protocol.

    Over 10 parts of shuffled images, as in torch-fidelity; for ``adm`` over parts of 5,000 in the given order, as in
    guided-diffusion's evaluator.
    """
    if measured.protocol == "efficientnet":
        raise AbsentError("it is of Inception's classes; top1, top5 and among are of this network's")
    logits = measured.store.column("logits", MOST_HELD)
    if logits is None:
        raise AbsentError("the feature network classifies nothing")
    if len(logits) < _INCEPTION_SPLITS:
        raise AbsentError(f"{len(logits)} images are too few for {_INCEPTION_SPLITS} parts")
    if measured.protocol == "adm":
        score = inception_score(logits, -(-len(logits) // _ADM_SPLIT_SIZE), seed=None)
    else:
        score = inception_score(logits, _INCEPTION_SPLITS)
    return {"inception_score": score.mean, "inception_score_std": score.std}


def manifold(measured: Measured) -> dict[str, float]:
    """Precision, recall, density and coverage."""
    real = _reference_features(measured)
    least = min(len(real), measured.num_images)
    if least < _LEAST_FOR_MANIFOLD:
        raise AbsentError(
            f"{least} images are too few for neighbourhoods of {max(NEIGHBORS.values())}; at least "
            f"{_LEAST_FOR_MANIFOLD}"
        )
    return manifold_scores(real.to(measured.device), _features(measured).to(measured.device))._asdict()


def kernel(measured: Measured) -> dict[str, float]:
    """KID (Bińkowski et al. 2018, arXiv 1801.01401)."""
    real = _reference_features(measured)
    least = min(len(real), measured.num_images)
    if least < _LEAST_FOR_KERNEL:
        raise AbsentError(f"{least} images are too few; at least {_LEAST_FOR_KERNEL}")
    both = (real.to(measured.device), _features(measured).to(measured.device))
    distance = kernel_distance(*both, num_subsets=measured.num_subsets)
    return {"kid": distance.mean, "kid_std": distance.std}


def accuracy(measured: Measured) -> dict[str, float]:
    """Share of images that the small classifier assigns to the requested class."""
    if measured.protocol != "small":
        raise AbsentError("only the classifier of the protocol small was trained on the model's classes")
    if measured.missing_labels:
        raise AbsentError(measured.missing_labels)
    num_right = num = 0
    for logits, labels in zip(measured.store.pieces("logits"), measured.store.pieces("labels"), strict=False):
        if len(strange := labels[(labels < 0) | (labels >= logits.shape[1])]):
            raise AbsentError(f"class {int(strange[0])} is not one of the classifier's {logits.shape[1]}")
        num_right += int((logits.argmax(1) == labels).sum())
        num += len(labels)
    if not num:
        raise AbsentError("the feature network classifies nothing")
    return {"accuracy": num_right / num}


def recognised(measured: Measured) -> dict[str, float]:
    """Shares of images whose class has the largest logit of ImageNet's 1,000, or one of the five largest."""
    return {"top1": measured.recognition.top1, "top5": measured.recognition.top5}


def recognised_among(measured: Measured) -> dict[str, float]:
    """Share of images whose class has the largest logit of those that the images are of."""
    found = measured.recognition
    if len(measured.classes) < 2:
        raise AbsentError("the images are of one class, which no other is compared with")
    return {"among": found.among}


def recognised_of_real(measured: Measured) -> dict[str, float]:
    """The share among the classes, divided by that of the reference's real images."""
    found, real = recognised_among(measured)["among"], measured.reference.recognition
    if real is None or not real.among:
        raise AbsentError("the reference does not record how many real images are recognised")
    if measured.reference.classes is None or compare_classes(measured.reference.classes, measured.classes):
        raise AbsentError("the real images are of other classes")
    return {"among_of_real": found / real.among}


def clip_score(measured: Measured) -> dict[str, float]:
    """100 times the mean cosine similarity of image and prompt by CLIP (arXiv 2103.00020).

    CLIPScore (Hessel et al. 2021, arXiv 2104.08718) clips negative similarities and multiplies by 2.5 instead;
    published tables of text to image mostly do neither.
    """
    similarities = measured.store.column("clip")
    if similarities is None:
        raise AbsentError(measured.missing_clip or "the features were extracted without CLIP")
    return {"clip_score": 100 * float(similarities.double().mean())}


def reconstruction(measured: Measured) -> dict[str, float]:
    """PSNR in dB over the pixels of all reconstructions; nothing for images without originals."""
    errors = measured.store.column("errors")
    if errors is None:
        return {}
    if not errors.any():
        raise AbsentError("it is infinite: the reconstructions equal the images")
    return {"psnr": signal_to_noise(float(errors.double().mean()))}


MEASURES: dict[tuple[str, ...], Measure] = {
    ("fid",): frechet,
    ("sfid",): spatial_frechet,
    ("inception_score", "inception_score_std"): inception,
    ("precision", "recall", "density", "coverage"): manifold,
    ("kid", "kid_std"): kernel,
    ("accuracy",): accuracy,
    ("top1", "top5"): recognised,
    ("among",): recognised_among,
    ("among_of_real",): recognised_of_real,
    ("clip_score",): clip_score,
    ("psnr",): reconstruction,
}
"""Metrics by the names that they return, in the order of the table. A metric of another network takes another row here
and another column in the store."""


def measure(
    measured: Measured, measures: Mapping[tuple[str, ...], Measure] = MEASURES, task: Task | None = None
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Return metrics by name, None where one cannot be computed, and the reasons for those.

    Args:
        measured: what is measured.
        measures: the metrics.
        task: shows which metric is computed.
    """
    values: dict[str, float | None] = {}
    absent: dict[str, str] = {}
    for names, function in measures.items():
        if task is not None:
            task.advance(0, phase=names[0])
        try:
            values |= _finite(function, measured)
        except AbsentError as reason:
            values |= dict.fromkeys(names)
            absent |= dict.fromkeys(names, str(reason))
        if task is not None:
            task.advance(1)
    return values, absent


def _finite(function: Measure, measured: Measured) -> dict[str, float]:
    """What a metric returns; one that is not finite counts as absent."""
    undefined = AbsentError("it is not a finite number: its inputs exceed the range of floating-point numbers")
    try:
        values = function(measured)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # PyTorch documents it
        raise undefined from error
    if not all(map(math.isfinite, values.values())):
        raise undefined
    return values


def moments_of(store: Columns, column: str, device: torch.device) -> Moments | None:
    """Moments of a column, computed part by part; None where the store does not have it."""
    moments = Moments()
    for piece in store.pieces(column):
        moments.add(piece.to(device))
    return moments if moments.num else None


def _distance(measured: Measured, column: str, reference: Gaussian) -> float:
    moments = moments_of(measured.store, column, measured.device)
    if moments is None:
        raise AbsentError("the feature network has no spatial features")
    return _with_root(reference.mean, reference.covariance, moments.mean.device).distance(moments.gaussian())


@lru_cache(maxsize=2)
def _with_root(mean: Tensor, covariance: Tensor, device: torch.device) -> FrechetReference:
    """A reference's Gaussian with the square root of its covariance, which takes longer than a distance to it."""
    return FrechetReference(Gaussian(mean.to(device), covariance.to(device)))


def _reference_features(measured: Measured) -> Tensor:
    if measured.reference_features is None:
        raise AbsentError("the reference holds neither features nor images")
    return measured.reference_features[:MOST_HELD]


def _features(measured: Measured) -> Tensor:
    features = measured.store.column("features", MOST_HELD)
    if features is None:
        raise AbsentError("there are no features")
    return features
