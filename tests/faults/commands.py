"""The long commands on a toy, each of a second or two, and what is compared of what they leave."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adanat_cli.core.checkpoints.folder import ModelFolder
from tests.nat_toy import make_tokens
from tests.policy_toy import make_policy_toy

_SPEED = {"images_per_second", "seconds"}
_PACE = re.compile(rb"images_per_second&quot;: [^,\n]*")
_POLICY = (
    "train-policy -d images -m model -o {out} --steps 3 --updates 3 --trajectories 12 --batch-size 6 --eval-images 12 "
    "--precision fp32 --workers 0 --device cpu"
)
_LEARNED = f"{_POLICY} --hidden-width 16 --save-every 1 --eval-every 2 --show-every 3"
_ADVERSARIAL = "--discriminator pyramid --discriminator-batch 6 --discriminator-updates 1 --config short.yaml"


@dataclass(frozen=True)
class Command:
    """A command line, in words that stand for the toy's folder.

    Attributes:
        line: what follows ``adanat``; {out} is the output.
        output: name of the output.
        in_parts: whether it measures images in parts, which are as small as the toy then.
    """

    line: str
    output: str = "run"
    in_parts: bool = False


# Every update is saved, or one at which a signal came would stay beside the last in the place of another.
COMMANDS = {
    "train-tokenizer": Command(
        "train-tokenizer -d images -o {out} --image-size 16 --codebook-size 16 --updates 6 --batch-size 4 "
        "--adversarial-start 1 --save-every 1 --precision fp32 --workers 2 --device cpu"
    ),
    "tokenize": Command("tokenize -d images --tokenizer model -o {out} --shard-size 4 --workers 2 --device cpu"),
    "pretrain-nat": Command(
        "pretrain-nat -d toy --tokens tokens -m model -o {out} --size nano --updates 8 --batch-size 8 --save-every 1 "
        "--log-every 2 --sample-every 4 --precision fp32 --device cpu"
    ),
    "train-policy, adaptive": Command(f"{_LEARNED} --kind adaptive {_ADVERSARIAL}"),
    "train-policy, static": Command(f"{_LEARNED} --kind static --reward fid"),
    "train-policy, search": Command(f"{_POLICY} --kind search"),
    "train-policy, tuned": Command(f"{_POLICY} --kind tuned"),
    "stats": Command("stats -d images --image-size 16 -m model -o {out} --workers 2 --device cpu", "x.npz", True),
    "evaluate": Command(
        "evaluate --ref stats.npz -m model -o {out} --steps 2 --schedule cosine -n 22 --batch-size 4 --device cpu",
        in_parts=True,
    ),
    "sample": Command("sample -m model -o {out} --class 1 -n 8 --steps 2 --batch-size 2 --device cpu"),
    "edit": Command("edit images/one -m model -o {out} --box 2,2,9,9 --steps 2 --batch-size 2 --device cpu"),
}


def make_toy(folder: Path, run: Callable[[Command, str], Any]) -> Path:
    """Everything that the commands read: ``model``, ``images``, ``tokens``, ``stats.npz`` and ``short.yaml``.

    Args:
        folder: where they are made.
        run: runs a command to its end; is told the output.
    """
    make_policy_toy(folder)
    (folder / "short.yaml").write_text("discriminator:\n  warmup_updates: 2\n")
    make_tokens(folder / "tokens", ModelFolder(folder / "model").fingerprint("tokenizer"))
    run(COMMANDS["stats"], "stats.npz")
    return folder


def small_parts() -> None:
    """Save features of images in parts of five, within the process that measures."""
    from adanat_cli.core.config.requests import EvaluateRequest, StatsRequest

    for asked in (EvaluateRequest, StatsRequest):
        start = asked.__init__
        asked.__init__ = (  # type: ignore[method-assign]
            lambda self, *given, start=start, **named: start(self, *given, **{**named, "part_size": 5})
        )


def files(output: Path) -> dict[str, bytes]:
    """Every file of an output, hidden ones too, without how fast it went; TensorBoard's log holds times."""
    if output.is_file():
        return {"": output.read_bytes()}
    found = {}
    for file in sorted(path for path in output.rglob("*") if path.is_file() and path.parent.name != "tensorboard"):
        content = file.read_bytes()
        if file.name in ("metrics.jsonl", "evaluation.json"):
            content = json.dumps([_without_speed(json.loads(line)) for line in _values(file)]).encode()
        if file.name == "report.html":
            content = _PACE.sub(b"", content)
        found[str(file.relative_to(output))] = content
    return found


def assert_same(output: Path, unbroken: Path) -> None:
    """Compare two outputs file by file."""
    one, two = files(output), files(unbroken)
    assert one.keys() == two.keys(), f"files of one alone: {sorted(one.keys() ^ two.keys())}"
    different = [name for name in one if one[name] != two[name]]
    shown = [(one[name][:2000], two[name][:2000]) for name in different if name.endswith((".json", ".jsonl"))]
    assert not different, f"different: {different} {shown}"


def _values(file: Path) -> list[str]:
    text = file.read_text()
    return text.splitlines() if file.suffix == ".jsonl" else [text]


def _without_speed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_speed(child) for key, child in value.items() if key not in _SPEED}
    return [_without_speed(child) for child in value] if isinstance(value, list) else value
