"""The four rewards in one form: scores of generated images, and what each learns on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from adanat_cli.core.config import DiscriminatorConfig, FeatureConfig, PolicyTrainingConfig
from adanat_cli.core.config.settings import PolicySettings
from adanat_cli.core.errors import require
from adanat_cli.core.metrics.extraction import Pooled
from adanat_cli.core.metrics.features import FeatureNetwork
from adanat_cli.core.metrics.frechet import FrechetReference, frechet_distances
from adanat_cli.core.metrics.influence import frechet_influence
from adanat_cli.core.rewards.adversarial import STATS, AdversarialReward
from adanat_cli.core.rewards.backbones import (
    DINO,
    ClassifierBackbone,
    EfficientNetBackbone,
    VisionTransformerBackbone,
    require_efficientnet,
    require_transformer,
)
from adanat_cli.core.rewards.projected import ProjectedDiscriminator
from adanat_cli.core.rewards.pyramid import PyramidDiscriminator
from adanat_cli.core.rewards.recognition import RecognitionReward
from adanat_cli.jobs.sample.conditions import PromptConditions
from adanat_cli.jobs.train.policy_setup import Setup

LabelledImages = tuple[Tensor, Tensor]
"""(B, 3, H, W) in [0, 1] and their condition (B,): labels, or numbers of prompts."""
Stats = dict[str, float]


class PolicyReward(Protocol):
    """Scores a whole rollout of this process, and may learn from it."""

    def score(self, images: Iterable[LabelledImages], generator: torch.Generator) -> Tensor:
        """Return (B,) rewards of batches of images; the generator, on the CPU, serves what is random in it."""

    def learn(self, pairs: Iterable[tuple[LabelledImages, LabelledImages]], generator: torch.Generator) -> Stats:
        """Take one update for each pair of real and generated images; returns the means of its statistics.

        Real images come with what a discriminator reads: their labels, or the embeddings of their captions (B, E).
        """

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""


@dataclass
class Adversarial:
    """The adversarial reward on one or several processes.

    Attributes:
        reward: discriminator and its optimizer.
        module: the discriminator without its distributed wrapper.
        backward: computes the gradients of a loss.
        embed: maps labels, or numbers of prompts (B,), to the condition of the discriminator.
    """

    reward: AdversarialReward
    module: ProjectedDiscriminator | PyramidDiscriminator
    backward: Callable[[Tensor], object]
    embed: Callable[[Tensor], Tensor]

    def score(self, images: Iterable[LabelledImages], generator: torch.Generator) -> Tensor:
        """Return (B,) rewards."""
        return torch.cat([self.reward.score(batch, self.embed(labels), generator) for batch, labels in images])

    def learn(self, pairs: Iterable[tuple[LabelledImages, LabelledImages]], generator: torch.Generator) -> Stats:
        """Train the discriminator."""
        stats = [
            self.reward.update(real, (fake, self.embed(labels)), generator, self.backward)
            for real, (fake, labels) in pairs
        ]
        return dict(zip(STATS, torch.stack(stats).mean(0).tolist(), strict=False)) if stats else {}

    def state_dict(self) -> dict[str, Any]:
        """Discriminator, without a frozen backbone, and optimizer."""
        module = self.module
        weights = module.trainable_state() if isinstance(module, ProjectedDiscriminator) else module.state_dict()
        return {"discriminator": weights, "optimizer": self.reward.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        if isinstance(self.module, ProjectedDiscriminator):
            self.module.load_trainable_state(state["discriminator"])
        else:
            self.module.load_state_dict(state["discriminator"])
        self.reward.optimizer.load_state_dict(state["optimizer"])


class _Fixed:
    """A reward that does not learn."""

    def learn(self, pairs: Iterable[tuple[LabelledImages, LabelledImages]], generator: torch.Generator) -> Stats:
        """Do nothing."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Nothing changes."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing changes."""


def check_groups(training: PolicyTrainingConfig, num_processes: int = 1) -> None:
    """Refuse trajectories that do not make whole groups for a distance of batches, before any are collected.

    Raises:
        AdaNATError: if they do not.
    """
    share = training.trajectories // num_processes
    require(
        training.reward != "fid" or training.fid_credit != "batch" or share % training.fid_group == 0,
        f"{share} trajectories per process cannot be split into groups of {training.fid_group} for the batch-level "
        "distance; choose a multiple with --trajectories.",
    )


@dataclass
class Frechet(_Fixed):
    """Minus the Fréchet distance of a rollout, credited to its images.

    Attributes:
        features: network whose features are compared.
        reference: moments of real images.
        group: 0 credits each image with the change of the distance that it causes; otherwise N images in a row
            share their group's negated distance (the paper's baseline).
        gather: concatenates the rows of all processes.
        rank: index of this process, and of its rows among those of all.
    """

    features: Pooled
    reference: FrechetReference
    group: int
    gather: Callable[[Tensor], Tensor]
    rank: int

    @torch.no_grad()
    def score(self, images: Iterable[LabelledImages], generator: torch.Generator) -> Tensor:
        """Return (B,) rewards."""
        features = torch.cat([self.features.features(batch) for batch, _ in images])  # (B, D)
        if self.group:
            grouped = features.unflatten(0, (-1, self.group))
            distances = frechet_distances(grouped, self.reference)
            return -distances.repeat_interleave(self.group).to(features)
        gathered = self.gather(features)
        rewards = -frechet_influence(gathered, self.reference)
        return rewards[self.rank * len(features) :][: len(features)].to(features)


@dataclass
class Pretrained(_Fixed):
    """The score of a network that was trained elsewhere: for (B, 3, H, W) images and their conditions (B,)."""

    scorer: Callable[[Tensor, Tensor], Tensor]

    @torch.no_grad()
    def score(self, images: Iterable[LabelledImages], generator: torch.Generator) -> Tensor:
        """Return (B,) rewards."""
        return torch.cat([self.scorer(*batch) for batch in images])


def choose_reward(request: PolicySettings, setup: Setup, accelerator: Accelerator) -> PolicyReward:
    """Build the reward that the settings name."""
    config, nat, conditions = request.training, setup.model.config, setup.conditions
    if config.reward == "fid":
        group = config.fid_group if config.fid_credit == "batch" else 0
        return Frechet(setup.features, setup.reference, group, accelerator.gather, accelerator.process_index)
    if config.reward == "preference":
        from adanat_cli.core.rewards.preference import PreferenceReward  # needs the extra `text`

        if isinstance(conditions, PromptConditions):
            scorer, texts = PreferenceReward(request.preference_model, device=accelerator.device), conditions.texts
            return Pretrained(lambda images, numbers: scorer.score(images, texts(numbers)))
        names = setup.folder.labels()
        prompts = [names.get(label, str(label)) for label in range(nat.num_classes)]
        return Pretrained(PreferenceReward(request.preference_model, prompts, accelerator.device).score)
    if config.reward == "recognition":
        return Pretrained(RecognitionReward(accelerator.device).score)
    size = setup.model.tokenizer.config.image_size
    text_width = conditions.encoder.pooled_width if isinstance(conditions, PromptConditions) else 0
    num_classes = 0 if text_width else nat.num_classes
    classifier = None
    if request.discriminator.backbone == "classifier":
        with accelerator.main_process_first():
            classifier = setup.networks.backbone(request.discriminator.channels)
    torch.manual_seed(config.seed)  # from which the discriminator's weights follow
    discriminator = make_discriminator(request.discriminator, size, num_classes, text_width, classifier)
    discriminator = discriminator.to(accelerator.device)
    crop_size = discriminator.backbone.crop_size if isinstance(discriminator, ProjectedDiscriminator) else 0
    reward = AdversarialReward(accelerator.prepare_model(discriminator), request.discriminator, crop_size)
    return Adversarial(reward, discriminator, accelerator.backward, conditions.embed)


def require_discriminator(config: DiscriminatorConfig) -> None:
    """Refuse a discriminator whose weights cannot be had; nothing is downloaded.

    Raises:
        AdaNATError: saying why.
    """
    name = config.backbone.partition("=")[0]
    if name == "dino":
        require_transformer(_transformer_of(config))
    if name == "efficientnet":
        require_efficientnet()


def make_discriminator(
    config: DiscriminatorConfig,
    image_size: int,
    num_classes: int,
    text_width: int,
    classifier: FeatureNetwork | None = None,
    pretrained: bool = True,
) -> ProjectedDiscriminator | PyramidDiscriminator:
    """Build a discriminator of images and their condition, with weights from PyTorch's global generator.

    Args:
        config: backbone and widths.
        image_size: side of the images in pixels.
        num_classes: number of classes of the condition; 0 for text.
        text_width: E, width of the pooled embeddings of the condition; 0 for classes.
        classifier: trained backbone of the discriminator "classifier"; None for a random one.
        pretrained: False leaves a transformer random, and EfficientNet without weights: neither needs its file.

    Raises:
        AdaNATError: if the backbone cannot be had.
    """
    name = config.backbone.partition("=")[0]
    if name == "pyramid":
        return PyramidDiscriminator(image_size, num_classes, text_width, config.width)
    if name == "dino":
        transformer = VisionTransformerBackbone(_transformer_of(config), pretrained)
        return ProjectedDiscriminator(transformer, num_classes, text_width)
    if name == "efficientnet":
        lite = EfficientNetBackbone(config.resolution, pretrained)
        return ProjectedDiscriminator(lite, num_classes, text_width, config.width)
    network = classifier or FeatureNetwork(FeatureConfig(image_size, max(num_classes, 2), config.channels))
    backbone = ClassifierBackbone(network, config.channels)
    return ProjectedDiscriminator(backbone, num_classes, text_width, config.width)


def _transformer_of(config: DiscriminatorConfig) -> str:
    """The transformer's name in timm, with the file of its weights if one is named."""
    file = config.backbone.partition("=")[2]
    return f"{DINO}={file}" if file else DINO
