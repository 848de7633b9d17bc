"""The paper's comparison: ways to choose the schedule of a few generation steps, on digits or on ImageNet.

    python examples/compare.py digits [FOLDER]
    python examples/compare.py imagenet64 [FOLDER] --data DATA [--model imagenet64] [--steps 4 8] [--seeds 3]

On scikit-learn's digits, ``digits.sh`` first trains a small NAT; for ImageNet, DATA is the folder that
``imagenet64/train.sh`` reads. Whatever is trained is trained once for each seed and number of steps, and measured with
random numbers that no training used, against real images that none has seen: digits in the features of the small
classifier that also picks the best update of each run, ImageNet in those of EfficientNet-Lite1, while Lite0 rewards,
searches and picks. On ImageNet, all trainings start from the tuned schedule of their seed. Results, pictures and exact
commands go to RESULTS.md in FOLDER. The same command resumes; what is measured is kept in FOLDER/measured. Several
processes can share a folder, each with seeds of its own (--first-seed).
"""

from __future__ import annotations

import argparse
import io
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from string import Template
from typing import Any

from compare_report import ADAPTIVE, FIXED, STATIC, TUNED, Drawing, Measurement, write_report

from adanat_cli.cli import app
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.resolve.models import resolve_model

_CHOOSER = "$FOLDER/chooser.npz"


@dataclass(frozen=True)
class Benchmark:
    """A data set, and how schedules are compared on it.

    Attributes:
        data: options of the data.
        protocol: protocol of the measurement.
        adversarial: options of the adversarial reward, "" for those of the data's recipe.
        measures: heading of each column of the results -> metric.
        recognised: heading of the column that is drawn beside the distance.
        model: model by default; "" for the one that ``digits.sh`` trains.
        folder: folder of runs and results by default.
        steps, seeds: numbers of generation steps, and number of seeds, by default.
        chooser: protocol of the distances of searches and trainings; "" for the features of a small network.
        from_tuned: whether other trainings start from the tuned schedule, and not from the cosine schedule.
    """

    data: str
    protocol: str
    adversarial: str
    measures: Mapping[str, str]
    recognised: str
    model: str
    folder: Path
    steps: tuple[int, ...]
    seeds: int
    chooser: str = ""
    from_tuned: bool = False

    @property
    def prepared(self) -> list[str]:
        """The line that makes what trainings measure with."""
        if not self.chooser:
            return []
        return [f"stats {self.data} --model $MODEL --protocol {self.chooser} --output {_CHOOSER}"]


BENCHMARKS = {
    "digits": Benchmark(
        data="--dataset digits",
        protocol="small",
        adversarial="",
        measures={"distance": "fid", "accuracy": "accuracy", "precision": "precision", "recall": "recall"},
        recognised="accuracy",
        model="",
        folder=Path("runs/digits"),
        steps=(4,),
        seeds=1,
    ),
    "imagenet64": Benchmark(
        data="--dataset imagenet64 --data-dir $DATA",
        protocol="efficientnet",
        adversarial="--discriminator efficientnet --discriminator-batch 64",
        measures={
            "distance": "fid",
            "precision": "precision",
            "recall": "recall",
            "KID": "kid",
            "top-1": "top1",
            "top-5": "top5",
            "among": "among",
        },
        recognised="among",
        model="imagenet64",
        folder=Path("runs/imagenet64-compared"),
        steps=(4, 8),
        seeds=3,
        chooser="efficientnet-lite0",
        from_tuned=True,
    ),
}


@dataclass(frozen=True)
class Way:
    """A way to choose a schedule.

    Attributes:
        name: beginning of its folders' names.
        training: options of ``adanat train-policy``; None where nothing is trained.
        schedule: schedule to measure.
    """

    name: str
    training: str | None = None
    schedule: str = "learned"


WAYS = {
    FIXED: Way("cosine", schedule="cosine"),
    TUNED: Way("tuned", "--kind tuned $SEARCH"),
    "searched table": Way("searched", "--kind search --updates 5 $SEARCH"),
    "Halton": Way("halton", schedule="halton"),
    STATIC: Way("static", "--kind static $ADVERSARIAL"),
    ADAPTIVE: Way("adaptive", "$ADVERSARIAL"),
    "adaptive, FID": Way("adaptive-fid", "--reward fid"),
}


def commands(name: str, options: argparse.Namespace) -> list[str]:
    """Return the lines that train and measure a way, for the shell variables $DATA, $MODEL, $FOLDER, $T and $SEED."""
    benchmark, way = BENCHMARKS[options.benchmark], WAYS[name]
    run = f"{way.name}-$T-$SEED"
    model = "$MODEL" if way.training is None else f"$FOLDER/{run}/model"
    evaluate = (
        f"evaluate --model {model} --schedule {way.schedule} --steps $T --protocol {benchmark.protocol} "
        f"-n {options.images} --seed 1000$SEED --output $FOLDER/evaluations/{run}"
    )
    if way.training is None:
        return [evaluate]
    adversarial = options.adversarial or benchmark.adversarial
    training = f"{options.train} {way.training}".replace("$ADVERSARIAL", adversarial).replace("$SEARCH", options.search)
    fixed = f"train-policy {benchmark.data} --model $MODEL --steps $T --seed $SEED"
    if benchmark.chooser:
        fixed += f" --ref {_CHOOSER}"
    if benchmark.from_tuned and name != TUNED:
        fixed += f" --base table:$FOLDER/{WAYS[TUNED].name}-$T-$SEED/table.yaml"
    return [" ".join(f"{fixed} {training} --output $FOLDER/{run}".split()), evaluate]


def adanat(line: str, places: Mapping[str, object]) -> dict[str, Any]:
    """Run a command in this process, with the variables of its line filled in, and return its JSON result."""
    words = [Template(word).substitute(places) for word in shlex.split(line)]
    print("adanat", shlex.join(words), file=sys.stderr, flush=True)
    output = io.StringIO()
    try:
        with redirect_stdout(output):
            app([*words, "--json"])
    except SystemExit as ended:
        if ended.code:
            raise
    values: dict[str, Any] = json.loads(output.getvalue())
    return values


def measure(options: argparse.Namespace, name: str, lines: list[str], places: Mapping[str, Any]) -> Measurement:
    """Train, if there is something to train; measure, and draw the first of the measured images again.

    Args:
        options: of the command line.
        name: name of the way.
        lines: its commands.
        places: values of their variables.
    """
    row = [adanat(line, places) for line in lines][-1]["results"][0]
    way, steps, seed, settings = WAYS[name], places["T"], places["SEED"], row["settings"]
    folder: Path = places["FOLDER"]
    run = f"{way.name}-{steps}-{seed}"
    model = places["MODEL"] if way.training is None else folder / run / "model"
    benchmark, reference = BENCHMARKS[options.benchmark], row["reference"]
    drawing, shown = Drawing(str(model), way.schedule, steps, settings["seed"]), folder / "shown" / f"{run}.npz"
    real = reference.get("recognition", {})
    return Measurement(
        way=name,
        steps=steps,
        seed=seed,
        lines=lines,
        nat=settings["nat"],
        tokenizer=settings["tokenizer"],
        metrics={head: row["metrics"][metric] for head, metric in benchmark.measures.items()},
        real={head: real[metric] for head, metric in benchmark.measures.items() if metric in real},
        about={
            "num_images": settings["num_images"],
            "num_real": reference["num_images"],
            "source": reference["source"],
            "network": "the model's own small network" if benchmark.protocol == "small" else settings["extractor"],
        },
        tera_flops=row["cost"]["tera_flops_per_image"],
        seconds=drawing.save(shown, options.shown),
        drawing=drawing,
        shown=str(shown),
    )


def prepare(benchmark: Benchmark, folder: Path, model: str) -> str:
    """Return the model; that of the digits is trained, and gets statistics of digits that were held out."""
    if model := model or benchmark.model:
        return model
    path = folder / "nat" / "model"
    if not path.exists():
        subprocess.run([str(Path(__file__).with_name("digits.sh")), str(folder)], check=True)
    if resolve_model(str(path)).reference(benchmark.protocol) is None:
        held_out = f"stats {benchmark.data} --split validation --model $MODEL --install --output $FOLDER/held-out.npz"
        adanat(held_out, {"MODEL": path, "FOLDER": folder})
    return str(path)


def compare(options: argparse.Namespace) -> None:
    """Measure what is not measured yet, and write the report after every seed."""
    benchmark, seeds = BENCHMARKS[options.benchmark], options.seeds or BENCHMARKS[options.benchmark].seeds
    model = prepare(benchmark, options.folder, options.model)
    networks = tuple(resolve_model(model).fingerprint(name) for name in ("nat", "tokenizer"))
    if benchmark.chooser and not (options.folder / Path(_CHOOSER).name).exists():
        for line in benchmark.prepared:
            adanat(line, {"DATA": options.data, "MODEL": model, "FOLDER": options.folder})
    rows: list[Measurement] = []
    for seed in range(options.first_seed, options.first_seed + seeds):
        for steps, name in product(options.steps or benchmark.steps, options.ways):
            file = options.folder / "measured" / f"{WAYS[name].name}-{steps}-{seed}.json"
            lines = commands(name, options)
            row = Measurement.read(file)
            if row is None or row.identity != (name, steps, seed, lines, *networks):
                places = {"DATA": options.data, "MODEL": model, "FOLDER": options.folder, "T": steps, "SEED": seed}
                row = measure(options, name, lines, places)
                row.write(file)
            rows.append(row)
        lines = [command_line(options), *benchmark.prepared]
        write_report(options.report or options.folder, rows, benchmark.recognised, lines)


def command_line(options: argparse.Namespace) -> str:
    """The command line of a run; where its data and folders lie stays out."""
    benchmark = BENCHMARKS[options.benchmark]
    words = ["python", "examples/compare.py", options.benchmark, "FOLDER"]
    words += ["--data", "DATA"] if options.data else []
    words += ["--model", "MODEL"] if options.model else []
    words += ["--steps", *map(str, options.steps or benchmark.steps), "--seeds", str(options.seeds or benchmark.seeds)]
    words += ["--first-seed", str(options.first_seed)] if options.first_seed else []
    words += ["--images", str(options.images), "--shown", str(options.shown)]
    words += [f"--{name}={value}" for name in ("adversarial", "search", "train") if (value := getattr(options, name))]
    words += ["--ways", *options.ways] if options.ways != list(WAYS) else []
    return shlex.join(words)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=list(BENCHMARKS))
    parser.add_argument("folder", type=Path, nargs="?", help="by default runs/digits or runs/imagenet64-compared")
    parser.add_argument("--data", help="folder of the Parquet files, for imagenet64")
    parser.add_argument("--model", default="", help="model folder or name")
    parser.add_argument("--steps", type=int, nargs="+")
    parser.add_argument("--seeds", type=int, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=2000, help="images to measure")
    parser.add_argument("--shown", type=int, default=200, help="images to draw for pictures and curves")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="by default all")
    parser.add_argument(
        "--adversarial", default="", help='options of adversarial rewards, as --adversarial="--updates 9"'
    )
    parser.add_argument("--search", default="", help="options of tuned and searched tables alone")
    parser.add_argument("--train", default="", help="further options of every training")
    parser.add_argument("--report", type=Path, help="folder of RESULTS.md and its pictures, if not FOLDER")
    options = parser.parse_args()
    benchmark = BENCHMARKS[options.benchmark]
    options.folder = options.folder or benchmark.folder
    # The tuned schedule comes first: it is where the others start.
    options.ways = [name for name in WAYS if name in options.ways]
    trained = [name for name in options.ways if WAYS[name].training is not None]
    if benchmark.from_tuned and trained and TUNED not in trained:
        parser.error(f"--ways needs '{TUNED}', where the training of '{trained[0]}' starts")
    if "$DATA" in benchmark.data and not options.data:
        parser.error("imagenet64 needs --data DATA, the folder of the Parquet files")
    if options.data and not Path(options.data).exists():
        parser.error(f"--data {options.data} does not exist")
    if options.seeds is not None and options.seeds < 1:
        parser.error(f"--seeds is {options.seeds}; expected at least 1")
    try:
        compare(options)
    except AdaNATError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
