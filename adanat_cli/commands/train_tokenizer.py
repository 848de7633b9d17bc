"""``adanat train-tokenizer``: train a small VQ autoencoder on images."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from adanat_cli.commands import console, options, push

_TRAINING = "Training"
_MEASURED = (("PSNR on training images (dB)", "psnr", ".2f"), ("perplexity", "perplexity", ".0f"))


def command(
    dataset: options.Dataset,
    data_dir: options.DataDir = None,
    image_size: options.ImageSize = None,
    num_classes: options.NumClasses = None,
    image_column: options.ImageColumn = "",
    label_column: options.LabelColumn = "",
    caption_column: options.CaptionColumn = "",
    streaming: options.Streaming = False,
    max_bad: options.MaxBad = 0.01,
    output: options.Output = None,
    codebook_size: Annotated[int | None, typer.Option(help="K, number of codes.")] = None,
    downsampling: Annotated[
        int | None,
        typer.Option(help="Image pixels per token side: 2, 4, 8, 16 or 32; 1 takes pixels as they are."),
    ] = None,
    colour: Annotated[
        bool,
        typer.Option("--colour", help="Nothing to train: a token is the mean colour of its pixels, of 8, 27, 64 …."),
    ] = False,
    steps: Annotated[int | None, typer.Option(help="Optimizer updates.", rich_help_panel=_TRAINING)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per update.", rich_help_panel=_TRAINING)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak rate of Adam.", rich_help_panel=_TRAINING)] = None,
    warmup_steps: Annotated[
        int | None, typer.Option(help="Updates until the peak rate.", rich_help_panel=_TRAINING)
    ] = None,
    decay: Annotated[
        Literal["constant", "cosine"] | None, typer.Option(help="Rate after the warm-up.", rich_help_panel=_TRAINING)
    ] = None,
    ema_decay: Annotated[
        float | None, typer.Option(help="Of the average that is exported.", rich_help_panel=_TRAINING)
    ] = None,
    adversarial_weight: Annotated[
        float | None, typer.Option(help="Weight of the patch discriminator; 0 for none.", rich_help_panel=_TRAINING)
    ] = None,
    adversarial_start: Annotated[
        int | None, typer.Option(help="Update at which it enters.", rich_help_panel=_TRAINING)
    ] = None,
    perceptual: Annotated[
        str | None,
        typer.Option(
            help="timm backbone for a perceptual loss, as NAME or NAME=FILE.safetensors.", rich_help_panel=_TRAINING
        ),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store the weights in 16 bits.")] = False,
    workers: options.Workers = 2,
    seed: options.Seed = 0,
    precision: options.PrecisionOption = "auto",
    device: options.Device = "",
    save_every: Annotated[int | None, typer.Option(help="Updates between saves.", rich_help_panel=_TRAINING)] = None,
    push_to_hub: options.PushToHub = "",
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Train a small VQ autoencoder; the same command again resumes it."""
    from adanat_cli.jobs.train.settings import tokenizer_request
    from adanat_cli.jobs.train.tokenizer import plan, train_tokenizer

    request = tokenizer_request(
        dataset,
        data={
            "image_size": image_size,
            "data_dir": str(data_dir or ""),
            "num_classes": num_classes,
            "image_column": image_column,
            "label_column": label_column,
            "caption_column": caption_column,
            "streaming": streaming,
            "max_bad": max_bad,
        },
        shape={"codebook_size": codebook_size, "downsampling": downsampling, "colour": colour},
        training={
            "steps": steps,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "warmup_steps": warmup_steps,
            "decay": decay,
            "ema_decay": ema_decay,
            "adversarial_weight": adversarial_weight,
            "adversarial_start": adversarial_start,
            "perceptual_backbone": perceptual,
            "seed": seed,
            "precision": precision,
            "save_every": save_every,
        },
        output=output,
        dry_run=dry_run,
        workers=workers,
        half=half,
        device=device,
    )
    if dry_run:
        from adanat_cli.commands.wording import lines_of

        values = plan(request)
        console.result(values, as_json, lines_of(values))
        return
    push.check(push_to_hub)
    reporter = console.reporter()
    values = train_tokenizer(request, reporter)
    if values:  # the main process speaks
        values = push.after_run(values, push_to_hub, values["model"], reporter)
        measured = [f"{name} {values[key]:{form}}" for name, key, form in _MEASURED if key in values]
        console.result(values, as_json, [f"Tokenizer: {values['model']}", *measured])
