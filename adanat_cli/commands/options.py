"""Options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

_DATA, _RUN = "Data", "Run"

Dataset = Annotated[
    str,
    typer.Option(
        "--dataset",
        "-d",
        help="Preset (imagenet64, imagenet256, imagenet512, mscoco, cc3m, digits), folder of images by class, Parquet, "
        "webdataset tars, TSV, or Hub id user/name\\[@revision].",
        rich_help_panel=_DATA,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Local copy of the data set, read instead of the Hub.", rich_help_panel=_DATA),
]
ImageSize = Annotated[
    int | None,
    typer.Option("--image-size", help="Side of the centre crop in pixels; presets know theirs.", rich_help_panel=_DATA),
]
Split = Annotated[
    Literal["train", "validation"], typer.Option("--split", help="Which part of the data.", rich_help_panel=_DATA)
]
Streaming = Annotated[
    bool, typer.Option("--streaming", help="Read in order, without a local copy.", rich_help_panel=_DATA)
]
MaxBad = Annotated[
    float, typer.Option("--max-bad", help="Share of unreadable images to tolerate.", rich_help_panel=_DATA)
]
NumClasses = Annotated[
    int | None,
    typer.Option("--num-classes", help="Classes of the labels, where a stream does not tell.", rich_help_panel=_DATA),
]
ImageColumn = Annotated[str, typer.Option("--image-column", help="Column of the images.", rich_help_panel=_DATA)]
LabelColumn = Annotated[str, typer.Option("--label-column", help="Column of the classes.", rich_help_panel=_DATA)]
CaptionColumn = Annotated[str, typer.Option("--caption-column", help="Column of the captions.", rich_help_panel=_DATA)]
Classes = Annotated[
    list[str] | None,
    typer.Option("--class", "-c", help="Class id or name; repeat for several.", rich_help_panel=_DATA),
]
Workers = Annotated[int, typer.Option("--workers", help="Threads that decode images.", min=0, rich_help_panel=_RUN)]
Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="Model folder, name or Hub id user/repo\\[@revision]; the embedded model by default."
    ),
]
Inception = Annotated[
    Path | None,
    typer.Option(
        "--inception",
        help="File of the Inception weights for adm, paper and clean; by default the kept copy, which adm and paper "
        "fetch on first use.",
    ),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Where to write.")]
Seed = Annotated[int, typer.Option("--seed", help="Everything random follows from it.", rich_help_panel=_RUN)]
Device = Annotated[
    str, typer.Option("--device", help="cuda, mps or cpu; the best one here by default.", rich_help_panel=_RUN)
]
PrecisionOption = Annotated[
    Literal["auto", "fp32", "bf16"],
    typer.Option("--precision", help="Number format of the networks.", rich_help_panel=_RUN),
]
PushToHub = Annotated[
    str,
    typer.Option(
        "--push-to-hub",
        help="Hub id user/repo\\[@branch] to push the result to; account and id are checked before the run starts.",
        rich_help_panel=_RUN,
    ),
]
TextEncoder = Annotated[
    str,
    typer.Option(
        "--text-encoder",
        help="CLIP model that encodes prompts: Hub id or folder; by default the model's own, or the data set's.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.", rich_help_panel=_RUN)]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print what would run, without touching data.", rich_help_panel=_RUN),
]
