"""The README.md of a model folder: a model card, with the measured results as metadata for the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import yaml

from adanat_cli.core.checkpoints.files import atomic_path
from adanat_cli.core.checkpoints.folder import CARD_FILE, ModelFolder, policy_component
from adanat_cli.core.config import DATA_PRESETS
from adanat_cli.core.errors import printable

_MARK = "<!-- written by adanat; remove this line to keep your own text -->"
_PAPER = "[AdaNAT](https://arxiv.org/abs/2409.00342)"
_RESULT_KEYS = ("metric", "value", "dataset")
_VARIED = (
    "reconstructed",
    "schedule",
    "num_steps",
    "policy",
    "table",
    "sampling_temperature",
    "temperature",
    "guidance",
)
"""Settings of a measurement that distinguish the rows of a table."""


@dataclass(frozen=True)
class CardDetails:
    """The parts of a card that do not follow from the folder.

    Attributes:
        repo: Hub id; "" for a local folder.
        license: license of the weights; "" takes it from their provenance, else "unknown".
        samples: name in the repository of the picture of samples; "" if there is none.
        policies: component of a policy -> names of the pictures of its values, and of its samples below the fixed
            schedule's.
        prompts: the samples' prompts, in order.
        absent: reason why there are no samples; "" if none is needed.
    """

    repo: str = ""
    license: str = ""
    samples: str = ""
    policies: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    prompts: Sequence[str] = ()
    absent: str = ""

    @property
    def pictures(self) -> list[str]:
        """Names of all pictures."""
        return [name for name in (self.samples, *chain.from_iterable(self.policies.values())) if name]


def write_card(folder: ModelFolder) -> bool:
    """Write README.md from the content of the folder.

    Returns:
        False if a handwritten README.md was kept instead.
    """
    if is_handwritten(folder.card()):
        return False
    with atomic_path(folder.path / CARD_FILE) as temporary:
        temporary.write_text(model_card(folder), encoding="utf-8", errors="backslashreplace")
    return True


def is_handwritten(card: str) -> bool:
    """Whether a card was written or edited by hand, so that it must be kept."""
    return bool(card) and _MARK not in card


def model_card(folder: ModelFolder, details: CardDetails | None = None) -> str:
    """Markdown of a card, with YAML front matter."""
    details = details or CardDetails()
    name = details.repo.partition("@")[0].rsplit("/", 1)[-1] or folder.title
    front = yaml.safe_dump(_metadata(folder, details, name), sort_keys=False, allow_unicode=True)
    sections = [f"---\n{front}---", _MARK, f"# {name}", _summary(folder)]
    if details.samples:
        sections.append(f"![Samples of the model]({details.samples})")
    if details.prompts:
        sections.append(f"Prompts of the samples: {'; '.join(details.prompts)}.")
    if details.absent:
        sections.append(f"Samples are not shown: {details.absent}")
    sections += [_use(folder, details), _components(folder)]
    sections += _policies(folder, details.policies)
    if folder.index.results:
        sections.append("## Results\n\n" + "\n\n".join(_results(folder.index.results)))
    sections += _training(folder)
    sections.append("## Limits\n\n" + "\n".join(f"- {line}" for line in _limits(folder, _license(folder, details))))
    text = "\n\n".join(section for section in sections if section)
    return "".join(f"{printable(line)}\n" for line in text.split("\n"))


def _metadata(folder: ModelFolder, details: CardDetails, name: str) -> dict[str, Any]:
    """Front matter in the Hub's format."""
    task, index = _task(folder), folder.index
    metadata: dict[str, Any] = {
        "library_name": "adanat",
        "license": _license(folder, details),
        "pipeline_tag": task,
        "tags": ["adanat", "image-generation", "non-autoregressive-transformer"],
    }
    if folder.policy_steps():
        metadata["tags"].append("learned-schedule")
    if datasets := _datasets(folder):
        metadata["datasets"] = datasets
    if bases := _bases(folder):
        metadata["base_model"] = bases
    if entries := _hub_results(index.results, task):
        metadata["model-index"] = [{"name": name, "results": entries}]
    return metadata


def _task(folder: ModelFolder) -> str:
    return "text-to-image" if _condition(folder) == "text" else "unconditional-image-generation"


def _condition(folder: ModelFolder) -> str:
    """What the NAT is conditioned on: "class" or "text"; "" if the model has none."""
    return str(folder.config("nat").get("condition", "")) if folder.has("nat") else ""


def _provenance(folder: ModelFolder) -> dict[str, Mapping[str, Any]]:
    """Component -> where it came from, if that is recorded."""
    index = folder.index
    return {name: index.provenance[name] for name in index.components if index.provenance.get(name)}


def _license(folder: ModelFolder, details: CardDetails) -> str:
    """The given license, else the one that all components with a recorded license share."""
    recorded = {str(part["license"]) for part in _provenance(folder).values() if "license" in part}
    return details.license or (recorded.pop() if len(recorded) == 1 else "unknown")


def _datasets(folder: ModelFolder) -> list[str]:
    """Hub ids of the data sets that the components were trained on; others are left out."""
    found: list[str] = []
    for part in _provenance(folder).values():
        settings = part.get("settings")
        data = part.get("data", settings.get("data", "") if isinstance(settings, dict) else "")
        source = str(data.get("source", "") if isinstance(data, dict) else data).split(" (")[0]
        source = str(DATA_PRESETS.get(source, {}).get("source", source)).partition("@")[0]
        if source.count("/") == 1 and source not in found:
            found.append(source)
    return found


def _bases(folder: ModelFolder) -> list[str]:
    """Hub ids of the models that components were taken or trained further from."""
    parts = _provenance(folder).values()
    names = [str(part["hub"]) for part in parts if "hub" in part]
    names += [name for part in parts if "/" in (name := str(_start(part).get("model", "")))]
    return list(dict.fromkeys(name.partition("@")[0] for name in names))


def _start(provenance: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model from whose weights a training started; empty for random weights."""
    start = provenance.get("from")
    return start if isinstance(start, Mapping) else {}


def _hub_results(results: Sequence[Mapping[str, Any]], task: str) -> list[dict[str, Any]]:
    """Measured results in the Hub's model-index format: one entry for each data set."""
    metrics: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if "metric" in result and result.get("value") is not None:
            metrics.setdefault(str(result.get("dataset", "unknown")), []).append(_hub_metric(result))
    return [
        {"task": {"type": task}, "dataset": {"type": dataset, "name": dataset}, "metrics": measured}
        for dataset, measured in metrics.items()
    ]


def _hub_metric(result: Mapping[str, Any]) -> dict[str, Any]:
    """One result, with the settings of the measurement as its arguments."""
    metric = str(result["metric"])
    arguments = {key: value for key, value in result.items() if key not in _RESULT_KEYS}
    shown = ", ".join(f"{key} {value}" for key, value in arguments.items() if isinstance(value, str | int))
    entry: dict[str, Any] = {"type": metric, "value": result["value"]}
    if arguments:
        entry |= {"name": f"{metric} ({shown})" if shown else metric, "args": arguments}
    return entry


def _summary(folder: ModelFolder) -> str:
    size, condition = folder.index.image_size, _condition(folder)
    if not condition and not folder.has("tokenizer"):
        return "Parts of a model, made with `adanat`; its tokenizer and its transformer are not among them."
    if not condition:
        return f"A tokenizer for images of {size} x {size} pixels, made with `adanat`."
    what = "prompts" if condition == "text" else f"{len(folder.labels()) or 'numbered'} classes"
    return (
        f"Images of {size} x {size} pixels from {what}: a non-autoregressive transformer fills in a grid of image "
        f"tokens in a few parallel steps ({_PAPER})."
    )


def _use(folder: ModelFolder, details: CardDetails) -> str:
    """Commands and Python that run as they are; "" for a model without a tokenizer."""
    model, where = details.repo or ".", "" if details.repo else ", from within this folder"
    head = f"## Use\n\nWith `adanat` installed{where}:\n\n```bash\n"
    condition = _condition(folder)
    if not folder.has("tokenizer"):
        return ""
    if not condition:
        return f"{head}adanat tokenize --dataset <images> --tokenizer {model} --output tokens\n```"
    steps = next(iter(folder.policy_steps()), 8)
    label = next(iter(folder.labels()), 0)
    asked = '--prompt "a lighthouse at dusk"' if condition == "text" else f"--class {label}"
    argument = 'prompts=["a lighthouse at dusk"]' if condition == "text" else f"labels=[{label}]"
    return (
        f"{head}adanat sample --model {model} {asked} --steps {steps}\n```\n\n"
        "```python\nfrom adanat_cli import Pipeline\n\n"
        f'pipeline = Pipeline.from_pretrained("{model}")\n'
        f'pipeline.sample({argument}, num_steps={steps}).images[0].save("image.png")\n```'
    )


def _components(folder: ModelFolder) -> str:
    index = folder.index
    origins = {part: _cell(_origin(index.provenance.get(part, {}))) for part in index.components}
    rows = [f"| {part} | {folder.header(part).num_parameters:,} | {origins[part]} |" for part in index.components]
    return "| component | parameters | from |\n|---|---|---|\n" + "\n".join(rows)


def _policies(folder: ModelFolder, pictures: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """A section for each policy: its kind, its distance in training, and its pictures."""
    for num_steps in folder.policy_steps():
        name = policy_component(num_steps)
        config, origin = folder.config(name), _provenance(folder).get(name, {})
        is_static = config.get("kind") == "static"
        kind = (
            "One table of the four values for all samples" if is_static else "It sets the four values of every sample"
        )
        base = (
            f"added to the {config.get('schedule')} schedule" if config.get("residual") else "without a base schedule"
        )
        text = f"## Policy for {num_steps} steps\n\n{kind}, {base}."
        if {"distance", "fixed_distance"} <= set(origin):
            text += (
                f" Fréchet distance to {origin.get('measured_on', 'real images')}, in training: "
                f"{_number(origin['distance'])}; fixed schedule {_number(origin['fixed_distance'])}."
            )
        if name in pictures:
            curves, samples = pictures[name]
            text += (
                f"\n\n![Its values over the steps, beside the fixed schedule's]({curves})\n\n"
                f"![The fixed schedule's samples above the policy's, from the same seeds]({samples})"
            )
        yield text


def _results(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table for each way of measuring, with a row for each schedule that was measured."""
    tables: dict[str, dict[str, dict[str, float]]] = {}
    for result in results:
        facts = {key: value for key, value in result.items() if key not in ("metric", "value")}
        what = _cell(", ".join(f"{key} {facts.pop(key)}" for key in _VARIED if key in facts))
        how = ", ".join(f"{key} {value}" for key, value in facts.items())
        tables.setdefault(how, {}).setdefault(what, {})[str(result.get("metric"))] = result.get("value", "")
    for how, rows in tables.items():
        metrics = list(dict.fromkeys(metric for row in rows.values() for metric in row))
        lines = [f"| | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
        lines += [
            f"| {what} | {' | '.join(_number(row.get(name, '')) for name in metrics)} |" for what, row in rows.items()
        ]
        yield "\n".join([f"Measured with {how}:", "", *lines] if how else lines)


def _number(value: Any) -> str:
    return "—" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _training(folder: ModelFolder) -> Iterator[str]:
    """What components were trained further from, and the provenance of each, folded."""
    provenance = _provenance(folder)
    if provenance:
        yield "## Training"
    for part, values in provenance.items():
        if start := _start(values):
            name = f"{part} of {start.get('model')}, weights {str(start.get('weights'))[:12]}"
            yield f"`{part}` was trained further from the {name}."
    for part, values in provenance.items():
        shown = json.dumps(values, indent=2, ensure_ascii=False)
        yield f"<details><summary><code>{part}</code></summary>\n\n```json\n{shown}\n```\n\n</details>"


def _limits(folder: ModelFolder, license_name: str) -> Iterator[str]:
    """What a user should know before relying on the model."""
    labels, condition = folder.labels(), _condition(folder)
    if condition == "class" and labels:
        known = folder.config("nat").get("num_classes", len(labels))
        numbering = f" of the {known} of its numbering" if known != len(labels) else ""
        yield f"It has seen {len(labels)} classes{numbering} and draws no others."
    if not folder.index.results and any("distance" in part for part in _provenance(folder).values()):
        yield "It has been measured in training only; `adanat evaluate --record` adds results."
    elif not folder.index.results:
        yield "No quality metric has been measured on it."
    elif any("protocol" in result for result in folder.index.results):
        yield "Results compare with results of the same protocol, data set and number of images only."
    short = [f"`{part}`" for part in folder.index.components if {"F16", "BF16"} & set(folder.header(part).dtypes)]
    if short:
        yield f"Stored in 16 bits: {', '.join(short)}."
    if license_name == "unknown":
        yield "The license of these weights is not known; ask their authors before you use them."
    yield "What it draws follows its training data, biases included, and is not filtered."


def _cell(text: str) -> str:
    """Text escaped for a cell of a table."""
    return printable(text).replace("|", r"\|")


def _origin(provenance: Mapping[str, Any]) -> str:
    """Where a component came from, in a few words."""
    if not provenance:
        return "not recorded"
    if "file" in provenance:
        repo = f" of `{provenance['hub']}`" if "hub" in provenance else ""
        return f"`{provenance['file']}`{repo}, sha256 {str(provenance.get('sha256', ''))[:12]}"
    return ", ".join(
        f"{key} {_number(value)}" for key, value in provenance.items() if not isinstance(value, dict | list)
    )
