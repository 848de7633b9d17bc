"""The README.md of a model folder: a model card with the measured results as Hub metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from adanat_cli.core.checkpoints.files import atomic_path
from adanat_cli.core.checkpoints.folder import ModelFolder

_MARK = "<!-- written by adanat; remove this line to keep your own text -->"


def write_card(folder: ModelFolder) -> bool:
    """Write README.md from what the folder holds.

    Returns:
        False where a README.md is kept because somebody has written it.
    """
    file = folder.path / "README.md"
    if file.exists() and _MARK not in file.read_text(encoding="utf-8", errors="replace"):
        return False
    with atomic_path(file) as temporary:
        temporary.write_text(model_card(folder), encoding="utf-8")
    return True


def model_card(folder: ModelFolder) -> str:
    """Return the card as Markdown with YAML front matter."""
    index, name = folder.index, folder.path.resolve().name
    metadata: dict[str, Any] = {
        "library_name": "adanat",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["adanat", "image-generation", "non-autoregressive-transformer"],
    }
    if "nat" in index.components and folder.config("nat").get("condition") == "text":
        metadata["pipeline_tag"] = "text-to-image"
    if entries := [_hub_result(result) for result in index.results if {"metric", "value"} <= set(result)]:
        metadata["model-index"] = [{"name": name, "results": entries}]
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    rows = [
        f"| {part} | {folder.header(part).num_parameters:,} | {_origin(index.provenance.get(part, {}))} |"
        for part in index.components
    ]
    results = [f"- {', '.join(f'{key} {value}' for key, value in result.items())}" for result in index.results]
    lines = [
        f"---\n{front}---",
        _MARK,
        f"# {name}",
        f"Images of {index.image_size} x {index.image_size} pixels. Sample with `adanat sample --model <this folder>`.",
        "| component | parameters | from |\n|---|---|---|\n" + "\n".join(rows),
    ]
    if results:
        lines.append("## Results\n\n" + "\n".join(results))
    return "\n\n".join(lines) + "\n"


def _hub_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """One measured result in the Hub's model-index form."""
    dataset = str(result.get("dataset", "unknown"))
    return {
        "task": {"type": "unconditional-image-generation"},
        "dataset": {"type": dataset, "name": dataset},
        "metrics": [{"type": str(result["metric"]), "value": result["value"]}],
    }


def _origin(provenance: Any) -> str:
    """Where a component came from, in a few words."""
    if not isinstance(provenance, dict) or not provenance:
        return "not recorded"
    if "file" in provenance:
        return f"`{provenance['file']}`, sha256 {str(provenance.get('sha256', ''))[:12]}"
    return ", ".join(f"{key} {value}" for key, value in provenance.items() if not isinstance(value, dict | list))
