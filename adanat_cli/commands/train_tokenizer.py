"""``adanat train-tokenizer``: train a small VQ autoencoder on images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adanat_cli.commands import console, options, push
from adanat_cli.core.config import (
    BENCHMARKS,
    TRAINING_PRESETS,
    PixelConfig,
    TokenizerTrainingConfig,
    VQAEConfig,
    data_config,
)
from adanat_cli.core.errors import require

_TRAINING = "Training"
_SHAPE = {"codebook_size": 1024, "downsampling": 8}
"""For data without a preset of its own."""
_MEASURED = (("PSNR (dB)", "psnr", ".2f"), ("perplexity", "perplexity", ".0f"))
_CHANNELS = (32, 64, 128, 256, 256)
"""Widths per resolution; a tokenizer with downsampling 2^n takes the first n."""


def command(
    dataset: options.Dataset,
    data_dir: options.DataDir = None,
    image_size: options.ImageSize = None,
    num_classes: options.NumClasses = None,
    image_column: options.ImageColumn = "",
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
    adversarial_weight: Annotated[
        float | None, typer.Option(help="Weight of the patch discriminator; 0 for none.", rich_help_panel=_TRAINING)
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
    preset = TRAINING_PRESETS.get(dataset, {})
    training = TokenizerTrainingConfig(**preset.get("tokenizer", {})).replace(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        adversarial_weight=adversarial_weight,
        perceptual_backbone=perceptual,
        seed=seed,
        precision=precision,
        save_every=save_every,
    )
    data = data_config(
        dataset,
        image_size=image_size,
        data_dir=str(data_dir or ""),
        num_classes=num_classes,
        image_column=image_column,
        streaming=streaming,
        max_bad=max_bad,
    )
    asked = {"codebook_size": codebook_size, "downsampling": downsampling}
    usual = _SHAPE
    if benchmark := BENCHMARKS.get(dataset):
        usual = {"codebook_size": benchmark.codebook_size, "downsampling": benchmark.tokenizer().downsampling}
    shape = {**usual, **preset.get("shape", {}), **{key: value for key, value in asked.items() if value is not None}}
    tokenizer = _shape(data.image_size, colour=colour, **shape)
    from adanat_cli.core.runs.train_tokenizer import TrainTokenizerRequest, plan, train_tokenizer

    request = TrainTokenizerRequest(
        data, tokenizer, training, output or Path("runs") / f"tokenizer-{Path(dataset).name}", workers, half, device
    )
    if dry_run:
        from adanat_cli.core.runs.wording import lines_of

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


def _shape(image_size: int, codebook_size: int, downsampling: int, colour: bool) -> VQAEConfig | PixelConfig:
    """The tokenizer whose tokens are so many pixels wide."""
    require(
        downsampling in (1, 2, 4, 8, 16, 32),
        f"--downsampling is {downsampling}; expected 1, 2, 4, 8, 16 or 32 pixels per token side.",
    )
    if downsampling == 1 or colour:
        return PixelConfig(image_size=image_size, codebook_size=codebook_size, colour=colour, patch=downsampling)
    channels = _CHANNELS[: downsampling.bit_length() - 1]
    return VQAEConfig(image_size=image_size, codebook_size=codebook_size, channels=channels)
