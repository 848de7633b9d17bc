"""``adanat evaluate``: measure generated images against a reference."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from adanat_cli.commands import console, options
from adanat_cli.core.errors import printable

_GENERATION, _IMAGES, _TEXT = "Generation", "Images that exist", "Text to image"


def command(
    reference: Annotated[
        Path | None,
        typer.Option(
            "--ref",
            help="Reference statistics: a file of `adanat stats`, of guided-diffusion or of pytorch-fid (.npz); by "
            "default the model's own.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Model folder or name; the embedded model by default. With images that exist, whose features/ to use.",
        ),
    ] = "",
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Folder of PNG or JPEG files of one size to measure.", rich_help_panel=_IMAGES),
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option("--samples", help=".npz with the images in arr_0 to measure.", rich_help_panel=_IMAGES),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            help="adm, paper, clean, small (the model's own features/) or timm/NAME; by default the reference's own.",
        ),
    ] = "",
    inception: options.Inception = None,
    num_samples: Annotated[
        int | None,
        typer.Option(
            "--num-samples",
            "-n",
            help="Images to measure.",
            show_default="as many as it was trained on, 1,000 to 50,000 (of prompts 30,000), or one for each of a "
            "file; or all that exist",
        ),
    ] = None,
    steps: Annotated[
        list[str] | None,
        typer.Option(
            "--steps",
            help="Generation steps, as 8 or 4,8,16; several make a table and a plot.",
            rich_help_panel=_GENERATION,
        ),
    ] = None,
    schedules: Annotated[
        list[str] | None,
        typer.Option(
            "--schedule",
            help="learned, cosine, halton, autonat:FILE or table:FILE; repeat to compare.",
            rich_help_panel=_GENERATION,
        ),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            "-c",
            help="Class id or name; repeat for several, which take turns. All by default.",
            rich_help_panel=_GENERATION,
        ),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            "-p",
            help="What to draw, for a text model; repeat for several, which take turns.",
            rich_help_panel=_TEXT,
        ),
    ] = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            help="Text file of prompts, one a line, such as `adanat info --dataset mscoco --captions FILE` writes.",
            rich_help_panel=_TEXT,
        ),
    ] = None,
    clip: Annotated[
        str,
        typer.Option(
            "--clip",
            help="CLIP model of the CLIP score: Hub id or folder, or none to leave it out.",
            show_default="openai/clip-vit-large-patch14 where it can be had",
            rich_help_panel=_TEXT,
        ),
    ] = "",
    text_encoder: Annotated[
        str,
        typer.Option(
            "--text-encoder",
            help="CLIP model that encodes prompts: Hub id or folder; by default the model's own.",
            rich_help_panel=_TEXT,
        ),
    ] = "",
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature", help="Factor on a fixed schedule's re-masking temperature.", rich_help_panel=_GENERATION
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option("--guidance", help="Factor on a fixed schedule's guidance scale.", rich_help_panel=_GENERATION),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder of evaluation.json and plots/.", show_default="evaluations/<model or folder>"
        ),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Also note the results in the model's index and card.")
    ] = False,
    keep_features: Annotated[
        bool, typer.Option("--keep-features", help="Leave the features on disk, under OUTPUT/features.")
    ] = False,
    seed: options.Seed = 0,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size",
            help="Images to generate at a time. On a CPU it changes no image; on a GPU, rounding may change single "
            "tokens.",
            rich_help_panel="Run",
        ),
    ] = 64,
    workers: options.Workers = 2,
    device: options.Device = "",
    precision: options.PrecisionOption = "auto",
    as_json: options.Json = False,
) -> None:
    """Measure FID, sFID, Inception Score, precision, recall, density, coverage and KID; of prompts, the CLIP score too.

    The images are a model's, or those of --images or --samples. The same command goes on where it was stopped.
    """
    from adanat_cli.core.config.requests import EvaluateRequest
    from adanat_cli.jobs.evaluate.evaluate import evaluate
    from adanat_cli.jobs.sample.conditions import read_prompts

    texts = read_prompts(prompts or (), prompts_file)
    if num_samples is None and prompts_file is not None:
        num_samples = max(2, len(texts))  # the fewest that a distance can be of
    request = EvaluateRequest(
        reference=reference,
        output=output,
        model=model,
        images=images,
        samples=samples,
        classes=tuple(classes or ()),
        prompts=texts,
        text_encoder=text_encoder,
        clip=clip,
        protocol=protocol,
        inception=inception,
        num_samples=num_samples,
        steps=_numbers(steps or []),
        schedules=tuple(schedules or ()),
        temperature=temperature,
        guidance=guidance,
        seed=seed,
        batch_size=batch_size,
        keep_features=keep_features,
        record=record,
        workers=workers,
        device=device,
        precision=precision,
    )
    values = evaluate(request, console.reporter())
    if values:  # the main process speaks
        console.result(values, as_json, _lines(values))


def _numbers(texts: list[str]) -> tuple[int, ...]:
    """Read whole numbers, one or several to a text."""
    try:
        return tuple(int(number) for text in texts for number in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"--steps {','.join(texts)} is no list of whole numbers such as 4,8,16.") from error


def _lines(values: dict[str, Any]) -> list[str]:
    """The result for people: a table, the same as Markdown, and where the files are."""
    from adanat_cli.jobs.evaluate.report import cells, markdown, other_classes

    rows = values["results"]
    head, body = cells(rows)
    table = Table(*head)
    for line in body:
        table.add_row(*(Text(printable(cell)) for cell in line))
    text = io.StringIO()
    # As wide as it needs to be: a log is no terminal, and a folded number cannot be read.
    Console(file=text, width=max(100, 16 * len(head))).print(table)
    settings, about = rows[0]["settings"], rows[0]["reference"]
    lines = [
        *text.getvalue().rstrip().split("\n"),
        f"Protocol {settings['protocol']}: {settings['extractor']}, weights {settings['weights_hash'][:12]}; reference "
        f"{about['file']}, {settings['reference'][:12]}, {_classes(about)}",
        *([f"Not of the same classes: {other_classes(rows[0]['classes'])}."] if "classes" in rows[0] else []),
        *([f"All but distances, accuracy and CLIP score: of {rows[0]['held']:,} images."] if "held" in rows[0] else []),
        *_clip_line(settings),
        "",
        *markdown(rows),
        "",
        *(f"Not measured: {reason}: {', '.join(names)}" for reason, names in _absent(rows).items()),
        f"Results: {values['evaluation']}",
    ]
    return [*lines, f"Plot: {values['plot']}"] if values["plot"] else lines


def _classes(about: dict[str, Any]) -> str:
    """Of how many classes a reference is; rows of older versions do not tell."""
    number = about.get("num_classes")
    return "classes not recorded" if number is None else f"{number:,} classes"


def _clip_line(settings: dict[str, Any]) -> list[str]:
    """What the CLIP score is, where there is one."""
    if "clip" not in settings:
        return []
    return [
        f"CLIP score: 100 x mean cosine similarity of image and prompt by {settings['clip']}, weights "
        f"{settings['clip_hash'][:12]}; {settings['num_prompts']:,} prompts, {settings['prompts_sha256'][:12]}"
    ]


def _absent(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Names of measures by the reason for which some row lacks them; a deviation goes with its mean."""
    reasons: dict[str, list[str]] = {}
    for name, reason in dict.fromkeys(pair for row in rows for pair in row["absent"].items()):
        if not name.endswith("_std"):
            reasons.setdefault(reason, []).append(name)
    return reasons
