"""What could values of each image's own bring? One schedule for all images, one for each class, one for each image.

    python examples/imagenet64/adaptivity.py [MODEL] [--schedule cosine] [--steps 4] [--candidates 16] [--images 640]

Draws the same images (classes, random numbers) with several candidates: a schedule, and others that differ from it as
those that a policy explores in training. The log-probability of an image's class under EfficientNet-Lite0 chooses the
best candidate for all, for each class, and for each image; that under EfficientNet-Lite1 judges the choice. The first
two choose by one half of the images and are judged by the other half. The third chooses with the image before its eyes,
which no policy can: it shows how much there is to gain if all were known.
"""

from __future__ import annotations

import argparse
import json
import sys

import torch
from torch import Tensor

from adanat_cli.commands.console import ConsoleReporter
from adanat_cli.core.efficientnet import EfficientNet, resized
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.generation.actions import action_from_raw, raw_from_values
from adanat_cli.core.generation.schedules import TableSchedule
from adanat_cli.core.rewards.recognition import RecognitionReward
from adanat_cli.jobs.resolve.models import resolve_model
from adanat_cli.jobs.resolve.schedules import choose_schedule, settle_schedule
from adanat_cli.jobs.runtime.devices import pick_device
from adanat_cli.jobs.sample.sampler import Sampler

_AT_ONCE = 64
_LEAST, _MOST = 160, 240
"""Sides in pixels between which Lite1 sees images."""


def candidates(schedule: TableSchedule, number: int, std: float, seed: int) -> list[TableSchedule]:
    """The schedule, and ``number`` - 1 whose pre-activations lie around its own."""
    raw = raw_from_values(schedule.table.clamp(min=1e-3))  # (T, 4)
    drawn = torch.randn(number - 1, *raw.shape, generator=torch.Generator().manual_seed(seed), dtype=raw.dtype)
    return [schedule] + [TableSchedule(action_from_raw(raw + std * one).values()) for one in drawn]


@torch.no_grad()
def scores(sampler: Sampler, tables: list[TableSchedule], num_images: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probabilities (K, n) under Lite0 and Lite1 for K candidates, and the images' classes (n,)."""
    conditions = sampler.conditions((), (), seed)
    least = 2 * len(conditions.turns.unique())
    require(
        len(tables) >= 2 and num_images >= least,
        f"--candidates is {len(tables)} and --images {num_images}; expected at least 2 and {least}, two of each class.",
    )
    labels = conditions.numbers(range(num_images))
    chooser, judge = RecognitionReward(sampler.device), EfficientNet("lite1", "the judge", "there is no other")
    judge.to(sampler.device).eval()
    both = torch.empty(2, len(tables), num_images)
    with ConsoleReporter().task("Drawing and judging", len(tables) * num_images, "images") as task:
        for number, table in enumerate(tables):
            for rows in torch.arange(num_images).split(_AT_ONCE):
                pixels = torch.from_numpy(sampler.images(table, conditions, seed, rows.tolist()))
                images, classes = pixels.permute(0, 3, 1, 2).float().div(255), labels[rows].to(sampler.device)
                both[0, number, rows] = chooser.score(images.to(sampler.device), classes).cpu()
                logits = judge(resized(images.to(sampler.device), _LEAST, _MOST).clamp(0, 1)).logits.float()
                both[1, number, rows] = logits.log_softmax(1).gather(1, classes[:, None])[:, 0].cpu()
                task.advance(len(rows))
    return both[0], both[1], labels


def judged(chosen_by: Tensor, judged_by: Tensor, labels: Tensor) -> dict[str, float]:
    """Mean score of each kind of choice by the other network; rows of the scores are candidates."""
    turn = torch.zeros_like(labels)
    for label in labels.unique():
        own = (labels == label).nonzero()[:, 0]
        turn[own] = torch.arange(len(own)) % 2
    picked = {name: torch.empty(len(labels), dtype=torch.int64) for name in ("for all", "for each class")}
    for half in (0, 1):
        known = turn == half
        picked["for all"][~known] = chosen_by[:, known].mean(1).argmax()
        for label in labels.unique():
            own = labels == label
            picked["for each class"][~known & own] = chosen_by[:, known & own].mean(1).argmax()
    picked["for each image, in hindsight"] = chosen_by.argmax(0)
    picked = {"the schedule itself": torch.zeros_like(labels)} | picked
    return {name: float(judged_by.gather(0, rows[None]).mean()) for name, rows in picked.items()}


def shares(scored: Tensor, labels: Tensor) -> dict[str, float]:
    """Shares of the variance of (K, n) scores: estimates for a class and candidates, each beyond chance."""
    classes = [scored[:, labels == label] for label in labels.unique()]
    num = min(own.shape[1] for own in classes)
    cells = torch.stack([own[:, :num] for own in classes], 1).double()  # (K, C, num)
    table, in_images = cells.mean(2), cells - cells.mean(0, keepdim=True)
    rest = (in_images - in_images.mean(2, keepdim=True)).square().sum()
    rest = rest / ((cells.shape[0] - 1) * cells.shape[1] * (num - 1))  # an image's own preference among candidates
    both = table - table.mean(0) - table.mean(1, keepdim=True) + table.mean()
    both_square = both.square().sum() / ((cells.shape[0] - 1) * (cells.shape[1] - 1))
    parts = {
        "candidate": table.mean(1).var() - both_square / cells.shape[1],
        "class and candidate": both_square - rest / num,
        "image and candidate": rest,
    }
    total = sum(part.clamp(min=0) for part in parts.values())
    return {name: float(part / total) for name, part in parts.items()}


def run(options: argparse.Namespace) -> dict[str, object]:
    """Draw, choose and judge."""
    sampler = Sampler(resolve_model(options.model), pick_device())
    choice, _ = settle_schedule(choose_schedule(options.schedule, options.steps), sampler.folder)
    schedule = sampler.schedule(choice)
    if not isinstance(schedule, TableSchedule):
        raise AdaNATError(
            f"--schedule is {options.schedule!r}; expected cosine or a table, whose values are the same for all."
        )
    tables = candidates(schedule, options.candidates, options.std, options.seed)
    chosen_by, judged_by, labels = scores(sampler, tables, options.images, options.seed)
    return {
        "log-probability": judged(chosen_by, judged_by, labels),
        "variance": {"lite0": shares(chosen_by, labels), "lite1": shares(judged_by, labels)},
        "correlation": float(
            torch.corrcoef(
                torch.stack([(chosen_by - chosen_by.mean(0)).flatten(), (judged_by - judged_by.mean(0)).flatten()])
            )[0, 1]
        ),
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="imagenet64")
    parser.add_argument("--schedule", default="cosine")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--std", type=float, default=0.4, help="spread of the candidates, before activations")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        print(json.dumps(run(options), indent=2))
    except AdaNATError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
