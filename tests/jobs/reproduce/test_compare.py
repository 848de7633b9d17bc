"""Tolerances by hand."""

from __future__ import annotations

from typing import Any

import pytest

from adanat_cli.jobs.reproduce.compare import (
    ERRORS,
    HEAD,
    Expected,
    compare,
    derivation,
    footnote,
    outside,
    tables,
    unjudged,
    verdict,
)


def row(
    metric: str, value: float | None, num_images: int = 100, error: float = 0.0, bias: float = 0.0
) -> dict[str, Any]:
    return {
        "name": "cosine",
        "settings": {"protocol": "small", "num_steps": 4, "seed": 0, "num_images": num_images},
        "metrics": {metric: value},
        "absent": {metric: "too dark"},
        "spread": {metric: {"error": error, "bias": bias}},
        "feature_width": 64,
    }


def test_a_tolerance_is_errors_of_the_difference_and_half_a_digit() -> None:
    expected = Expected("fid", 2.86, 100, "a paper", rounding=0.005)
    limit = ERRORS * 0.1 * 2**0.5 + 0.005
    one = compare(expected, row("fid", 2.86 + 0.99 * limit, error=0.1))
    assert (one["verdict"], one["tolerance"], one["correction"]) == ("within", pytest.approx(limit), 0.0)
    assert compare(expected, row("fid", 2.86 + 1.01 * limit, error=0.1))["verdict"] == "outside"
    assert compare(expected, row("fid", 2.86 - 1.01 * limit, error=0.1))["verdict"] == "outside"
    assert compare(expected, row("fid", 2.864, error=0.1))["verdict"] == "equal"


def test_a_distance_of_fewer_images_is_expected_to_be_larger() -> None:
    expected = Expected("fid", 8.0, 400, "recorded")
    one = compare(expected, row("fid", 9.5, num_images=100, error=0.1, bias=2.0))
    assert one["correction"] == pytest.approx(1.5)  # 3 of 4 parts of a bias of 2
    assert one["tolerance"] == pytest.approx(ERRORS * 0.1 * 1.25**0.5 + 0.75)
    assert one["verdict"] == "within"
    assert compare(expected, row("fid", 8.0, num_images=100, error=0.01, bias=2.0))["verdict"] == "outside"
    more = compare(Expected("fid", 8.0, 100, "recorded"), row("fid", 7.0, num_images=400, error=0.1, bias=0.25))
    assert more["correction"] == pytest.approx(-0.75)


@pytest.mark.parametrize(
    ("metric", "num_images", "verdict"),
    [("recall", 50, "not judged"), ("recall", 100, "outside"), ("accuracy", 50, "outside"), ("fid", 63, "not judged")],
)
def test_what_depends_on_the_number_of_images_is_judged_of_equal_numbers_only(
    metric: str, num_images: int, verdict: str
) -> None:
    one = compare(Expected(metric, 0.9, 100, "recorded"), row(metric, 0.1, num_images=num_images))
    assert one["verdict"] == verdict
    assert list(unjudged([one])) == (
        []
        if verdict == "outside"
        else ["Not judged, it depends on the number of images: " + {"recall": "recall", "fid": "FID"}[metric]]
    )


def test_one_image_may_fall_on_the_other_side_of_a_share() -> None:
    expected = Expected("coverage", 0.31, 100, "recorded")
    assert compare(expected, row("coverage", 0.32))["verdict"] == "within"
    assert compare(expected, row("coverage", 0.33))["verdict"] == "outside"


@pytest.mark.parametrize("metric", ["precision", "accuracy", "top1", "top5", "among"])
def test_a_share_of_all_images_is_not_exact(metric: str) -> None:
    """All of 20 images, of which no group differs from the others, where 0.9 is expected of many."""
    expected = Expected(metric, 0.9, 2000, "recorded")
    one = compare(expected, row(metric, 1.0, num_images=20))
    assert one["verdict"] == "within"
    assert one["tolerance"] == pytest.approx(ERRORS * (0.9 * 0.1 / 20 * 1.01) ** 0.5 + 1 / 20)
    assert compare(expected, row(metric, 0.5, num_images=20))["verdict"] == "outside"


def test_what_is_not_measured_says_why_and_what_lies_outside_is_named() -> None:
    one = compare(Expected("kid", 0.1, 100, "recorded"), row("kid", None))
    assert (one["verdict"], one["why"]) == ("not judged", "not measured: too dark")
    for num_images, why in ((19, "fewer than 20 images have no tolerance"), (20, "some images alone do not have it")):
        assert (
            compare(Expected("kid", 0.1, 100, "recorded"), row("kid", 0.2, num_images) | {"spread": {}})["why"] == why
        )
    far = compare(Expected("kid", 0.1, 100, "recorded"), row("kid", 0.2))
    assert outside([one, far]) == ["KID of cosine, 4 steps (small)"]
    found = tables([one, far])
    assert list(found) == ["cosine, 4 steps, protocol small"]
    (first, second) = found["cosine, 4 steps, protocol small"]
    assert first == ["KID", "not judged", "0.10000", "—", "—", "—"]
    assert second == ["KID", "outside", "0.10000", "0.20000", "+0.10000", "0.00000"]
    assert len(HEAD) == len(first)
    corrected = compare(Expected("fid", 8.0, 400, "recorded"), row("fid", 9.5, error=0.1, bias=2.0))
    assert tables([corrected])["cosine, 4 steps, protocol small"][0][2:5] == ["8.000 → 9.500", "9.500", "+0.000"]


def test_one_line_counts_the_verdicts_and_an_arrow_is_explained_where_there_is_one() -> None:
    equal = compare(Expected("accuracy", 0.3, 100, "recorded"), row("accuracy", 0.3))
    curved = compare(Expected("recall", 0.3, 400, "recorded"), row("recall", 0.3))
    far = compare(Expected("kid", 0.1, 100, "recorded"), row("kid", 0.2))
    assert verdict([equal]) == "1 figure within its tolerance."
    assert verdict([equal, equal, curved]) == "2 figures within their tolerance, 1 not judged at 100 images (recall)."
    assert verdict([equal, far]) == "1 figure within its tolerance, 1 outside."
    corrected = compare(Expected("fid", 8.0, 400, "recorded"), row("fid", 9.5, error=0.1, bias=2.0))
    for words in (footnote, derivation):
        assert "arrow" not in words([equal, curved])
        assert "arrow" in words([equal, corrected])
