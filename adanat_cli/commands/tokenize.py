"""``adanat tokenize``: turn a data set into token ids once, for training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from adanat_cli.commands import console, options, push

_DATA = "Data"


def command(
    dataset: options.Dataset,
    data_dir: options.DataDir = None,
    split: options.Split = "train",
    model: Annotated[
        str,
        typer.Option(
            "--tokenizer",
            "--model",
            "-m",
            help="Model folder, name or Hub id with the tokenizer; by default the embedded one.",
        ),
    ] = "",
    output: options.Output = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the centre crop in pixels; the tokenizer's own by default.")
    ] = None,
    flips: Annotated[bool, typer.Option(help="Also store the ids of the flipped images.")] = True,
    classes: options.Classes = None,
    num_images: Annotated[
        int | None, typer.Option(help="Stop after so many images.", min=1, rich_help_panel=_DATA)
    ] = None,
    num_classes: options.NumClasses = None,
    image_column: options.ImageColumn = "",
    label_column: options.LabelColumn = "",
    caption_column: options.CaptionColumn = "",
    streaming: options.Streaming = False,
    max_bad: options.MaxBad = 0.01,
    preview: Annotated[
        Path | None, typer.Option(help="PNG of images above their reconstructions; prints the PSNR.")
    ] = None,
    preview_only: Annotated[bool, typer.Option("--preview-only", help="Write the picture and nothing else.")] = False,
    encode_captions: Annotated[
        bool,
        typer.Option(
            "--encode-captions",
            help="Also store the text encoder's states of all captions (77 x 768 float16 are 118 kB each), so that "
            "pretrain-nat need not encode them.",
            rich_help_panel=_DATA,
        ),
    ] = False,
    text_encoder: options.TextEncoder = "",
    batch_size: Annotated[
        int | None, typer.Option(help="Images in one pass; by default what bounded memory allows.", min=1)
    ] = None,
    shard_size: Annotated[int, typer.Option(help="Images of one file.", min=1)] = 4096,
    workers: options.Workers = 2,
    device: options.Device = "",
    push_to_hub: options.PushToHub = "",
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Write the token ids of all images as Parquet; the same command again goes on where it was stopped."""
    if preview_only and preview is None:
        raise typer.BadParameter("--preview-only needs --preview FILE.png.")
    if output is None and not preview_only and not dry_run:
        raise typer.BadParameter("Say where the tokens go: --output FOLDER.")
    from adanat_cli.core.config.requests import TokenizeOptions, TokenizeRequest
    from adanat_cli.jobs.tokenize.tokenize import plan, run_tokenize

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
    request = TokenizeRequest(
        dataset=dataset,
        data_fields=fields,
        classes=tuple(classes or ()),
        model=model,
        output=None if preview_only else output,
        preview=preview,
        device=device,
        options=TokenizeOptions(batch_size, workers, shard_size, num_images, flips),
        encode_captions=encode_captions,
        text_encoder=text_encoder,
    )
    if dry_run:
        from adanat_cli.commands.wording import lines_of

        values = plan(request)
        console.result(values, as_json, lines_of(values))
        return
    if request.output is not None:
        push.check(push_to_hub)
    reporter = console.reporter()
    values = run_tokenize(request, reporter)
    if "output" in values:
        values = push.after_run(values, push_to_hub, values["output"], reporter, tokens=True)
    if values:
        console.result(values, as_json, _lines(values))


def _lines(values: dict[str, Any]) -> list[str]:
    lines = []
    if "preview" in values:
        lines.append(f"Preview: {values['preview']}, PSNR {values['psnr']:.2f} dB")
    if "output" in values:
        shards = "1 shard" if values["num_shards"] == 1 else f"{values['num_shards']} shards"
        lines.append(f"Tokens: {values['output']}, {values['num_images']} images in {shards}")
        skipped = list(values["skipped"].items())
        lines += [f"Skipped: {name} ({reason})" for name, reason in skipped[:10]]
        if len(skipped) > 10:
            lines.append(f"… and {len(skipped) - 10} more; all are in {values['output']}/token_set.json")
    return lines
