"""The results that a model records, as tables: one for each way of measuring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adanat_cli.commands.tables import drawn

_LINE = ("schedule", "num_steps", "reconstructed", "sampling_temperature", "temperature", "guidance", "only_classes")
"""What distinguishes the lines of a table, in words."""
_HIDDEN = ("nat", "policy", "table", "reference", "tokenizer", "labels")
"""Hashes: they are in the JSON, and in the card."""
_REAL, _RECONSTRUCTION = "real_", "reconstruction_"


def result_lines(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield tables of results below what they are of; a result that is none of this toolkit's stands alone."""
    from adanat_cli.jobs.evaluate.tables import COLUMNS

    tables: dict[str, dict[str, dict[str, str]]] = {}
    for result in results:
        metric, value = str(result.get("metric")), result.get("value")
        name = metric.removeprefix(_RECONSTRUCTION).removeprefix(_REAL)
        if name not in COLUMNS or not isinstance(value, int | float):
            yield f"Result      {', '.join(f'{key} {part}' for key, part in result.items())}"
            continue
        line = "real images" if metric.startswith(_REAL) else _name(result)
        lines = tables.setdefault(_measured(result), {})
        lines.setdefault(line, {})[name] = f"{value:{COLUMNS[name][1]}}"
    for about, lines in tables.items():
        names = [name for name in COLUMNS if any(name in cells for cells in lines.values())]
        ordered = sorted(lines.items(), key=lambda line: line[0] == "real images")
        yield f"Results     {about}"
        body = [[line, *(cells.get(name, "—") for name in names)] for line, cells in ordered]
        yield from drawn(["measured", *(COLUMNS[name][0] for name in names)], body)


def _name(result: Mapping[str, Any]) -> str:
    """A line of a table."""
    words = [
        f"{result[key]} steps"
        if key == "num_steps"
        else f"{result[key]}"
        if key == "schedule"
        else f"{key} {result[key]}"
        for key in _LINE
        if key in result
    ]
    return ", ".join(words).replace("_", " ") or "images"


def _measured(result: Mapping[str, Any]) -> str:
    """What the lines of a table have in common."""
    shown = {"protocol", "extractor", "num_images", "dataset"}
    words = [f"protocol {result['protocol']}"] if "protocol" in result else []
    words += [f"{result['num_images']:,} images"] if isinstance(result.get("num_images"), int) else []
    words += [f"against {result['dataset']}"] if "dataset" in result else []
    others = (key for key in result if key not in {"metric", "value", *shown, *_LINE, *_HIDDEN})
    return ", ".join([*words, *(f"{key.replace('_', ' ')} {result[key]}" for key in others)])
