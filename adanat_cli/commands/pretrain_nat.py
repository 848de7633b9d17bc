"""``adanat pretrain-nat``: train the transformer on tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from adanat_cli.commands import console, options, push

_TRAINING = "Training"


def command(
    dataset: options.Dataset,
    tokens: Annotated[
        Path,
        typer.Option("--tokens", "-t", help="Folder that `adanat tokenize` wrote, or Hub id user/repo\\[@revision]."),
    ],
    size: Annotated[
        Literal["nano", "micro", "tiny", "small", "large", "muse"] | None,
        typer.Option(help="Size of the NAT; by default the preset's own, or by the number of images."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model", "--tokenizer", "-m", help="Model whose tokenizer made the tokens; by default the data set's own."
        ),
    ] = "",
    text_encoder: options.TextEncoder = "",
    output: options.Output = None,
    classes: options.Classes = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer updates.", rich_help_panel=_TRAINING)] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images per update, over all processes.", rich_help_panel=_TRAINING)
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak rate of AdamW.", rich_help_panel=_TRAINING)] = None,
    warmup_steps: Annotated[
        int | None, typer.Option(help="Updates until the peak rate.", rich_help_panel=_TRAINING)
    ] = None,
    decay: Annotated[
        Literal["constant", "cosine"] | None, typer.Option(help="Rate after the warm-up.", rich_help_panel=_TRAINING)
    ] = None,
    beta1: Annotated[float | None, typer.Option(help="AdamW's memory of gradients.", rich_help_panel=_TRAINING)] = None,
    beta2: Annotated[
        float | None, typer.Option(help="AdamW's memory of squared gradients.", rich_help_panel=_TRAINING)
    ] = None,
    ema_decay: Annotated[
        float | None, typer.Option(help="Of the average that is exported.", rich_help_panel=_TRAINING)
    ] = None,
    code_init: Annotated[
        float | None,
        typer.Option(
            help="Spread of word embeddings that start from the tokenizer's codes; 0 for unrelated words.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    held_out: Annotated[
        float | None, typer.Option(help="Share of the images to measure on.", rich_help_panel=_TRAINING)
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(
            help="Pieces that a process cuts its batch into; by default as few as its memory holds.",
            min=1,
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    log_every: Annotated[int | None, typer.Option(help="Updates between notes.", rich_help_panel=_TRAINING)] = None,
    save_every: Annotated[int | None, typer.Option(help="Updates between saves.", rich_help_panel=_TRAINING)] = None,
    sample_every: Annotated[
        int | None, typer.Option(help="Updates between sample grids.", rich_help_panel=_TRAINING)
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store the weights in 16 bits.")] = False,
    seed: options.Seed = 0,
    device: options.Device = "",
    precision: options.PrecisionOption = "auto",
    push_to_hub: options.PushToHub = "",
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Train a NAT on a token set; the same command again resumes it."""
    from adanat_cli.jobs.train.nat import plan, pretrain_nat
    from adanat_cli.jobs.train.settings import nat_request

    request = nat_request(
        dataset,
        tokens,
        training={
            "steps": steps,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "warmup_steps": warmup_steps,
            "decay": decay,
            "beta1": beta1,
            "beta2": beta2,
            "ema_decay": ema_decay,
            "code_init": code_init,
            "held_out": held_out,
            "seed": seed,
            "precision": precision,
            "log_every": log_every,
            "save_every": save_every,
            "sample_every": sample_every,
        },
        size=size,
        output=output,
        dry_run=dry_run,
        model=model,
        classes=tuple(classes or ()),
        accumulate=accumulate or 0,
        device=device,
        half=half,
        text_encoder=text_encoder,
    )
    if dry_run:
        from adanat_cli.commands.wording import lines_of

        values = plan(request)
        console.result(values, as_json, lines_of(values))
        return
    push.check(push_to_hub)
    reporter = console.reporter()
    values = pretrain_nat(request, reporter)
    if values:  # the main process speaks
        values = push.after_run(values, push_to_hub, values["model"], reporter)
        console.result(values, as_json, _lines(values))


def _lines(values: dict[str, Any]) -> list[str]:
    """The result for people."""
    measured = ", ".join(
        f"{name} {values[key]:.3f}"
        for name, key in (
            ("loss on training images", "training_loss"),
            ("accuracy", "training_accuracy"),
            ("loss on held-out images", "held_out_loss"),
            ("accuracy", "held_out_accuracy"),
        )
        if key in values
    )
    return [f"Model: {values['model']}", f"{values['steps']} updates: {measured}"]
