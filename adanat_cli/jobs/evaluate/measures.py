"""What is measured of a set of features: one function a measure, all over the same store."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from adanat_cli.core.metrics.frechet import FrechetReference, Gaussian, Moments
from adanat_cli.core.metrics.manifold import manifold_scores
from adanat_cli.core.metrics.references import Reference
from adanat_cli.core.metrics.scores import inception_score, kernel_distance
from adanat_cli.jobs.evaluate.feature_store import FeatureStore

_LEAST_FOR_MANIFOLD = 6
"""Density and coverage look at the 5 nearest of the other images."""
_LEAST_FOR_KERNEL = 2
MOST_HELD = 50_000
"""Images whose features or logits are held together: all that published numbers are of. Of more images, the first so
many count for all but the Fréchet distances, the accuracy and the CLIP score, which go through the store in parts."""
_INCEPTION_SPLITS, _ADM_SPLIT_SIZE = 10, 5000


class AbsentError(Exception):
    """A measure that does not exist here; the message says why."""


@dataclass(frozen=True)
class Measured:
    """Features of the images, and what they are compared with.

    Attributes:
        store: features of all images.
        num_images: in the store.
        reference: moments.
        reference_features: (n, D) of some of the reference's images; None where it has none.
        protocol: under which the features were made.
        missing_labels: why the images have no classes; "" if they have.
        missing_clip: why the store has no similarities to prompts; "" if it has.
        device: for the large products.
    """

    store: FeatureStore
    num_images: int
    reference: Reference
    reference_features: Tensor | None
    protocol: str
    missing_labels: str
    missing_clip: str
    device: torch.device


Measure = Callable[[Measured], dict[str, float]]


def frechet(measured: Measured) -> dict[str, float]:
    """FID, in the features of the protocol."""
    return {"fid": _distance(measured, "features", measured.reference.gaussian)}


def spatial_frechet(measured: Measured) -> dict[str, float]:
    """SFID: the same distance between spatial features (Nash et al. 2021, arXiv 2103.03841)."""
    if measured.reference.spatial is None:
        raise AbsentError("the reference has no spatial moments (mu_s, sigma_s)")
    return {"sfid": _distance(measured, "spatial", measured.reference.spatial)}


def inception(measured: Measured) -> dict[str, float]:
    """Inception Score, or what the protocol's own classifier gives in its place.

    Over 10 parts of shuffled images as torch-fidelity does, and for ``adm`` over parts of 5,000 in the order given
    as guided-diffusion's evaluator does.
    """
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
        raise AbsentError(f"{least} images are too few for neighbourhoods of 5; at least {_LEAST_FOR_MANIFOLD}")
    return manifold_scores(real.to(measured.device), _features(measured).to(measured.device))._asdict()


def kernel(measured: Measured) -> dict[str, float]:
    """KID (Bińkowski et al. 2018, arXiv 1801.01401)."""
    real = _reference_features(measured)
    least = min(len(real), measured.num_images)
    if least < _LEAST_FOR_KERNEL:
        raise AbsentError(f"{least} images are too few; at least {_LEAST_FOR_KERNEL}")
    distance = kernel_distance(real.to(measured.device), _features(measured).to(measured.device))
    return {"kid": distance.mean, "kid_std": distance.std}


def accuracy(measured: Measured) -> dict[str, float]:
    """Share of images that the small classifier takes for the class that was asked for."""
    if measured.protocol != "small":
        raise AbsentError("only the classifier of the protocol small shares the classes' numbering")
    if measured.missing_labels:
        raise AbsentError(measured.missing_labels)
    num_right = num = 0
    for logits, labels in zip(measured.store.pieces("logits"), measured.store.pieces("labels"), strict=False):
        if len(strange := labels[(labels < 0) | (labels >= logits.shape[1])]):
            raise AbsentError(f"class {int(strange[0])} is none of the classifier's {logits.shape[1]}")
        num_right += int((logits.argmax(1) == labels).sum())
        num += len(labels)
    if not num:
        raise AbsentError("the feature network classifies nothing")
    return {"accuracy": num_right / num}


def clip_score(measured: Measured) -> dict[str, float]:
    """100 times the mean cosine similarity of an image and its prompt, by CLIP (arXiv 2103.00020).

    Hessel et al. (2021, arXiv 2104.08718) cut negative similarities off and multiply by 2.5 instead; published tables
    of text to image mostly do neither.
    """
    similarities = measured.store.column("clip")
    if similarities is None:
        raise AbsentError(measured.missing_clip or "the features were made without")
    return {"clip_score": 100 * float(similarities.double().mean())}


MEASURES: dict[tuple[str, ...], Measure] = {
    ("fid",): frechet,
    ("sfid",): spatial_frechet,
    ("inception_score", "inception_score_std"): inception,
    ("precision", "recall", "density", "coverage"): manifold,
    ("kid", "kid_std"): kernel,
    ("accuracy",): accuracy,
    ("clip_score",): clip_score,
}
"""By the names of what they give, in the order of the table. A measure of another network takes another row here and
another column in the store."""


def measure(measured: Measured) -> tuple[dict[str, float | None], dict[str, str]]:
    """Return every measure by name, None where it does not exist, and the reasons of those."""
    values: dict[str, float | None] = {}
    absent: dict[str, str] = {}
    for names, function in MEASURES.items():
        try:
            values |= _finite(function, measured)
        except AbsentError as reason:
            values |= dict.fromkeys(names)
            absent |= dict.fromkeys(names, str(reason))
    return values, absent


def _finite(function: Measure, measured: Measured) -> dict[str, float]:
    """What a measure gives; one that is beyond all numbers does not exist."""
    undefined = AbsentError("it is not a finite number: what it is computed from is out of the range of numbers")
    try:
        values = function(measured)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # PyTorch documents it
        raise undefined from error
    if not all(map(math.isfinite, values.values())):
        raise undefined
    return values


def moments_of(store: FeatureStore, column: str, device: torch.device) -> Moments | None:
    """Moments of a column, part by part; None where the store does not have it."""
    moments = Moments()
    for piece in store.pieces(column):
        moments.add(piece.to(device))
    return moments if moments.num else None


def _distance(measured: Measured, column: str, reference: Gaussian) -> float:
    moments = moments_of(measured.store, column, measured.device)
    if moments is None:
        raise AbsentError("the feature network has no spatial features")
    mean, covariance = (part.to(moments.mean.device) for part in reference)
    return FrechetReference(Gaussian(mean, covariance)).distance(moments.gaussian())


def _reference_features(measured: Measured) -> Tensor:
    if measured.reference_features is None:
        raise AbsentError("the reference holds neither features nor images")
    return measured.reference_features[:MOST_HELD]


def _features(measured: Measured) -> Tensor:
    features = measured.store.column("features", MOST_HELD)
    if features is None:
        raise AbsentError("there are no features")
    return features
