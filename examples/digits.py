"""The paper in miniature: ways to choose a schedule, compared on scikit-learn's digits.

    python examples/digits.py [FOLDER] [--seeds 1] [--steps 4]

``digits.sh`` trains a small NAT on 1,438 digits. Then, for a few generation steps, the fixed schedule is compared with
the best of a small grid, a searched table, a static policy, and adaptive policies with the adversarial and the FID
reward. All are measured against held-out digits, with random seeds not used in training, in the features of a small
classifier that is not part of the discriminator. The same command resumes after an interruption.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

WAYS: dict[str, tuple[str, ...]] = {
    "tuned, best of 27": ("--kind", "tuned"),
    "searched table": ("--kind", "search", "--updates", "5"),
    "static, adversarial": ("--kind", "static"),
    "adaptive, adversarial": (),
    "adaptive, FID": ("--reward", "fid"),
}
QUICK = ("--updates", "2", "--trajectories", "32", "--eval-images", "64")
MEASURES = {"distance": "fid", "accuracy": "accuracy", "precision": "precision", "recall": "recall"}
EVALUATION_SEED = 10_000


def adanat(*words: object) -> dict[str, Any]:
    """Run a command as in a shell, and return its JSON result."""
    line = [sys.executable, "-m", "adanat_cli", *map(str, words), "--json"]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    values: dict[str, Any] = json.loads(done.stdout)
    return values


def measure(model: Path, schedule: str, steps: int, seed: int, num_images: int, folder: Path) -> dict[str, float]:
    """Return distance, accuracy, precision and recall of new images against held-out ones."""
    result = adanat(
        *("evaluate", "--model", model, "--ref", folder / "held-out.npz", "-n", num_images, "--steps", steps),
        *("--schedule", schedule, "--seed", EVALUATION_SEED + seed),
        *("--output", folder / "evaluations" / f"{model.parent.name}-{schedule}-{seed}"),
    )
    metrics = result["results"][0]["metrics"]
    return {name: metrics[key] for name, key in MEASURES.items()}


def main() -> None:
    """Train whatever is not trained yet, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/digits"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--quick", action="store_true", help="Train the policies for two updates only.")
    options = parser.parse_args()
    folder, model = options.folder, options.folder / "nat" / "model"
    if not model.exists():
        subprocess.run([str(Path(__file__).with_name("digits.sh")), str(folder)], check=True)
    rows: dict[str, list[dict[str, float]]] = {"fixed (cosine)": []}
    for seed in range(options.seeds):
        for way in options.ways:
            output = folder / f"{way.split(' of')[0].replace(', ', '-').replace(' ', '-').lower()}-{seed}"
            # The first policy installs the feature network in the model; the others use it, too.
            install = [] if (model / "features").exists() else ["--install"]
            adanat(
                *("train-policy", "--dataset", "digits", "--model", model, "--steps", options.steps, "--seed", seed),
                *("--output", output, *WAYS[way], *(QUICK if options.quick else ()), *install),
            )
            if not (folder / "held-out.npz").exists():
                held_out = ("--dataset", "digits", "--split", "validation", "--protocol", "small", "--model", model)
                adanat("stats", *held_out, "--output", folder / "held-out.npz")
            if len(rows["fixed (cosine)"]) == seed:
                rows["fixed (cosine)"].append(measure(model, "cosine", options.steps, seed, options.images, folder))
            measured = measure(output / "model", "learned", options.steps, seed, options.images, folder)
            rows.setdefault(way, []).append(measured)
        (folder / "results.json").write_text(json.dumps(rows, indent=1))
        draw_bars(folder / "results.png", rows)
        show(rows)


def draw_bars(path: Path, rows: dict[str, list[dict[str, float]]]) -> None:
    """Draw the mean distances as bars, with a dot for each seed."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    for index, seeds in enumerate(rows.values()):
        distances = [row["distance"] for row in seeds]
        axes.bar(index, mean(distances), color="C0", alpha=0.5)
        axes.plot([index] * len(distances), distances, "k.")
    axes.set_xticks(range(len(rows)), [way.replace(", ", "\n") for way in rows], fontsize=8)
    axes.set_ylabel("Fréchet distance, held out")
    figure.savefig(path, dpi=120)


def show(rows: dict[str, list[dict[str, float]]]) -> None:
    """Print means and standard deviations over the seeds."""
    table = Table("schedule", "distance", "against fixed", *list(MEASURES)[1:])
    fixed = mean(row["distance"] for row in rows["fixed (cosine)"])
    for way, seeds in rows.items():
        cells = []
        for key in MEASURES:
            values = [row[key] for row in seeds]
            spread = f" ± {stdev(values):.2g}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.3g}{spread}")
        change = mean(row["distance"] for row in seeds) / fixed - 1
        table.add_row(way, cells[0], f"{change:+.0%}", *cells[1:])
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
