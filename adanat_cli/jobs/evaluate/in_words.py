"""How rows of an evaluation were measured, and what of them was not, in lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adanat_cli.jobs.evaluate.report import other_classes
from adanat_cli.jobs.evaluate.tables import Row, lines_of

_MOST_SKIPPED = 10


def how_measured(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what the figures of one run are of."""
    first = rows[0]
    yield protocol_line(first)
    yield from neighbors_line(first)
    if "classes" in first:
        yield f"Not of the same classes: {other_classes(first['classes'])}."
    yield from seeds_line(rows)
    if "held" in first:
        whole = "distances, accuracy, recognition and CLIP score"
        yield f"All but {whole}: of {first['held']:,} images."
    if any(row["metrics"].get("top1") is not None for row in rows):
        yield (
            "Recognised as their class: top-1 and top-5 of ImageNet's 1,000; among: of the classes that the images "
            "are of; among/real: that share, divided by real images' own"
        )
    yield from _clip_line(first["settings"])


def not_measured(rows: Sequence[Row]) -> Iterator[str]:
    """Yield unreadable images, and each reason for which figures are absent with their names."""
    yield from (f"Skipped: {name} ({why})" for name, why in list(rows[0].get("skipped", {}).items())[:_MOST_SKIPPED])
    reasons: dict[str, list[str]] = {}
    for name, why in dict.fromkeys(pair for row in rows for pair in row["absent"].items()):
        if not name.endswith("_std"):  # a deviation goes with its mean
            reasons.setdefault(why, []).append(name)
    yield from (f"Not measured: {why}: {', '.join(names)}" for why, names in reasons.items())


def protocol_line(row: Row) -> str:
    """Network and reference of a row."""
    settings, about = row["settings"], row["reference"]
    return (
        f"Protocol {settings['protocol']}: {settings['extractor']}, weights {settings['weights_hash'][:12]}; reference "
        f"{about['file']}, {settings['reference'][:12]}, {_classes(about)}"
    )


def neighbors_line(row: Row) -> Iterator[str]:
    """The k of precision and its like; older versions did not record it."""
    if neighbors := row.get("neighbors"):
        yield f"Nearest neighbours: {', '.join(f'{k} for {name}' for name, k in neighbors.items())}"


def seeds_line(rows: Sequence[Row]) -> Iterator[str]:
    """Which seeds the means are over, where there are several."""
    seeds = lines_of(rows)[0].seeds
    if len(seeds) > 1:
        yield f"Mean ± standard deviation over seeds {seeds[0]} to {seeds[-1]}."


def _classes(about: Mapping[str, Any]) -> str:
    """The number of classes of a reference; older versions did not record it."""
    number = about.get("num_classes")
    return "classes not recorded" if number is None else f"{number:,} classes"


def _clip_line(settings: Mapping[str, Any]) -> Iterator[str]:
    """What the CLIP score is, where there is one."""
    if "clip" in settings:
        yield (
            f"CLIP score: 100 x mean cosine similarity of image and prompt by {settings['clip']}, weights "
            f"{settings['clip_hash'][:12]}; {settings['num_prompts']:,} prompts, {settings['prompts_sha256'][:12]}"
        )
