"""``adanat stats``: reference statistics of real images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from adanat_cli.commands import console, options


def command(
    dataset: options.Dataset,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, such as stats.npz.")],
    install: Annotated[
        bool,
        typer.Option(
            "--install",
            help="Also put it into the model, for `adanat evaluate` without --ref; a model without features/ "
            "gets a small network first, trained on the same data (images of up to 128 pixels).",
        ),
    ] = False,
    data_dir: options.DataDir = None,
    split: options.Split = "train",
    image_size: options.ImageSize = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            "-c",
            help="Class id or name; repeat for several; all for every class. By default those that the model has seen.",
            rich_help_panel="Data",
        ),
    ] = None,
    num_images: Annotated[
        int | None, typer.Option("--num-images", "-n", help="Stop after so many images.", rich_help_panel="Data")
    ] = None,
    num_classes: options.NumClasses = None,
    image_column: options.ImageColumn = "",
    label_column: options.LabelColumn = "",
    caption_column: options.CaptionColumn = "",
    streaming: options.Streaming = False,
    max_bad: options.MaxBad = 0.01,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            help="adm, paper, clean, small (the model's own features/) or timm/NAME; by default small if the model "
            "has features/.",
        ),
    ] = "",
    model: options.Model = "",
    inception: options.Inception = None,
    num_features: Annotated[
        int,
        typer.Option("--num-features", help="Images whose features are stored for precision, recall and KID.", min=0),
    ] = 10_000,
    seed: options.Seed = 0,
    workers: options.Workers = 2,
    device: options.Device = "",
    as_json: options.Json = False,
) -> None:
    """Write what `adanat evaluate` compares images with; the same command again goes on where it was stopped."""
    from adanat_cli.core.config.requests import StatsRequest
    from adanat_cli.jobs.evaluate.stats import make_stats

    fields: dict[str, Any] = {
        "data_dir": str(data_dir or ""),
        "split": split,
        "image_size": image_size,
        "num_classes": num_classes,
        "image_column": image_column,
        "label_column": label_column,
        "caption_column": caption_column,
        "streaming": streaming,
        "max_bad": max_bad,
    }
    request = StatsRequest(
        dataset=dataset,
        data_fields=fields,
        output=output,
        install=install,
        classes=tuple(classes or ()),
        protocol=protocol,
        model=model,
        inception=inception,
        num_images=num_images,
        num_features=num_features,
        seed=seed,
        workers=workers,
        device=device,
    )
    values = make_stats(request, console.reporter())
    if values:  # the main process speaks
        console.result(values, as_json, _lines(values))


def _lines(values: dict[str, Any]) -> list[str]:
    return [
        f"Statistics: {values['output']}, {values['num_images']:,} images of {values['source']}",
        f"Protocol {values['protocol']}: {values['extractor']}, weights {values['weights_hash'][:12]}; features of "
        f"{values['num_features']:,} images"
        + (f", {values['num_classes']:,} classes" if values["num_classes"] else ""),
        *([f"Measure the model with: adanat evaluate --model {values['installed']}"] if values["installed"] else []),
        *(f"Skipped: {name} ({reason})" for name, reason in list(values["skipped"].items())[:10]),
    ]
