"""The results of an evaluation: evaluation.json, a plot, and records in the model folder."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adanat_cli.core.checkpoints.card import write_card
from adanat_cli.core.checkpoints.files import write_json
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config.schema import build, conform
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.metrics.recognition import Recognition
from adanat_cli.core.reading import read_json
from adanat_cli.jobs.evaluate.tables import COLUMNS, Row, Spread, by_seed, compute_unit, lines_of
from adanat_cli.jobs.sample.pictures import plot_text, save_figure

_FORMAT_VERSION = 1
_FEW = 10
"""The most class ids that a recorded result lists."""


@dataclass(frozen=True)
class _About:
    """What a row says about its reference; rows of earlier versions say less."""

    file: str
    source: str
    num_images: int | None = None
    num_classes: int | None = None
    classes: str | None = None
    recognition: Recognition | None = None


@dataclass(frozen=True)
class _Row:
    """The types of those parts of a row that are read from a file again."""

    name: str
    settings: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    reference: _About
    absent: Mapping[str, str]
    cost: Mapping[str, float | None]
    classes: Mapping[str, int] = field(default_factory=dict)
    neighbors: Mapping[str, int] = field(default_factory=dict)


class Results:
    """``evaluation.json`` of a folder: one row per settings that were measured."""

    def __init__(self, folder: Path) -> None:
        """Read the rows that are there.

        Raises:
            AdaNATError: if the file is damaged or not a result of this toolkit.
        """
        self.path = folder / "evaluation.json"
        self._rows: list[Row] = []
        if self.path.exists():
            values = read_json(self.path)
            known = isinstance(values, dict) and values.get("format_version") == _FORMAT_VERSION
            require(known, f"{self.path} is not a result of this toolkit; choose another --output.")
            try:
                for row in conform(values.get("results"), tuple[dict[str, Any], ...], "results"):
                    build(_Row, {key: part for key, part in row.items() if key in _Row.__dataclass_fields__}, "a row")
                    self._rows.append(row)
            except AdaNATError as error:
                raise AdaNATError(f"{self.path} is damaged ({error}); choose another --output.") from error

    def find(self, settings: Mapping[str, Any], spread: Collection[str] = ()) -> Row | None:
        """The row that was measured with these settings, if any; with the spread of these metrics where it has them."""
        wanted = json.loads(json.dumps(settings))
        rows = (row for row in self._rows if row["settings"] == wanted)
        return next((row for row in rows if not _lacking(row, spread)), None)

    def add(self, row: Row) -> None:
        """Append a row, in place of an older one with its settings, and write the file."""
        added = json.loads(json.dumps(row))
        self._rows = [*(one for one in self._rows if one["settings"] != added["settings"]), added]
        write_json(self.path, {"format_version": _FORMAT_VERSION, "results": self._rows})


def _lacking(row: Row, spread: Collection[str]) -> bool:
    """Whether a row lacks the spread of a metric that it has."""
    known = row.get("spread", {})
    return any(row["metrics"].get(name) is not None and name not in known for name in spread)


def other_classes(counts: Mapping[str, int]) -> str:
    """What ``compare_classes`` found, in words."""
    return (
        f"the reference is of {counts['reference']:,} classes and the images are of {counts['images']:,}, with "
        f"{counts['shared']:,} in common"
    )


def draw_distances(path: Path, rows: Sequence[Row], title: str) -> None:
    """Draw the distance against steps and against compute, one line per schedule.

    Where there are several seeds, bars reach one standard deviation up and down.

    Args:
        path: PNG file.
        rows: two or more, of schedules.
        title: above the plots.
    """
    from matplotlib.figure import Figure  # a bare Figure leaves pyplot's global state alone

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    by_steps, by_compute = figure.subplots(1, 2, sharey=True)
    unit, scale = compute_unit(row["cost"]["tera_flops_per_image"] for row in rows)
    for name in dict.fromkeys(row["name"] for row in rows):
        groups = by_seed([row for row in rows if row["name"] == name])
        groups.sort(key=lambda group: group[0]["settings"]["num_steps"])
        lines = [lines_of(group)[0] for group in groups]
        distances = [line.metrics.get("fid", Spread(math.nan)) for line in lines]
        means, bars = [one.mean for one in distances], [one.std or 0 for one in distances]
        style: dict[str, Any] = {"fmt": "o-", "label": plot_text(name), "capsize": 3 if any(bars) else 0}
        by_steps.errorbar([group[0]["settings"]["num_steps"] for group in groups], means, bars, **style)
        by_compute.errorbar([scale * (line.tera_flops_per_image or math.nan) for line in lines], means, bars, **style)
    by_steps.set_xlabel("steps")
    by_steps.set_xticks(sorted({row["settings"]["num_steps"] for row in rows}))
    by_compute.set_xlabel(f"{unit} per image")
    by_steps.set_ylabel("Fréchet distance")
    by_steps.legend(fontsize=8)
    figure.suptitle(plot_text(title), fontsize=10)
    save_figure(path, figure, dpi=110)


def record(folder: ModelFolder, rows: Sequence[Row]) -> bool:
    """Record metrics in the index and the card of a model; repeating a measurement replaces its older numbers.

    Returns:
        False where the model's README.md was not written by this toolkit and is left unchanged.
    """
    results = []
    for row in rows:
        facts, settings = _facts(row), row["settings"]
        kind = "" if "schedule" in settings else "reconstruction_"
        for name in COLUMNS:
            if (value := row["metrics"].get(name)) is not None:
                results.append({"metric": f"{kind}{name}", "value": value, **facts})
                if name in (real := row["reference"].get("recognition", {})):
                    results.append({"metric": f"real_{name}", "value": real[name], **facts})
                if name == "clip_score":
                    results[-1] |= {"clip": settings["clip"], "clip_hash": settings["clip_hash"][:12]}
    folder.put_results(results)
    return write_card(folder)


def _facts(row: Row) -> dict[str, Any]:
    """What a recorded result says beside its value; hashes are shortened."""
    settings = row["settings"]
    facts = {
        "dataset": row["reference"]["source"] or row["reference"]["file"],
        "protocol": settings["protocol"],
        "extractor": settings["extractor"],
        "num_images": settings["num_images"],
        **(_of_schedule(row["name"], settings) if "schedule" in settings else _of_reconstructions(settings)),
    }
    if "classes" in row:
        facts["classes"] = other_classes(row["classes"])
    if "prompts_sha256" in settings:
        facts |= {"num_prompts": settings["num_prompts"], "prompts": settings["prompts_sha256"][:12]}
    return facts


def _of_schedule(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """How the images were generated."""
    return {
        "schedule": name,
        "num_steps": settings["num_steps"],
        "seed": settings["seed"],
        "reference": settings["reference"][:12],
        "nat": settings["nat"][:12],
        **_choices(settings),
    }


def _of_reconstructions(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of which images the reconstructions are; the checksum of the labels distinguishes choices of classes."""
    labels = {"labels": f"{settings['labels_crc32']:08x}"} if "labels_crc32" in settings else {}
    return {
        "reconstructed": f"{settings['source']} ({settings['split']})",
        "image_size": settings["image_size"],
        "reference": settings["reference"][:12],
        "tokenizer": settings["tokenizer"][:12],
        **labels,
    }


def _choices(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What was chosen for the images beyond schedule and seed, in a few words each; defaults are left out."""
    classes, precision = settings.get("classes", "all"), settings.get("precision", "float32")
    table = hashlib.sha256(json.dumps(settings["table"]).encode()).hexdigest() if "table" in settings else None
    facts = {
        "policy": settings.get("policy", "")[:12] or None,
        "table": table[:12] if table else None,
        "sampling_temperature": settings.get("sampling_temperature"),
        "temperature": settings.get("temperature"),
        "guidance": settings.get("guidance"),
        "only_classes": None if classes == "all" else _few(sorted(set(classes))),
        "number_format": None if precision == "float32" else precision,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _few(ids: Sequence[int]) -> str:
    """Ids in a line; of many, their number and a hash of them."""
    line = " ".join(map(str, ids))
    return line if len(ids) <= _FEW else f"{len(ids)} of them, {hashlib.sha256(line.encode()).hexdigest()[:12]}"
