"""A figure beside the same one measured again: how far apart may they lie?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from adanat_cli.core.config.reproduce import LEAST_IMAGES, NUM_GROUPS
from adanat_cli.jobs.evaluate.tables import COLUMNS

Verdict = Literal["equal", "within", "outside", "not judged"]
ERRORS = 4.1
"""Standard errors of a tolerance: Student's t with 9 degrees of freedom, of 10 groups, exceeds it in 0.3 % of cases."""
_STRAIGHT = {"fid", "sfid"}
"""Metrics whose bias is a straight line in 1 / N (Chong and Forsyth 2020, arXiv 1911.07023), from about as many images
on as there are features."""
_CURVED = {"inception_score", "recall", "coverage"}
"""Metrics that depend on N in ways that no few images tell; the others do not depend on it."""
_SHARES = {"precision", "recall", "coverage", "accuracy", "top1", "top5", "among", "among_of_real"}
"""Shares of images, which one image changes by 1 / N."""
_DRAWN = {"precision", "accuracy", "top1", "top5", "among"}
"""Of these, the shares of the images that are measured: each image counts or does not, whatever the others are."""
_SAME = 1e-6
"""Two numbers that differ by less than this share are those of the same images, summed in another order."""

HEAD = ("metric", "verdict", "expected", "here", "difference", "tolerance")


@dataclass(frozen=True)
class Expected:
    """A figure that is to be found again.

    Attributes:
        metric: what it is.
        value: the figure.
        num_images: images that it is of.
        source: whose it is, in words.
        rounding: half a unit in its last digit; 0 where it was not rounded.
    """

    metric: str
    value: float
    num_images: int
    source: str
    rounding: float = 0.0


def compare(expected: Expected, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a figure beside the measured one, as JSON values.

    Args:
        expected: the figure.
        row: what ``evaluate`` measured, with its spread.
    """
    settings, name = row["settings"], expected.metric
    measured, num_images = row["metrics"].get(name), settings["num_images"]
    values = {
        "protocol": settings["protocol"],
        "schedule": row["name"],
        "num_steps": settings["num_steps"],
        "seed": settings["seed"],
        "metric": name,
        "source": expected.source,
        "expected": expected.value,
        "num_expected": expected.num_images,
        "measured": measured,
        "num_measured": num_images,
    }
    if measured is None:
        return values | _unjudged(f"not measured: {row['absent'].get(name, 'no value')}")
    if num_images == expected.num_images and abs(measured - expected.value) <= max(
        _SAME * abs(expected.value), expected.rounding
    ):
        return values | {"correction": 0.0, "tolerance": _tolerance(expected, row), "verdict": "equal", "why": ""}
    if num_images != expected.num_images and not _is_straight(name, min(num_images, expected.num_images), row):
        return values | _unjudged("it depends on the number of images")
    if (tolerance := _tolerance(expected, row)) is None:
        few = f"fewer than {LEAST_IMAGES} images have no tolerance"
        return values | _unjudged(few if num_images < LEAST_IMAGES else "some images alone do not have it")
    correction = _correction(expected, row)
    fits = abs(measured - expected.value - correction) <= tolerance + _SAME * abs(expected.value)
    verdict: Verdict = "within" if fits else "outside"
    return values | {"correction": correction, "tolerance": tolerance, "verdict": verdict, "why": ""}


def outside(comparisons: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the figures that lie outside their tolerance."""
    return [
        f"{COLUMNS[one['metric']][0]} of {one['schedule']}, {one['num_steps']} steps ({one['protocol']})"
        for one in comparisons
        if one["verdict"] == "outside"
    ]


def unjudged(comparisons: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield why figures are not judged, in words, with their metrics."""
    reasons: dict[str, list[str]] = {}
    for one in comparisons:
        name = COLUMNS[one["metric"]][0]
        if one["why"] and name not in reasons.setdefault(one["why"], []):
            reasons[one["why"]].append(name)
    yield from (f"Not judged, {why}: {', '.join(names)}" for why, names in reasons.items())


def derivation(comparisons: Iterable[Mapping[str, Any]]) -> str:
    """How tolerances follow, in words."""
    arrow = " (after the arrow)" if any(one["correction"] for one in comparisons) else ""
    return (
        f"Tolerance: {ERRORS:g} standard errors of the difference of two sets of images (the jackknife over "
        f"{NUM_GROUPS} groups of those measured; for shares of them at least the error of as many independent draws "
        "with the expected share), half a unit in the last published digit, and for shares one image. "
        "Where the numbers of images differ, a Fréchet distance is compared with the one expected of as many images"
        f"{arrow}, by its bias as the jackknife estimates it, and half of that correction is added; Inception Score, "
        "recall, coverage, and distances of fewer images than features are not judged then."
    )


def footnote(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """The same in a sentence or two; ``derivation`` is the whole of it."""
    arrow = (
        " After an arrow: what is expected of as many images as here."
        if any(one["correction"] for one in comparisons)
        else ""
    )
    return f"Tolerance: {ERRORS:g} standard errors of the difference, and rounding; the report tells more.{arrow}"


def verdict(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """All figures in one line, such as ``8 figures within their tolerance, 1 not judged at 100 images (FID)``."""
    numbers = Counter("within" if one["verdict"] == "equal" else one["verdict"] for one in comparisons)
    idle = [one for one in comparisons if one["verdict"] == "not judged"]
    images = " or ".join(f"{number:,}" for number in sorted({one["num_measured"] for one in idle}))
    names = ", ".join(dict.fromkeys(COLUMNS[one["metric"]][0] for one in idle))
    parts = [
        f"{numbers['within']} {'figure within its' if numbers['within'] == 1 else 'figures within their'} tolerance"
    ]
    parts += [f"{numbers['outside']} outside"] if numbers["outside"] else []
    parts += [f"{len(idle)} not judged at {images} images ({names})"] if idle else []
    return f"{', '.join(parts)}."


def tables(comparisons: Iterable[Mapping[str, Any]]) -> dict[str, list[list[str]]]:
    """What was measured -> cells below ``HEAD``, for people."""
    found: dict[str, list[list[str]]] = {}
    for one in comparisons:
        name, form = COLUMNS[one["metric"]]
        expected, measured, correction = one["expected"], one["measured"], one["correction"] or 0.0
        shown = f"{expected:{form}}" + (f" → {expected + correction:{form}}" if correction else "")
        found.setdefault(f"{one['schedule']}, {one['num_steps']} steps, protocol {one['protocol']}", []).append(
            [
                name,
                one["verdict"],
                shown,
                "—" if measured is None else f"{measured:{form}}",
                "—" if measured is None else f"{measured - expected - correction:+{form}}",
                "—" if one["tolerance"] is None else f"{one['tolerance']:{form}}",
            ]
        )
    return found


def _is_straight(metric: str, num_images: int, row: Mapping[str, Any]) -> bool:
    """Whether it is known how a metric depends on the number of images, from this number on."""
    return metric not in _CURVED and (metric not in _STRAIGHT or num_images >= row.get("feature_width", 0))


def _unjudged(why: str) -> dict[str, Any]:
    return {"correction": None, "tolerance": None, "verdict": "not judged", "why": why}


def _correction(expected: Expected, row: Mapping[str, Any]) -> float:
    """How much larger the figure is expected to be of the images that were measured than of those it is of."""
    if expected.metric not in _STRAIGHT:
        return 0.0
    bias: float = row["spread"][expected.metric]["bias"]
    return bias * (1 - row["settings"]["num_images"] / expected.num_images)


def _tolerance(expected: Expected, row: Mapping[str, Any]) -> float | None:
    """The largest difference; None where the spread is not known."""
    known = row.get("spread", {}).get(expected.metric)
    if known is None:
        return None
    num_images = row["settings"]["num_images"]
    error: float = known["error"]
    if expected.metric in _DRAWN:
        # Groups that all agree, as where every image counts, would leave no room.
        error = max(error, (expected.value * (1 - expected.value) / num_images) ** 0.5)
    both = error * (1 + num_images / expected.num_images) ** 0.5
    one_image = 1 / min(num_images, expected.num_images) if expected.metric in _SHARES else 0.0
    return ERRORS * both + expected.rounding + one_image + abs(_correction(expected, row)) / 2
