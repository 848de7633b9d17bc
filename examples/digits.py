"""The paper in miniature: every way of choosing a schedule, on scikit-learn's digits.

    python examples/digits.py [FOLDER] [--seeds 1] [--steps 4]

Pixels are tokens (8 x 8 of 17 grey levels). A small NAT is trained on 1,438 digits; then, for a few steps of
generation, the fixed schedule is compared with its best over a small grid, a searched table, a static policy and
adaptive policies with the adversarial and the FID reward. All are measured on held-out digits, with other random
numbers
than they were made with, in the features of a small classifier that is not the discriminator. It can be stopped and
started again. One seed takes about a quarter of an hour on two CPU cores; ``--quick`` is the short form that the tests
run.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from accelerate import Accelerator
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from adanat_cli.commands.console import reporter
from adanat_cli.core.checkpoints.files import write_json
from adanat_cli.core.config import (
    RECIPES,
    TRAINING_PRESETS,
    DiscriminatorConfig,
    NATTrainingConfig,
    PixelConfig,
    PolicyTrainingConfig,
    PPOConfig,
    TokenizerTrainingConfig,
    data_config,
)
from adanat_cli.core.generation.schedules import CosineSchedule, Schedule
from adanat_cli.core.metrics.manifold import manifold_scores
from adanat_cli.core.policy.schedule import PolicySchedule
from adanat_cli.core.runs.feature_trainer import features_of_images
from adanat_cli.core.runs.models import load_policy, resolve_model
from adanat_cli.core.runs.nat_setup import PretrainNATRequest
from adanat_cli.core.runs.policy_evaluation import Evaluator
from adanat_cli.core.runs.policy_pictures import draw_policy
from adanat_cli.core.runs.policy_setup import Setup, TrainPolicyRequest, prepare
from adanat_cli.core.runs.pretrain_nat import pretrain_nat
from adanat_cli.core.runs.tokenize import TokenizeOptions, TokenizeRequest, run_tokenize
from adanat_cli.core.runs.train_policy import train_policy
from adanat_cli.core.runs.train_tokenizer import TrainTokenizerRequest, train_tokenizer

WAYS: dict[str, dict[str, Any]] = {
    "tuned": {"kind": "tuned"},
    "searched": {"kind": "search"},
    "static, adversarial": {"kind": "static"},
    "adaptive, adversarial": {"kind": "adaptive"},
    "adaptive, FID": {"kind": "adaptive", "reward": "fid"},
}
EVALUATION_SEED = 10_000


def make_model(folder: Path, nat_updates: int) -> Path:
    """Train the NAT on pixels; returns its model folder."""
    data = data_config("digits", image_size=8)
    tokenizer = PixelConfig(image_size=8, codebook_size=17)
    train_tokenizer(TrainTokenizerRequest(data, tokenizer, TokenizerTrainingConfig(), folder / "tokenizer"), reporter())
    model = str(folder / "tokenizer" / "model")
    tokens = folder / "tokens"
    if not (tokens / "token_set.json").exists():
        options = TokenizeOptions(flips=False)
        run_tokenize(TokenizeRequest("digits", {"split": "train"}, (), model, tokens, None, "", options), reporter())
    training = NATTrainingConfig(**TRAINING_PRESETS["digits"]["nat"]).replace(
        steps=nat_updates, code_init=0.0, precision="fp32"
    )
    pretrain_nat(PretrainNATRequest("digits", tokens, "nano", training, folder / "nat", model), reporter())
    return folder / "nat" / "model"


def request(folder: Path, model: Path, steps: int, seed: int, way: str, quick: bool) -> TrainPolicyRequest:
    """The settings of ``adanat train-policy --dataset digits``."""
    recipe, fields = RECIPES["digits"], WAYS[way]
    training = PolicyTrainingConfig(**recipe["training"]).replace(seed=seed, reward=fields.get("reward"))
    if fields["kind"] == "search":
        training = training.replace(updates=SEARCH_GENERATIONS)
    if quick:
        training = training.replace(updates=2, trajectories=32, eval_images=64)
    return TrainPolicyRequest(
        dataset="digits",
        data=data_config("digits"),
        num_steps=steps,
        kind=fields["kind"],
        training=training,
        ppo=PPOConfig(**recipe["ppo"]),
        discriminator=DiscriminatorConfig(**recipe["discriminator"]),
        policy=recipe["policy"],
        base="cosine",
        output=folder / f"{way.replace(', ', '-').lower()}-{seed}",
        model=str(model),
        device="cpu",
    )


SEARCH_GENERATIONS = 5


def measure(setup: Setup, schedule: Schedule, seed: int, num_images: int) -> dict[str, float]:
    """Distance, accuracy, precision and recall of new images against held-out ones."""
    evaluator = Evaluator(setup.model, setup.features, setup.held_out_reference, 256)
    generated = evaluator.generate(schedule, EVALUATION_SEED + seed, num_images)
    pixels = [setup.held_out.load(index).pixels for index in range(setup.held_out.num_images or 0)]
    real = features_of_images(setup.features, np.stack([image for image in pixels if image is not None]))
    scores = manifold_scores(real, generated.features)
    distance = setup.held_out_reference.distance(generated.features)
    return {
        "distance": distance,
        "accuracy": generated.accuracy,
        "precision": scores.precision,
        "recall": scores.recall,
    }


def main() -> None:
    """Train what is not trained yet, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/digits-paper"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--nat-updates", type=int, default=TRAINING_PRESETS["digits"]["nat"]["steps"])
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    model = make_model(asked.folder, asked.nat_updates)
    first = request(asked.folder, model, asked.steps, 0, asked.ways[0], asked.quick)
    # All ways are measured by one classifier, which is trained once.
    setup = prepare(replace(first, output=asked.folder / "features"), Accelerator(cpu=True), reporter())
    folder = resolve_model(str(model))
    if not folder.has("features"):
        values, tensors = resolve_model(str(asked.folder / "features" / "model")).read("features")
        folder.write("features", values, tensors)
    rows: dict[str, list[dict[str, float]]] = {"fixed": []}
    cosine = CosineSchedule(asked.steps)
    for seed in range(asked.seeds):
        rows["fixed"].append(measure(setup, cosine, seed, asked.images))
        for way in asked.ways:
            done = request(asked.folder, model, asked.steps, seed, way, asked.quick)
            train_policy(done, reporter())
            policy = load_policy(resolve_model(str(done.output / "model")), asked.steps)
            assert policy is not None
            schedule = PolicySchedule(policy)
            rows.setdefault(way, []).append(measure(setup, schedule, seed, asked.images))
            if seed == 0:
                stem = asked.folder / done.output.name
                paths = stem.with_suffix(".samples.png"), stem.with_suffix(".curves.png")
                draw_policy(schedule, cosine, setup.model, EVALUATION_SEED, *paths, f"{way}, {asked.steps} steps")
        write_json(asked.folder / "results.json", rows)
        draw_bars(asked.folder / "results.png", rows)
        show(rows)
    print(json.dumps({way: mean(row["distance"] for row in found) for way, found in rows.items()}))


def draw_bars(path: Path, rows: dict[str, list[dict[str, float]]]) -> None:
    """Draw the distances, a dot a seed."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    for place, found in enumerate(rows.values()):
        distances = [row["distance"] for row in found]
        axes.bar(place, mean(distances), color="C0", alpha=0.5)
        axes.plot([place] * len(distances), distances, "k.")
    axes.set_xticks(range(len(rows)), [way.replace(", ", "\n") for way in rows], fontsize=8)
    axes.set_ylabel("Fréchet distance, held out")
    figure.savefig(path, dpi=120)


def show(rows: dict[str, list[dict[str, float]]]) -> None:
    """Print means and standard deviations over the seeds."""
    table = Table("schedule", "distance", "against fixed", "accuracy", "precision", "recall")
    fixed = mean(row["distance"] for row in rows["fixed"])
    for way, found in rows.items():
        cells = []
        for key in ("distance", "accuracy", "precision", "recall"):
            values = [row[key] for row in found]
            spread = f" ± {stdev(values):.2g}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.3g}{spread}")
        change = mean(row["distance"] for row in found) / fixed - 1
        table.add_row(way, cells[0], f"{change:+.0%}", *cells[1:])
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
