"""The results of an evaluation: evaluation.json, a table, a plot, and records in the model folder."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
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
from adanat_cli.jobs.sample.pictures import plot_text, save_figure

_FORMAT_VERSION = 1
_WIDE = 1e6
"""Numbers from here on are written with an exponent."""
_FEW = 10
"""The most class ids that a recorded result lists."""
_COLUMNS = {
    "fid": ("FID", ".3f"),
    "sfid": ("sFID", ".3f"),
    "inception_score": ("IS", ".2f"),
    "precision": ("precision", ".3f"),
    "recall": ("recall", ".3f"),
    "density": ("density", ".3f"),
    "coverage": ("coverage", ".3f"),
    "kid": ("KID", ".5f"),
    "accuracy": ("accuracy", ".3f"),
    "top1": ("top-1", ".3f"),
    "top5": ("top-5", ".3f"),
    "among": ("among", ".3f"),
    "among_of_real": ("among/real", ".3f"),
    "clip_score": ("CLIP score", ".2f"),
    "psnr": ("PSNR", ".2f"),
}
Row = dict[str, Any]
"""One measurement: ``settings`` that decide it, ``metrics``, reasons of ``absent`` ones, ``reference`` and ``cost``."""


@dataclass(frozen=True)
class _About:
    """What a row says about its reference; rows of earlier versions say less."""

    file: str
    source: str
    num_images: int | None = None
    num_classes: int | None = None
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

    def find(self, settings: Mapping[str, Any]) -> Row | None:
        """The row that was measured with these settings, if any."""
        wanted = json.loads(json.dumps(settings))
        return next((row for row in self._rows if row["settings"] == wanted), None)

    def add(self, row: Row) -> None:
        """Append a row and write the file."""
        self._rows.append(json.loads(json.dumps(row)))
        write_json(self.path, {"format_version": _FORMAT_VERSION, "results": self._rows})


def name_of(row: Row) -> str:
    """What was measured: the schedule of a model with its number of steps, or the images."""
    settings = row["settings"]
    return str(row["name"] if "schedule" not in settings else f"{row['name']}, {settings['num_steps']} steps")


def other_classes(counts: Mapping[str, int]) -> str:
    """What ``compare_classes`` found, in words."""
    return (
        f"the reference is of {counts['reference']:,} classes and the images are of {counts['images']:,}, with "
        f"{counts['shared']:,} in common"
    )


def markdown(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a table of the rows, to be pasted into a model card."""
    head, body = cells(rows)
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(line)} |" for line in body)


def cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return column heads and cells; a metric that no row has gets no column."""
    names = [name for name in _COLUMNS if any(row["metrics"].get(name) is not None for row in rows)]
    generated = any("schedule" in row["settings"] for row in rows)
    head = ["measured", *(_COLUMNS[name][0] for name in names), "images", *(["TFLOPs/image"] if generated else [])]
    body = []
    for row in rows:
        numbers = [_number(row["metrics"].get(name), _COLUMNS[name][1]) for name in names]
        compute = [_number(row["cost"].get("tera_flops_per_image"), ".4g")] if generated else []
        body.append([name_of(row), *numbers, f"{row['settings']['num_images']:,}", *compute])
    body += _real_images(rows, names, [_number(None, "")] if generated else [])
    return head, body


def _real_images(rows: Sequence[Row], names: Sequence[str], compute: list[str]) -> list[list[str]]:
    """The line of the reference's own images, if it records how many of them are recognised."""
    about = rows[0]["reference"]  # one run has one reference
    real = about.get("recognition")
    if real is None or "top1" not in names:
        return []
    numbers = [_number(real.get(name), _COLUMNS[name][1]) for name in names]
    num_images = about.get("num_images")
    return [["real images", *numbers, "—" if num_images is None else f"{num_images:,}", *compute]]


def _number(value: float | None, form: str) -> str:
    if value is None:
        return "—"
    return f"{value:{form}}" if abs(value) < _WIDE else f"{value:.4g}"


def draw_distances(path: Path, rows: Sequence[Row], title: str) -> None:
    """Draw the distance against steps and against compute, one line per schedule.

    Args:
        path: PNG file.
        rows: two or more, of schedules.
        title: above the plots.
    """
    from matplotlib.figure import Figure  # a bare Figure leaves pyplot's global state alone

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    by_steps, by_compute = figure.subplots(1, 2, sharey=True)
    for name in dict.fromkeys(row["name"] for row in rows):
        line = sorted((row for row in rows if row["name"] == name), key=lambda row: row["settings"]["num_steps"])
        distances = [math.nan if row["metrics"]["fid"] is None else row["metrics"]["fid"] for row in line]
        by_steps.plot([row["settings"]["num_steps"] for row in line], distances, "o-", label=plot_text(name))
        by_compute.plot([row["cost"]["tera_flops_per_image"] for row in line], distances, "o-", label=plot_text(name))
    by_steps.set_xlabel("steps")
    by_steps.set_xticks(sorted({row["settings"]["num_steps"] for row in rows}))
    by_compute.set_xlabel("TFLOPs per image")
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
        for name in _COLUMNS:
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
