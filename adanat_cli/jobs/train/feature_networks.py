"""The small networks of a policy training: one that measures, and another one for a discriminator to look through."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import FeatureConfig
from adanat_cli.core.config.features import FEATURE_TRAINING
from adanat_cli.core.config.own_data import Scale, usual_features
from adanat_cli.core.data.captions import caption_pool, telling_words
from adanat_cli.core.data.held_out import measured_on
from adanat_cli.core.data.sources import ImageSource
from adanat_cli.core.errors import require
from adanat_cli.core.metrics.features import FeatureNetwork
from adanat_cli.jobs.resolve.models import load_features
from adanat_cli.jobs.runtime.reporter import Reporter
from adanat_cli.jobs.train.features import NUM_TURNS, measure_accuracy, train_feature_network

LARGEST_TRAINED, _LARGEST_ON_GPU = 128, 512
"""Pixels of the largest images that a small network is trained on: anywhere, and on a GPU."""
_MEASURING_SEED, _JUDGING_SEED = 0, 1


def require_trainable(image_size: int, device: torch.device) -> None:
    """Refuse images that a small network would take hours to learn from.

    Raises:
        AdaNATError: saying which would do.
    """
    most = LARGEST_TRAINED if device.type == "cpu" else _LARGEST_ON_GPU
    require(
        image_size <= most,
        f"The model has no features/ to measure with, and images of {image_size} pixels are too large to train a small "
        f"network on with {device.type}; expected up to {most}: run on a GPU, or take a model of smaller images.",
    )


@dataclass(frozen=True)
class SmallNetworks:
    """Loads a run's small networks, and trains those that are nowhere yet.

    Attributes:
        dataset: preset or source, for the settings that go with it.
        output: run folder, which keeps new networks.
        source: real images to learn from.
        held_out: to say the accuracy on; None leaves that out.
        device: where the networks run.
        reporter: told of a new one.
    """

    dataset: str
    output: Path
    source: ImageSource
    held_out: ImageSource | None
    device: torch.device
    reporter: Reporter

    def measuring(self, folder: ModelFolder) -> FeatureNetwork:
        """The network that measures: the model's own, or the run's.

        Raises:
            AdaNATError: if one has to be trained and images are too large for it, or training fails.
        """
        exported = ModelFolder(self.output / "model")
        if features := self._load(folder, exported):
            return features
        self.reporter.log("The model has no features/ to measure with.")
        shape = FEATURE_TRAINING.get(self.dataset, {}).get("shape", {})
        return self._train(shape, exported, _MEASURING_SEED)

    def install(self, folder: ModelFolder) -> None:
        """Train the network that measures, and write it into the model itself.

        Raises:
            AdaNATError: if images are too large for it, or training fails.
        """
        shape = FEATURE_TRAINING.get(self.dataset, {}).get("shape", {})
        self._train(shape, folder, _MEASURING_SEED, "stats")

    def judging(self, channels: tuple[int, ...]) -> FeatureNetwork:
        """The network that a discriminator looks through: of widths and a seed of its own, so no part of the measure.

        Raises:
            AdaNATError: if images are too large for it, or training fails.
        """
        kept = ModelFolder(self.output / "discriminator")
        if network := self._load(kept):
            return network
        self.reporter.log("The discriminator looks through a small network of its own.")
        return self._train({"channels": channels}, kept, _JUDGING_SEED)

    def _load(self, *places: ModelFolder) -> FeatureNetwork | None:
        """The first network that is there already."""
        found = (load_features(place, self.device) for place in places if place.exists())
        return next((network for network in found if network is not None), None)

    def _train(
        self, shape: dict[str, Any], target: ModelFolder, seed: int, command: str = "train-policy"
    ) -> FeatureNetwork:
        """Train a network on classes, or on words of captions, and write it as ``features/``."""
        source, held_out, reporter = self.source, self.held_out, self.reporter
        size = source.config.image_size
        require_trainable(size, self.device)
        words = telling_words(caption_pool(source, 0)) if source.has_captions else ()
        num_classes, what = len(words) or source.num_classes, "words of captions" if words else "classes"
        if num_classes == 1:
            num_classes, what = NUM_TURNS, "quarter turns, as images have no classes,"
        reporter.log(f"Training a small classifier of {num_classes} {what} on {source.config.source}.")
        config = FeatureConfig(image_size=size, num_classes=num_classes, **shape)
        preset = FEATURE_TRAINING.get(self.dataset, {}).get("training", {})
        training = {**usual_features(Scale(source.num_images, self.device.type)), **preset, "seed": seed}
        network = train_feature_network(source, config, device=self.device, reporter=reporter, words=words, **training)
        provenance: dict[str, Any] = {"command": command, "data": source.name, "training": training}
        if held_out is not None:
            accuracy = measure_accuracy(network, held_out, words=words)
            provenance |= {"accuracy": accuracy, "measured_on": measured_on(held_out)}
            reporter.log(f"Its accuracy on {held_out.num_images} {measured_on(held_out)}: {accuracy:.1%}.")
        target.write("features", config.to_dict(), network.state_dict(), image_size=size, provenance=provenance)
        return network
