"""Options that several commands share, declared once."""

from __future__ import annotations

from functools import partial
from typing import Any

from adanat_cli.core.config.acting import MODEL
from adanat_cli.core.config.option import REQUIRED, option

INCEPTION = frozenset({"adm", "paper", "clean"})
"""Protocols whose network is an Inception."""

data, run = partial(option, panel="Data"), partial(option, panel="Run")

_DATASET = (
    "Preset (imagenet64, imagenet256, imagenet512, mscoco, cc3m, digits), folder of images by class, Parquet, "
    "webdataset tars, TSV, or Hub id user/name\\[@revision]"
)
dataset = partial(data, REQUIRED, "--dataset", "-d", help=f"{_DATASET}.")
trained_on = partial(
    data,
    "",
    "--dataset",
    "-d",
    help=f"{_DATASET}; by default, with the data's other settings and the model, that of the run whose config.json "
    "--config names.",
)
model = partial(
    option,
    "",
    "--model",
    "-m",
    help="Model folder, name or Hub id user/repo\\[@revision]; by default the embedded model.",
)
start = partial(option, "", "--from")
"""Weights of a model to start from instead of random ones; each training's help says which."""
classes = partial(data, (), "--class", "-c", help="Class id or name; repeat for several.")
num_images = partial(data, None, "--num-images", "-n", help="Stop after N images.", min=1)
text_encoder = partial(
    option, "", help="CLIP model that encodes prompts: Hub id or folder; by default the model's own, or the data set's."
)
inception = partial(
    option,
    None,
    help="File of the Inception weights for adm, paper and clean; by default the cached copy, which adm and paper "
    "download on first use.",
    protocols=INCEPTION,
    purpose="is for adm, paper and clean",
)
workers = partial(run, 2, "--workers", help="Threads that decode images.", min=0)
seed = partial(run, 0, help="Random seed.")
device = partial(run, "", help="Device: cuda, mps or cpu; by default the best one on this machine.")
precision = partial(run, "auto", help="Number format of the networks; auto measures, but generates in fp32 on a CPU.")
batch_size = partial(
    run,
    64,
    help="Images to generate at a time. On a CPU, the images do not depend on it; on a GPU, rounding may change a few "
    "tokens.",
)
compiled = partial(
    run,
    False,
    "--compile",
    help="Compile the NAT with torch.compile first, which takes a minute or more and needs a C++ compiler (Triton on a "
    "GPU): worth it for many images. Rounding may change a few tokens.",
    acts_on=MODEL,
)
prompts = partial(
    option,
    (),
    "--prompt",
    "-p",
    help="What to draw, for a text model; repeat to cycle through several.",
    acts_on=MODEL,
)
num_steps = partial(
    option,
    None,
    "--steps",
    help="Generation steps; by default 8, or as many as a schedule file has.",
    acts_on=MODEL,
)
schedule = partial(
    option,
    "",
    help="learned, cosine, halton, autonat:FILE or table:FILE (YAML). By default learned if the model has a policy for "
    "this number of steps, else cosine.",
    panel="Generation",
    acts_on=MODEL,
)
overwrite = partial(option, False, help="Remove what earlier runs wrote to the folder.")
trace = partial(
    option,
    False,
    help="Also save how the first images were generated, step by step, as pictures, animated GIFs and JSON.",
)
_factor = partial(option, None, panel="Generation", acts_on=MODEL)
sampling_temperature = partial(
    _factor, help="Factor on a fixed schedule's sampling temperature; for halton, the temperature itself."
)
remask_temperature = partial(
    _factor, former=("--temperature",), help="Factor on a fixed schedule's re-masking temperature."
)
guidance_scale = partial(
    _factor,
    "--guidance-scale",
    "--guidance",
    help="Factor on a fixed schedule's guidance scale; 0 is unguided. For halton, the scale itself.",
)
config = partial(
    run,
    None,
    help="YAML or JSON file of settings, as in a run's config.json or from --print-config; options that are given "
    "override it.",
)
track = partial(
    run,
    (),
    metavar="NAME",
    help="Also log to wandb, trackio, mlflow, aim, comet_ml, clearml, dvclive or swanlab; repeat for several. "
    "TensorBoard's log is written wherever it is installed.",
)
half = partial(option, False, help="Export the weights in 16 bits.")


def output(default: Any, help: str, **settings: Any) -> Any:  # noqa: A002 — Typer's word
    """Declare where a command writes."""
    return option(default, "--output", "-o", help=help, **settings)


def protocol(usual: str) -> Any:
    """Declare how images are measured, and what decides by default."""
    return option(
        "",
        help="adm, paper, clean, efficientnet (ImageNet features of EfficientNet-Lite1, offline), efficientnet-lite0 "
        f"(those of Lite0, to train with), small (the model's own features/) or timm/NAME; by default {usual}.",
    )
