"""Configuration of policy training: PPO, exploration, and the reward."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from adanat_cli.core.config import shared
from adanat_cli.core.config.acting import FID, REWARDS
from adanat_cli.core.config.base import MAX_IMAGE_SIZE, Bounds, Config, Count, Natural, NotNegative, Positive, Seed
from adanat_cli.core.config.option import option
from adanat_cli.core.config.training import Precision
from adanat_cli.core.errors import AdaNATError, require

AUGMENTATIONS = ("color", "translation", "cutout")
"""Names of DiffAugment's policies (arXiv 2006.10738)."""
RewardName = Literal["adversarial", "fid", "preference", "recognition"]

_training, _reward = partial(option, panel="Training"), partial(option, panel="Reward")


@dataclass(frozen=True)
class PPOConfig(Config):
    """Proximal policy optimisation of the generation policy.

    The defaults are ours; ``RECIPES["paper"]`` holds the reference's values.

    Attributes:
        epochs: passes over the rollout per update.
        minibatch: rows (trajectory x step) of one optimizer step over all processes; 0 takes the whole rollout.
        static_learning_rate: learning rate of Adam for a static policy, whose parameters are the raw actions.
        clip: clipping range of the probability ratio, which stays in [1 - clip, 1 + clip].
        value_weight, entropy_weight: weights of the value loss and of the entropy bonus.
        baseline: what rewards are compared with: the mean of the sample's "class" within the update, of its "pair" (see
            ``PolicyTrainingConfig.paired``), or "none".
        normalize_advantages: bring advantages to mean 0 and standard deviation 1 over the update.
        std, std_decay, std_milestones, std_floor: exploration in raw action space; the deviation falls by
            ``std_decay`` at every milestone (in updates), down to the floor.
        gradient_norm: gradients are scaled down to this norm; 0 for no limit.
    """

    noun: ClassVar[str] = "PPO"
    epochs: Count = 4
    minibatch: Natural = 1024
    learning_rate: Positive = _training(3e-4, help="Learning rate of Adam for policy and critic.")
    static_learning_rate: Positive = 0.02
    clip: Positive = 0.2
    value_weight: NotNegative = 0.5
    entropy_weight: NotNegative = 0.01
    baseline: Literal["class", "pair", "none"] = "class"
    normalize_advantages: bool = True
    std: Positive = 0.6
    std_decay: NotNegative = 0.3
    std_milestones: tuple[int, ...] = ()
    std_floor: Positive = 0.1
    gradient_norm: NotNegative = 1.0

    def std_at(self, update: int) -> float:
        """Exploration's standard deviation at an update, counted from 0."""
        passed = sum(update >= milestone for milestone in self.std_milestones)
        return max(self.std - self.std_decay * passed, self.std_floor)


@dataclass(frozen=True)
class DiscriminatorConfig(Config):
    """The adversarial reward.

    Attributes:
        warmup_updates: discriminator updates before the first policy update, so that the first rewards mean something.
        beta1, beta2: beta1 and beta2 of Adam.
        loss: "bce" (binary cross-entropy) or "hinge".
        reward: "sigmoid" of the mean logit as in the paper, or the mean "logit" itself, which never saturates.
        real: "reconstructed" shows real images as the tokenizer decodes them, so that real and
            generated images differ only in what the policy can change; "original" shows them unchanged, as in the
            paper.
        reuse_rollouts: train on the trajectories collected for PPO; otherwise new ones are generated.
        augment: policies of DiffAugment for real and generated images, comma-separated; "" for none.
        width: channels of the pyramid's first level; with a classifier or efficientnet, width of the label's embedding.
        channels: channels of the classifier at each of its resolutions.
        resolution: side in pixels to which smaller images are enlarged for efficientnet.
    """

    noun: ClassVar[str] = "Discriminator"
    backbone: str = _reward(
        "dino",
        "--discriminator",
        help="dino (frozen ViT-S/16), dino=FILE.safetensors, efficientnet (the same heads on EfficientNet-Lite0), "
        "classifier (on a small network of the data's own images), or pyramid (trained from scratch).",
    )
    updates: Count = _reward(5, "--discriminator-updates", help="Discriminator updates per policy update.")
    warmup_updates: Natural = 0
    batch_size: Count = _reward(
        128, "--discriminator-batch", help="Real images per discriminator update; as many generated ones are added."
    )
    learning_rate: Positive = _reward(
        1e-4,
        "--discriminator-rate",
        help="Learning rate of the discriminator.",
        show_default="0.0001; 0.002 for efficientnet",
    )
    beta1: float = 0.5
    beta2: float = 0.999
    loss: Literal["bce", "hinge"] = "bce"
    reward: Literal["sigmoid", "logit"] = "logit"
    real: Literal["reconstructed", "original"] = "reconstructed"
    reuse_rollouts: bool = True
    mismatched: Annotated[float, Bounds(0, below=1)] = _reward(
        0.0,
        help="Share of the discriminator's generated images to replace by real ones with a wrong class or caption, so "
        "that it learns to look at the condition.",
        show_default="0; 0.5 for efficientnet",
    )
    augment: str = _reward("", help="DiffAugment for the discriminator, comma-separated: color, translation, cutout.")
    width: Count = 64
    channels: tuple[int, ...] = (32, 64, 96)
    resolution: Annotated[int, Bounds(64, MAX_IMAGE_SIZE)] = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        name, _, _ = self.backbone.partition("=")
        require(
            name == "dino" or self.backbone in ("efficientnet", "classifier", "pyramid"),
            f"Discriminator {self.backbone!r} is not known; expected dino, dino=FILE.safetensors, efficientnet, "
            "classifier or pyramid.",
        )
        for word in filter(None, self.augment.split(",")):
            require(
                word.strip() in AUGMENTATIONS,
                f"Augmentation {word.strip()!r} is not known; expected some of {', '.join(AUGMENTATIONS)}, separated "
                "by commas.",
            )


@dataclass(frozen=True)
class PolicyTrainingConfig(Config):
    """One training of a policy; PPO's and the discriminator's settings are kept beside it.

    Attributes:
        fid_credit: for the reward "fid", "sample" gives each image the change of the distance that it causes
            (the distance's influence function); "batch" gives all images of a group their negated distance.
        fid_group: number of images of one such group.
        flip: whether half of the real images are shown flipped, as the NAT saw them.
    """

    updates: Count = _training(1000, help="Policy updates, or generations of a search.")
    trajectories: Count = _training(
        1024, help="Images generated per update, over all processes, or per candidate of a search."
    )
    reward: RewardName = option(
        "adversarial",
        help="Reward: adversarial (a discriminator trained alongside the policy), fid (the image's share of the "
        "Fréchet distance), preference (an image-text model) or recognition (log-probability of the class under "
        "EfficientNet-Lite0, for ImageNet's classes; rewards how recognisable images are, not how diverse).",
        show_default="adversarial",
        acts_on=REWARDS,
    )
    fid_credit: Literal["sample", "batch"] = _reward(
        "sample",
        help="sample: each image gets its own share of the distance; batch: all share it.",
        acts_on=frozenset({FID}),
        purpose="is for --reward fid",
    )
    fid_group: Annotated[int, Bounds(2)] = 128
    paired: bool = _training(
        False,
        "--paired/--no-paired",
        help="Generate trajectories in pairs of the same class and noise that explore in opposite directions.",
    )
    rollout: Literal["bf16", "fp32", "recompute"] = _training(
        "bf16",
        "--keep-features",
        former=("--rollout",),
        help="How the NAT's features are kept for PPO's epochs: as bf16 or fp32, or recomputed.",
    )
    batch_size: Count = _training(128, help="Images to generate at a time, per process.")
    eval_images: Annotated[int, Bounds(2)] = _training(5000, help="Images to generate per evaluation.")
    flip: bool = True
    seed: Seed = shared.seed(show_default="0")
    precision: Precision = shared.precision(show_default="auto")
    eval_every: Count = _training(20, help="Evaluate every N updates.")
    show_every: Count = _training(20, help="Draw pictures every N updates.")
    save_every: Count = _training(20, help="Save the state every N updates.")


PROJECTED_REWARD: dict[str, Any] = {"learning_rate": 2e-3, "warmup_updates": 100, "mismatched": 0.5}
"""Settings of ``DiscriminatorConfig`` that suit its backbone efficientnet, before those of any data set; the paper's
recipe stays as it is."""

Recipe = dict[str, dict[str, Any]]
"""Settings that differ from the defaults: "training", "ppo", "discriminator" and "policy" (the network's shape)."""

RECIPES: dict[str, Recipe] = {
    "default": {"policy": {"base_floor": 0.1}},
    "paper": {
        "training": {"updates": 1000, "trajectories": 4096, "fid_credit": "batch", "rollout": "fp32"},
        "ppo": {
            "epochs": 5,
            "minibatch": 0,
            "learning_rate": 1e-5,
            "baseline": "none",
            "normalize_advantages": False,
            "std_milestones": (500,),
            "gradient_norm": 0.0,
        },
        "discriminator": {"reward": "sigmoid", "real": "original", "reuse_rollouts": False},
        "policy": {"residual": False},
    },
    "digits": {
        "training": {
            "updates": 24,
            "trajectories": 256,
            "paired": True,
            "flip": False,
            "eval_images": 1000,
            "eval_every": 3,
            "show_every": 12,
            "save_every": 6,
        },
        "ppo": {"minibatch": 512, "baseline": "pair", "learning_rate": 1e-3, "std": 0.8},
        "discriminator": {"backbone": "classifier", "learning_rate": 1e-3, "warmup_updates": 50},
        "policy": {"hidden_width": 128, "base_floor": 0.1},
    },
    "imagenet64": {
        "training": {
            "updates": 30,
            "trajectories": 256,
            "paired": True,
            "eval_images": 1000,
            "eval_every": 5,
            "show_every": 10,
            "save_every": 5,
        },
        "ppo": {"minibatch": 512, "baseline": "pair", "learning_rate": 1e-3, "std": 0.4},
        "discriminator": {"backbone": "pyramid", "learning_rate": 5e-4, "warmup_updates": 100, "updates": 10},
        "policy": {"hidden_width": 128, "base_floor": 0.1},
    },
}
"""Recipes by name: ``default``, the ``paper``'s, and settings for data sets of small images that a laptop finishes."""


def recipe(name: str, dataset: str) -> Recipe:
    """Resolve ``--recipe``: "auto" is the data set's own, else the default one.

    Raises:
        AdaNATError: if no recipe has this name.
    """
    if name == "auto":
        return RECIPES.get(dataset, RECIPES["default"])
    if name not in RECIPES:
        raise AdaNATError(f"Recipe {name!r} is not known; expected auto, {', '.join(RECIPES)}.")
    return RECIPES[name]
