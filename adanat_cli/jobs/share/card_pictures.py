"""The pictures of a model card: samples, and what each policy does beside the fixed schedule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from adanat_cli.core.checkpoints.card import CardDetails
from adanat_cli.core.checkpoints.folder import ModelFolder, policy_component
from adanat_cli.core.errors import AdaNATError
from adanat_cli.core.policy.schedule import base_schedule, policy_schedule
from adanat_cli.jobs.resolve.models import load_policy, policy_config
from adanat_cli.jobs.resolve.schedules import choose_schedule, settle_schedule
from adanat_cli.jobs.runtime.devices import pick_device
from adanat_cli.jobs.runtime.reporter import Reporter
from adanat_cli.jobs.sample.conditions import Asked
from adanat_cli.jobs.sample.pictures import image_grid, save_png
from adanat_cli.jobs.sample.policy_pictures import draw_policy
from adanat_cli.jobs.sample.sampler import Sampler

_SEED, _COLUMNS = 0, 8


def draw_pictures(folder: ModelFolder, output: Path, num_images: int, device: str, reporter: Reporter) -> CardDetails:
    """Draw samples, and pictures of every policy, as far as the model has the networks.

    Args:
        folder: the model.
        output: folder for the pictures.
        num_images: samples; 0 draws nothing.
        device: where to draw; "" for the best one here.
        reporter: shows what is drawn.

    Raises:
        AdaNATError: if the networks are not compatible, which is better known before than after a push.
    """
    if num_images == 0 or not (folder.has("nat") and folder.has("tokenizer")):
        return CardDetails()
    steps = folder.policy_steps()
    choice = choose_schedule("", steps[0] if steps else None)
    sampler = Sampler(folder, pick_device(device))
    sampler.check_steps(choice.num_steps)
    of_text = sampler.config.condition == "text"
    prompts = _prompts(folder) if of_text else ()
    if of_text and not prompts:
        return CardDetails(absent="the model does not say which captions it was trained on.")
    try:
        conditions = sampler.conditions((), prompts, _SEED)
    except AdaNATError as error:
        if not prompts:
            raise
        reporter.warn(f"No samples are drawn for the card. {error}")
        return CardDetails(absent="the text encoder was not at hand when this card was written.")
    settled, _ = settle_schedule(choice, folder)
    policies = {}
    with reporter.task("Drawing samples for the card", 1 + len(steps), "pictures") as task:
        images = sampler.images(sampler.schedule(settled), conditions, _SEED, range(num_images))
        save_png(output / "samples.png", image_grid(images, min(_COLUMNS, num_images)))
        task.advance(1)
        for num_steps in steps:
            policies[policy_component(num_steps)] = _draw_policy(sampler, conditions, num_steps, output)
            task.advance(1)
    return CardDetails(samples="samples.png", policies=policies, prompts=prompts[:num_images])


def _prompts(folder: ModelFolder) -> tuple[str, ...]:
    """Captions that the NAT was trained on, if the model records them."""
    provenance = folder.index.provenance.get("nat")
    captions = provenance.get("captions") if isinstance(provenance, dict) else None
    return tuple(map(str, captions[:_COLUMNS])) if isinstance(captions, list) else ()


def _draw_policy(sampler: Sampler, conditions: Asked, num_steps: int, output: Path) -> tuple[str, str]:
    """Draw one policy's values over the steps, and its samples; returns the pictures' names."""
    policy = load_policy(sampler.folder, num_steps, sampler.device)
    if policy is None:
        raise RuntimeError(f"{policy_component(num_steps)} is listed and not there")
    in_order = replace(conditions, turns=conditions.turns.sort().values)
    fixed = base_schedule(policy_config(sampler.folder, num_steps))
    curves, samples = f"curves-steps-{num_steps}.png", f"samples-steps-{num_steps}.png"
    title = f"Learned values over {num_steps} steps"
    draw_policy(sampler, in_order, policy_schedule(policy), fixed, _SEED, output / samples, output / curves, title)
    return curves, samples
