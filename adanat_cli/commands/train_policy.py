"""``adanat train-policy``: learn the generation policy of a frozen NAT."""

from __future__ import annotations

import shlex
from typing import Annotated, Any, Literal

import typer

from adanat_cli.commands import console, options, push

_POLICY, _REWARD, _TRAINING = "Policy", "Reward", "Training"


def command(
    dataset: options.Dataset,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Model folder, name or Hub id; by default the data set's embedded one, or models/DATASET.",
        ),
    ] = "",
    steps: Annotated[int, typer.Option("--steps", help="Generation steps that the policy is for.")] = 8,
    kind: Annotated[
        Literal["adaptive", "static", "search", "tuned"],
        typer.Option(
            "--kind",
            help="adaptive: values for every sample; static: learned, the same for all; search: one table by black-box "
            "search; tuned: the best of a small grid of factors.",
        ),
    ] = "adaptive",
    reward: Annotated[
        Literal["adversarial", "fid", "preference"] | None,
        typer.Option("--reward", help="What the policy is rewarded for; by default adversarial."),
    ] = None,
    recipe_name: Annotated[
        str,
        typer.Option("--recipe", help="Settings by name: auto (the preset's, or by data and machine), default, paper."),
    ] = "auto",
    text_encoder: options.TextEncoder = "",
    output: options.Output = None,
    install: Annotated[
        bool, typer.Option("--install", help="Also put the policy into the model folder itself.")
    ] = False,
    data_dir: options.DataDir = None,
    image_column: options.ImageColumn = "",
    label_column: options.LabelColumn = "",
    caption_column: options.CaptionColumn = "",
    num_classes: options.NumClasses = None,
    streaming: options.Streaming = False,
    max_bad: options.MaxBad = 0.01,
    base: Annotated[
        str,
        typer.Option(
            "--base",
            help="Fixed schedule that the policy starts from: cosine, autonat:FILE or table:FILE (YAML).",
            rich_help_panel=_POLICY,
        ),
    ] = "cosine",
    residual: Annotated[
        bool | None,
        typer.Option("--residual/--no-residual", help="Add the policy to its base.", rich_help_panel=_POLICY),
    ] = None,
    smoothing: Annotated[
        float | None, typer.Option(help="Smoothing over the steps, 0 to 1.", rich_help_panel=_POLICY)
    ] = None,
    hidden_width: Annotated[int | None, typer.Option(help="Width of the networks.", rich_help_panel=_POLICY)] = None,
    discriminator: Annotated[
        str | None,
        typer.Option(
            help="dino (frozen ViT-S/16), dino=FILE.safetensors, classifier (the same on a small network of the data's "
            "own images), or pyramid (trained from scratch).",
            rich_help_panel=_REWARD,
        ),
    ] = None,
    discriminator_updates: Annotated[
        int | None, typer.Option(help="Discriminator updates per policy update.", rich_help_panel=_REWARD)
    ] = None,
    discriminator_batch: Annotated[
        int | None,
        typer.Option(help="Real, and as many generated, images of one of them.", rich_help_panel=_REWARD),
    ] = None,
    discriminator_rate: Annotated[
        float | None, typer.Option(help="Learning rate of the discriminator.", rich_help_panel=_REWARD)
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(help="DiffAugment for the discriminator: color,translation,cutout.", rich_help_panel=_REWARD),
    ] = None,
    fid_credit: Annotated[
        Literal["sample", "batch"] | None,
        typer.Option(
            help="sample: each image gets its own share of the distance; batch: all share it.", rich_help_panel=_REWARD
        ),
    ] = None,
    preference_model: Annotated[
        str,
        typer.Option(help="Image-text model of --reward preference: Hub id or folder.", rich_help_panel=_REWARD),
    ] = "yuvalkirstain/PickScore_v1",
    updates: Annotated[
        int | None, typer.Option(help="Policy updates; generations of a search.", rich_help_panel=_TRAINING)
    ] = None,
    trajectories: Annotated[
        int | None,
        typer.Option(help="Images per update; per candidate of a search.", rich_help_panel=_TRAINING),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Adam's, of the policy.", rich_help_panel=_TRAINING)
    ] = None,
    rollout: Annotated[
        Literal["bf16", "fp32", "recompute"] | None,
        typer.Option(help="How the NAT's features wait for PPO's epochs.", rich_help_panel=_TRAINING),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images at a time.", rich_help_panel=_TRAINING)] = None,
    eval_images: Annotated[
        int | None, typer.Option(help="Images of one evaluation.", rich_help_panel=_TRAINING)
    ] = None,
    eval_every: Annotated[int | None, typer.Option(help="Updates between them.", rich_help_panel=_TRAINING)] = None,
    show_every: Annotated[int | None, typer.Option(help="Updates between pictures.", rich_help_panel=_TRAINING)] = None,
    save_every: Annotated[int | None, typer.Option(help="Updates between saves.", rich_help_panel=_TRAINING)] = None,
    workers: options.Workers = 2,
    seed: options.Seed = 0,
    device: options.Device = "",
    precision: options.PrecisionOption = "auto",
    paired: Annotated[
        bool | None,
        typer.Option(
            "--paired/--no-paired",
            help="Trajectories in pairs of the same noise that explore in opposite directions.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    push_to_hub: options.PushToHub = "",
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Train a generation policy for a model; the same command again resumes it."""
    from adanat_cli.jobs.train.plans import plan
    from adanat_cli.jobs.train.policy import train_policy
    from adanat_cli.jobs.train.settings import policy_request

    request = policy_request(
        dataset,
        data={
            "data_dir": str(data_dir or ""),
            "image_column": image_column,
            "label_column": label_column,
            "caption_column": caption_column,
            "num_classes": num_classes,
            "streaming": streaming,
            "max_bad": max_bad,
        },
        training={
            "updates": updates,
            "trajectories": trajectories,
            "reward": reward,
            "fid_credit": fid_credit,
            "rollout": rollout,
            "batch_size": batch_size,
            "eval_images": eval_images,
            "eval_every": eval_every,
            "show_every": show_every,
            "save_every": save_every,
            "seed": seed,
            "precision": precision,
            "paired": paired,
        },
        ppo={"static_learning_rate" if kind == "static" else "learning_rate": learning_rate},
        discriminator={
            "backbone": discriminator,
            "updates": discriminator_updates,
            "batch_size": discriminator_batch,
            "learning_rate": discriminator_rate,
            "augment": augment,
        },
        policy={"residual": residual, "smoothing": smoothing, "hidden_width": hidden_width},
        recipe_name=recipe_name,
        output=output,
        num_steps=steps,
        kind=kind,
        base=base,
        model=model,
        install=install,
        preference_model=preference_model,
        text_encoder=text_encoder,
        workers=workers,
        device=device,
    )
    if dry_run:
        from adanat_cli.commands.wording import lines_of

        values = plan(request)
        console.result(values, as_json, lines_of(values))
        return
    push.check(push_to_hub)
    reporter = console.reporter()
    values = train_policy(request, reporter)
    if values:  # the main process speaks
        values = push.after_run(values, push_to_hub, values["model"], reporter)
        console.result(values, as_json, _lines(values))


def _lines(values: dict[str, Any]) -> list[str]:
    """The result for people."""
    best = f", of update {values['best_update']}" if "best_update" in values else ""
    lines = [
        f"Policy: {values['model']}/{values['policy']}",
        f"Distance to {values['measured_on']}: {values['distance']:.4g}{best}; fixed schedule "
        f"{values['fixed_distance']:.4g} ({values['num_images']} images)",
    ]
    if "table" in values:
        sample = shlex.join(["adanat", "sample", "--model", values["model"], "--schedule", values["schedule"]])
        lines.append(f"Table: {values['table']}, for `{sample}`")
    return lines
