"""Facts about a model folder, from its configurations and the headers of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adanat_cli.core.checkpoints.folder import TEXT, ModelFolder, policy_component
from adanat_cli.core.checkpoints.token_identity import tokens_fingerprint
from adanat_cli.core.config import BENCHMARKS, FeatureConfig, tokenizer_config
from adanat_cli.core.errors import require
from adanat_cli.jobs.resolve.models import model_names, nat_config, policy_config, read_config, resolve_model
from adanat_cli.jobs.resolve.registry import KnownModel, known_models


def describe(model: str) -> dict[str, Any]:
    """Return the components, classes, policies and results of a model as JSON values; no weights are fetched or loaded.

    Args:
        model: folder, name or Hub id, as in ``resolve_model``; "" also lists the known names.

    Raises:
        AdaNATError: if there is no such model, or a file of it is missing or damaged.
    """
    known = known_models().get(model)
    if known and not known.folder.is_dir() and not Path(model).is_dir():
        return _describe_known(known)
    require(
        model not in BENCHMARKS or known is not None or model in model_names() or Path(model).is_dir(),
        f"{model} is a benchmark, and there is no model of this name; try `adanat info --dataset {model}`.",
    )
    folder = resolve_model(model)
    index = folder.index
    components = {name: _component(folder, name) for name in index.components}
    return {
        "model": folder.name,
        "image_size": index.image_size,
        "components": components,
        "policies": folder.policy_steps(),
        "condition": str(components.get("nat", {}).get("config", {}).get("condition", "")),
        "classes": {str(label): name for label, name in folder.labels().items()},
        "matches": _matches(folder),
        "provenance": dict(index.provenance),
        "results": [dict(result) for result in index.results],
        **({} if model else {"known": _known()}),
    }


def _describe_known(known: KnownModel) -> dict[str, Any]:
    """The parts of a published model that is not on this machine yet."""
    parts = [
        {"component": source.component, "file": source.file, "from": source.repo or source.page}
        | {"license": source.license}
        for source in known.sources
    ]
    return {"model": known.name, "about": known.about, "parts": parts, "fetch": f"adanat pull {known.name}"}


def _known() -> dict[str, str]:
    """Names for ``--model``, each with a description."""
    embedded = dict.fromkeys(model_names(), "comes with adanat")
    return embedded | {
        name: f"{known.about}; {'pulled' if known.folder.is_dir() else f'adanat pull {name}'}"
        for name, known in known_models().items()
    }


def _component(folder: ModelFolder, name: str) -> dict[str, Any]:
    header, config = folder.header(name), folder.config(name)
    return {
        "parameters": header.num_parameters,
        "bytes": header.num_bytes,
        "formats": list(header.dtypes),
        "fingerprint": folder.fingerprint(name),
        "summary": _summary(folder, name),
        "config": config,
    }


def _summary(folder: ModelFolder, name: str) -> str:
    """A component's main sizes in words; raises for a configuration that does not fit its weights."""
    if name == "tokenizer":
        tokenizer = read_config(folder, name, tokenizer_config)
        grid = " x ".join(map(str, tokenizer.grid))
        of = tokens_fingerprint(folder, check=False)
        further = "" if of == folder.fingerprint(name) else f", tokens of {of[:12]} with a decoder trained further"
        codes = f"{tokenizer.codebook_size} codes"
        return f"{tokenizer.kind}, {codes}, {grid} grid, downsampling {tokenizer.downsampling}{further}"
    if name == "nat":
        nat = nat_config(folder)
        condition = f"{nat.num_classes} classes" if nat.condition == "class" else f"text of width {nat.text_width}"
        condition += f" by {nat.text_encoder}" if nat.text_encoder else ""
        grid = " x ".join(map(str, nat.grid))
        length = _so_far(folder.index.provenance.get(name, {}))
        return f"width {nat.width}, depth {nat.depth}, {nat.num_heads} heads, {grid} grid, {condition}{length}"
    if name == TEXT:
        values = folder.config(name)
        return f"CLIP text tower of width {values.get('hidden_size')}, {values.get('max_position_embeddings')} tokens"
    if name == "features":
        features = read_config(folder, name, FeatureConfig.from_dict)
        return f"{features.feature_width} features of {features.image_size} pixels, {features.num_classes} classes"
    num_steps = next((steps for steps in folder.policy_steps() if name == policy_component(steps)), None)
    if num_steps is not None:
        policy = policy_config(folder, num_steps)
        if policy.kind == "table":
            return f"a table of {policy.num_steps} steps, the same for all samples"
        base = f"added to the {policy.schedule} schedule" if policy.residual else "without a base schedule"
        return f"{policy.kind}, {policy.num_steps} steps, {base}, smoothing {policy.smoothing:g}"
    return ""


def _so_far(origin: Mapping[str, Any]) -> str:
    """How far a training is that has not ended, or was not taken to its end; "" for others."""
    update, training = origin.get("update"), origin.get("training")
    length = training.get("steps") if isinstance(training, Mapping) else None
    if not (isinstance(update, int) and isinstance(length, int) and update < length):
        return ""
    return f", after {update:,} of {length:,} updates"


def _matches(folder: ModelFolder) -> dict[str, str]:
    """For each network that reads another: whether it was trained with the one in this folder."""
    pairs = [("nat", "tokenizer", "tokenizer_fingerprint")]
    pairs += [(policy_component(steps), "nat", "nat_fingerprint") for steps in folder.policy_steps()]
    found = {}
    for reader, read, key in pairs:
        if folder.has(reader) and folder.has(read):
            recorded = folder.config(reader).get(key, "")
            actual = tokens_fingerprint(folder, check=False) if read == "tokenizer" else folder.fingerprint(read)
            same = "yes" if recorded == actual else "no"
            found[f"{reader} and {read}"] = same if recorded else "not recorded"
    return found
