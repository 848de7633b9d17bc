"""The pictures of a model card: samples, and what each policy does beside the fixed schedule."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from adanat_cli.core.checkpoints.folder import ModelFolder, policy_component
from adanat_cli.core.config import PolicyConfig
from adanat_cli.core.policy.schedule import PolicySchedule
from adanat_cli.core.runs.classes import assign_classes
from adanat_cli.core.runs.devices import pick_device
from adanat_cli.core.runs.models import load_policy
from adanat_cli.core.runs.pictures import image_grid, save_png
from adanat_cli.core.runs.policy_pictures import draw_policy
from adanat_cli.core.runs.policy_setup import base_schedule
from adanat_cli.core.runs.policy_trainer import FrozenModel
from adanat_cli.core.runs.reporter import Reporter
from adanat_cli.core.runs.sample import Sampler, build_sampler, check_model
from adanat_cli.core.runs.schedule_choice import choose_schedule, settle_schedule

_SEED, _COLUMNS = 0, 8


@dataclass(frozen=True)
class CardPictures:
    """Names in the repository, and the files.

    Attributes:
        samples: name of the grid of samples; "" if there is none.
        policies: component of a policy -> names of the pictures of its values and of its samples.
        files: name -> file.
    """

    samples: str = ""
    policies: dict[str, tuple[str, str]] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)


def draw_pictures(folder: ModelFolder, made: Path, num_images: int, device: str, reporter: Reporter) -> CardPictures:
    """Draw what the model lets be drawn.

    Args:
        folder: the model.
        made: folder for the pictures.
        num_images: samples; 0 draws nothing.
        device: to draw on; "" for the best one here.
        reporter: told what is drawn.

    Raises:
        AdaNATError: if the networks do not belong together, which is better known before than after a push.
    """
    drawn = CardPictures()
    if num_images == 0 or not (folder.has("nat") and folder.has("tokenizer")):
        return drawn
    if folder.config("nat").get("condition") != "class":
        return drawn
    reporter.log("Drawing samples for the card.")
    steps = folder.policy_steps()
    choice = choose_schedule("", steps[0] if steps else None)
    config = check_model(folder, choice)
    settled, _ = settle_schedule(choice, folder)
    sampler = build_sampler(folder, settled, config, _SEED, pick_device(device))
    label_of = assign_classes((), folder.labels(), config.num_classes, _SEED)
    images = sampler([label_of(index) for index in range(num_images)], 0, None)
    save_png(made / "samples.png", image_grid(images, min(_COLUMNS, num_images)))
    policies = {policy_component(num_steps): _draw_policy(folder, num_steps, sampler, made) for num_steps in steps}
    names = ["samples.png", *(name for pair in policies.values() for name in pair)]
    return CardPictures("samples.png", policies, {name: made / name for name in names})


def _draw_policy(folder: ModelFolder, num_steps: int, sampler: Sampler, made: Path) -> tuple[str, str]:
    """Draw one policy's values over the steps, and its samples; returns the pictures' names."""
    component, device = policy_component(num_steps), sampler.device
    policy = load_policy(folder, num_steps, device)
    if policy is None:
        raise RuntimeError(f"{component} is listed and not there")
    labels = torch.tensor(sorted(folder.labels()) or list(range(sampler.nat.config.num_classes)), device=device)
    model = FrozenModel(sampler.nat, sampler.tokenizer, labels, sampler.precision)
    fixed = base_schedule(PolicyConfig.from_dict(folder.config(component), f"{folder.path}/{component}"))
    curves, samples = f"curves-steps-{num_steps}.png", f"samples-steps-{num_steps}.png"
    title = f"Learned values over {num_steps} steps"
    draw_policy(PolicySchedule(policy), fixed, model, _SEED, made / samples, made / curves, title)
    return curves, samples
