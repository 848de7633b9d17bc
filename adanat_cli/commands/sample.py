"""``adanat sample``: images from a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from adanat_cli.commands import console, options

_GENERATION = "Generation"
_NUM_IMAGES = 16
_OUTPUT = Path("samples")


def command(
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            "-c",
            help="Class id or name; repeat for several, which then take turns. Without it, all classes that the "
            "model has seen take turns, in an order that follows from the seed.",
        ),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="What to draw, for a text model; repeat for several, which take turns."),
    ] = None,
    prompts_file: Annotated[Path | None, typer.Option("--prompts", help="Text file of prompts, one a line.")] = None,
    num_images: Annotated[
        int | None,
        typer.Option(
            "--num-images", "-n", help="Images in the whole run.", show_default="16, or one for each prompt of a file"
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", help="Generation steps; 8 by default, or as many as a schedule file has."),
    ] = None,
    model: options.Model = "",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder to write to; it holds the images of one run.",
            show_default="samples, or samples-2 and so on if that holds others",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove what an earlier run has written into the folder.")
    ] = False,
    schedule: Annotated[
        str,
        typer.Option(
            "--schedule",
            help="learned, cosine, halton, autonat:FILE or table:FILE (YAML). By default learned if the model has a "
            "policy for this number of steps, else cosine.",
            rich_help_panel=_GENERATION,
        ),
    ] = "",
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            help="Factor on a fixed schedule's re-masking temperature; for halton, the sampling temperature.",
            rich_help_panel=_GENERATION,
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            "--guidance",
            help="Factor on a fixed schedule's guidance scale; 0 is unguided. For halton, the scale itself.",
            rich_help_panel=_GENERATION,
        ),
    ] = None,
    image_format: Annotated[
        Literal["png", "npz"],
        typer.Option("--format", help="A PNG per image, or one samples.npz as guided-diffusion's evaluator reads it."),
    ] = "png",
    grid: Annotated[
        Path | None,
        typer.Option(
            "--grid",
            help="Where the picture of the first 100 images goes, a column per class that was asked for.",
            show_default="OUTPUT/grid.png",
        ),
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Show how the first images came about, step by step, as picture and JSON.")
    ] = False,
    seed: options.Seed = 0,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size",
            help="Images at a time. On a CPU it changes no image; on a GPU, rounding may change single tokens.",
            rich_help_panel="Run",
        ),
    ] = 64,
    text_encoder: options.TextEncoder = "",
    device: options.Device = "",
    precision: options.PrecisionOption = "auto",
    as_json: options.Json = False,
) -> None:
    """Generate images of classes, or of prompts."""
    from adanat_cli.core.config.requests import SampleRequest
    from adanat_cli.jobs.sample.conditions import read_prompts
    from adanat_cli.jobs.sample.sample import sample
    from adanat_cli.jobs.sample.sample_folder import first_free

    texts = read_prompts(prompts or (), prompts_file)
    if num_images is None:
        num_images = len(texts) if prompts_file else _NUM_IMAGES
    request = SampleRequest(
        output=output or _OUTPUT,
        model=model,
        classes=tuple(classes or ()),
        num_images=num_images,
        num_steps=steps,
        schedule=schedule,
        temperature=temperature,
        guidance=guidance,
        seed=seed,
        image_format=image_format,
        grid=grid,
        trace=trace,
        batch_size=batch_size,
        device=device,
        precision=precision,
        prompts=texts,
        text_encoder=text_encoder,
        overwrite=overwrite,
    )
    if output is None:
        request = replace(request, output=first_free(_OUTPUT, request))
    values = sample(request, console.reporter())
    pictures = "1 image" if num_images == 1 else f"{num_images} images"
    lines = [
        f"{pictures} in {values['output']} ({values['images_per_second']:.3g} images/s)",
        f"Grid: {values['grid']}",
        *(f"Trace: {path}" for path in values["traces"] if path.endswith(".png")),
    ]
    console.result(values, as_json, lines)
