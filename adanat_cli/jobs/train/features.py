"""The small feature networks of a policy training: their training, their accuracy, features and moments of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import FeatureConfig
from adanat_cli.core.config.features import FEATURE_TRAINING
from adanat_cli.core.config.own_data import Scale, usual_features
from adanat_cli.core.data.batches import Batch, training_batches
from adanat_cli.core.data.captions import caption_pool, telling_words, word_targets
from adanat_cli.core.data.held_out import measured_on
from adanat_cli.core.data.records import ImageRecord, SkippedImages
from adanat_cli.core.data.sources import ImageSource
from adanat_cli.core.errors import require
from adanat_cli.core.metrics.features import FeatureNetwork
from adanat_cli.core.metrics.frechet import Moments
from adanat_cli.jobs.resolve.models import load_features
from adanat_cli.jobs.runtime.devices import images_at_once
from adanat_cli.jobs.runtime.reporter import Reporter, Task
from adanat_cli.jobs.runtime.seeding import FeatureStream, stream_seed
from adanat_cli.jobs.sample.pictures import Pixels

Images = Pixels | Tensor
"""(n, H, W, 3) bytes, or a tensor (n, 3, H, W): floats in [0, 1] or bytes."""

LARGEST_TRAINED, _LARGEST_ON_GPU = 128, 512
"""Pixels of the largest images that a small network is trained on: anywhere, and on a GPU."""
_WEIGHT_DECAY, _LABEL_SMOOTHING, _WARMUP = 0.05, 0.1, 0.05
_NUM_TURNS = 4
"""Quarter turns, which are the classes of images without classes."""
_LOG_EVERY = 25
"""Updates between two readings of the loss, each of which waits for the device."""
_MEASURING_SEED, _BACKBONE_SEED = 0, 1
_WORKERS = 2
"""Threads that decode images."""


def require_trainable(image_size: int, device: torch.device) -> None:
    """Refuse images that a small network would take hours to learn from.

    Raises:
        AdaNATError: naming the largest size.
    """
    most = LARGEST_TRAINED if device.type == "cpu" else _LARGEST_ON_GPU
    require(
        image_size <= most,
        f"The model has no features/ to measure with, and images of {image_size} pixels are too large to train a small "
        f"network on with {device.type}; expected up to {most}: run on a GPU, or take a model of smaller images.",
    )


@dataclass(frozen=True)
class SmallNetworks:
    """Loads a run's small networks, and trains those that do not exist yet.

    Attributes:
        dataset: preset or source, for the settings that go with it.
        output: run folder, which keeps new networks.
        source: real images to learn from.
        held_out: images to measure the accuracy on; None measures none.
        device: where the networks run.
        reporter: logs the training of a new one.
    """

    dataset: str
    output: Path
    source: ImageSource
    held_out: ImageSource | None
    device: torch.device
    reporter: Reporter

    def measuring(self, folder: ModelFolder) -> FeatureNetwork:
        """The network that measures: the model's own, the run's, or a new one.

        Raises:
            AdaNATError: if one has to be trained and images are too large for it, or training fails.
        """
        exported = ModelFolder(self.output / "model")
        if network := self._load(folder, exported):
            return network
        self.reporter.log("The model has no features/ to measure with.")
        return self._train(self._preset("shape"), exported, _MEASURING_SEED)

    def install(self, folder: ModelFolder, updates: int | None = None, half: bool = False) -> None:
        """Train the network that measures, by default as long as usual, and write it into the model, in half if asked.

        Raises:
            AdaNATError: if images are too large for it, or training fails.
        """
        self._train(self._preset("shape"), folder, _MEASURING_SEED, "stats", updates, half)

    def backbone(self, channels: tuple[int, ...]) -> FeatureNetwork:
        """The frozen network of a discriminator; other widths and seed keep it apart from the one that measures.

        Raises:
            AdaNATError: if images are too large for it, or training fails.
        """
        kept = ModelFolder(self.output / "discriminator")
        if network := self._load(kept):
            return network
        self.reporter.log("The discriminator's backbone is a small network of its own.")
        return self._train({"channels": channels}, kept, _BACKBONE_SEED)

    def _load(self, *folders: ModelFolder) -> FeatureNetwork | None:
        """The feature network of the first folder that has one."""
        found = (load_features(folder, self.device) for folder in folders if folder.exists())
        return next((network for network in found if network is not None), None)

    def _preset(self, part: str) -> dict[str, Any]:
        """The data set's own "shape" or "training" of the network."""
        return dict(FEATURE_TRAINING.get(self.dataset, {}).get(part, {}))

    def _train(
        self,
        shape: dict[str, Any],
        target: ModelFolder,
        seed: int,
        command: str = "train-policy",
        updates: int | None = None,
        half: bool = False,
    ) -> FeatureNetwork:
        """Train a network on classes, or on words of captions, and write it as ``features/``."""
        source, held_out, reporter = self.source, self.held_out, self.reporter
        size = source.config.image_size
        require_trainable(size, self.device)
        words = telling_words(caption_pool(source, 0)) if source.has_captions else ()
        num_classes, what = len(words) or source.num_classes, "words of captions" if words else "classes"
        if num_classes == 1:
            num_classes, what = _NUM_TURNS, "quarter turns, as images have no classes,"
        reporter.log(f"Training a small classifier of {num_classes} {what} on {source.config.source}.")
        config = FeatureConfig(image_size=size, num_classes=num_classes, **shape)
        usual = usual_features(Scale(source.num_images, self.device.type))
        training = {**usual, **self._preset("training"), **({"steps": updates} if updates else {}), "seed": seed}
        network = train_feature_network(source, config, device=self.device, reporter=reporter, words=words, **training)
        provenance: dict[str, Any] = {"command": command, "data": source.name, "training": training}
        if held_out is not None:
            with reporter.task("Measuring its accuracy", held_out.num_images, "img") as task:
                accuracy = measure_accuracy(network, held_out, words, task)
            provenance |= {"accuracy": accuracy, "measured_on": measured_on(held_out)}
            reporter.log(f"Its accuracy on {held_out.num_images} {measured_on(held_out)}: {accuracy:.1%}.")
        dtype = torch.float16 if half else None
        target.write("features", config.to_dict(), network.state_dict(), dtype, size, provenance)
        return network


def train_feature_network(
    source: ImageSource,
    config: FeatureConfig,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    device: torch.device | str,
    reporter: Reporter,
    flips: bool = True,
    words: Sequence[str] = (),
) -> FeatureNetwork:
    """Train a classifier from scratch: AdamW, linear warm-up, cosine decay to zero, label smoothing.

    Images with captions are classified by the words in them, which share a caption's probability; images without
    captions and classes by their rotation (Gidaris et al. 2018, arXiv 1803.07728).

    Args:
        source: images with labels, of the size in ``config``.
        config: shape of the network.
        steps: updates.
        batch_size: images of an update.
        learning_rate: peak learning rate, after the warm-up.
        seed: random seed of weights, order, flips and shifts.
        device: where to train.
        reporter: shows progress and loss.
        flips: whether half of the images are mirrored; not for digits and letters.
        words: words of captions, one for each output of the network; () for labels.

    Returns:
        The network in evaluation mode.

    Raises:
        AdaNATError: if images have no labels or another size, cannot be read, or training diverges.
    """
    require(steps >= 1, f"A feature network is to be trained for {steps} updates; expected at least 1.")
    require(0 < learning_rate < math.inf, f"The learning rate is {learning_rate}; expected a positive number.")
    _check_labels(source, config, words)
    with torch.random.fork_rng(devices=[]):  # weights are drawn on the CPU; the caller's randomness stays as it is
        torch.default_generator.manual_seed(stream_seed(seed, FeatureStream.WEIGHTS))
        network = FeatureNetwork(config).to(device := torch.device(device))
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=_WEIGHT_DECAY)
    batches = _targets(source, batch_size, seed, flips, words)
    warmup = max(1, round(_WARMUP * steps))
    with reporter.task("Training the feature network", steps, "updates") as task:
        for step, (pixels, labels) in zip(range(steps), batches, strict=False):
            generator = torch.Generator().manual_seed(stream_seed(seed, FeatureStream.SHIFTS, step))
            images = as_floats(random_shifts(pixels, max(1, config.image_size // 16), generator), device)
            loss = F.cross_entropy(network(images).logits, labels.to(device), label_smoothing=_LABEL_SMOOTHING)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for group in optimizer.param_groups:
                cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
                group["lr"] = learning_rate * (min((step + 1) / warmup, 1.0) * cosine)
            optimizer.step()
            task.advance(1, **(_read_loss(loss, step) if step % _LOG_EVERY == 0 or step == steps - 1 else {}))
    return network.eval()


def _targets(source: ImageSource, batch_size: int, seed: int, flips: bool, words: Sequence[str]) -> Iterator[Batch]:
    """Batches with labels (B,), or with the probabilities (B, words) of their captions' words."""
    batches = training_batches(source, batch_size, seed, num_workers=_WORKERS, flips=flips)
    if words:
        return ((batch.images, word_targets(batch.captions, words)) for batch in batches)
    if source.num_classes > 1:
        return ((batch.images, batch.labels) for batch in batches)
    return (turned(batch.images) for batch in batches)


def turned(images: Tensor) -> Batch:
    """Rotate square images (B, C, H, W) by 0, 90, 180 and 270 degrees in turn; returns them and their turns (B,)."""
    quarters = torch.arange(len(images)) % _NUM_TURNS
    return torch.stack([image.rot90(int(num), (1, 2)) for image, num in zip(images, quarters, strict=True)]), quarters


def measure_accuracy(
    network: FeatureNetwork, source: ImageSource, words: Sequence[str] = (), task: Task | None = None
) -> float:
    """Compute the fraction of readable images whose class, rotation, or one of whose words has the largest logit.

    Raises:
        AdaNATError: if images have no labels or another size, or too many cannot be read.
    """
    _check_labels(source, network.config, words)
    num_right = num = 0
    for pixels, records in _read(source, _batch_size(network)):
        images, labels = as_floats(pixels, _device(network)), [record.label for record in records]
        if not words and source.num_classes == 1:
            images, quarters = turned(images)
            labels = quarters.tolist()
        with torch.inference_mode():
            guesses = network(images).logits.argmax(1).tolist()
        for guess, label, record in zip(guesses, labels, records, strict=True):
            num_right += words[guess] in " ".join(record.captions).lower().split() if words else guess == label
        num += len(records)
        if task:
            task.advance(len(records))
    return num_right / num


def feature_moments(
    network: FeatureNetwork,
    images: ImageSource | Images,
    accelerator: Accelerator | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> Moments:
    """Moments of the features of all images, in memory that does not grow with their number.

    Args:
        network: in evaluation mode, on its device.
        images: a source, whose unreadable images are left out, or images in memory.
        accelerator: processes that share a source; each returns the moments of all of it; None for this process alone.
        advance: is told how many images are done, again and again.

    Raises:
        AdaNATError: if images have another size than the network's, or too many cannot be read.
    """
    moments, size = Moments(), _batch_size(network)
    if isinstance(images, ImageSource):
        start, stop = _share(images, accelerator)
        parts: Iterator[Images] = (pixels for pixels, _ in _read(images, size, start, stop))
    else:
        parts = (images[start : start + size] for start in range(0, len(images), size))
    for part in parts:
        moments.add(features_of_images(network, part))
        advance(len(part))
    if accelerator is None or accelerator.num_processes == 1:
        return moments
    width = network.config.feature_width  # moments do not know it where a share is empty
    own = moments.to_tensor() if moments.num else torch.zeros(1 + width * (width + 1))
    total = Moments()
    for values in accelerator.gather(own.double()[None].to(accelerator.device)):
        total.merge(values)
    return total


@torch.no_grad()
def features_of_images(network: FeatureNetwork, images: Images, batch_size: int | None = None) -> Tensor:
    """Compute (n, D) features of images, on the network's device.

    Args:
        network: in evaluation mode.
        images: (n, H, W, 3) bytes, or (n, 3, H, W) floats in [0, 1] or bytes.
        batch_size: images in one pass; None for as many as bounded memory allows.

    Raises:
        AdaNATError: if images have another size than the network's.
    """
    device, size = _device(network), batch_size or _batch_size(network)
    parts = [images[start : start + size] for start in range(0, len(images), size)]
    features = [network.features(as_floats(part, device)) for part in parts]
    return torch.cat(features) if features else torch.empty(0, network.config.feature_width, device=device)


def as_floats(images: Images, device: torch.device) -> Tensor:
    """Return (n, 3, H, W) floats in [0, 1] of images in any of the forms of ``Images``."""
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2) if isinstance(images, np.ndarray) else images
    tensor = tensor.to(device)
    return tensor.float() if tensor.is_floating_point() else tensor.float().div(255)


def random_shifts(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Move every image by up to ``most`` pixels each way, repeating the border.

    Args:
        images: (B, 3, H, W).
        most: largest shift in pixels.
        generator: on the CPU.
    """
    num, _, height, width = images.shape
    top, left = torch.randint(-most, most + 1, (2, num, 1), generator=generator)  # (B, 1) each
    rows = (top + torch.arange(height)).clamp(0, height - 1)  # (B, H)
    columns = (left + torch.arange(width)).clamp(0, width - 1)  # (B, W)
    channels_last = images.permute(0, 2, 3, 1)
    picked = channels_last[torch.arange(num)[:, None, None], rows[:, :, None], columns[:, None, :]]  # (B, H, W, 3)
    return picked.permute(0, 3, 1, 2)


def _read_loss(loss: Tensor, step: int) -> dict[str, float]:
    """The loss for the progress bar; refuses one that is not a number."""
    value = float(loss.detach())
    diverged = f"Training of the feature network diverged before update {step}: the loss is {value}"
    require(math.isfinite(value), f"{diverged}; try a lower learning rate.")
    return {"loss": value}


def _check_labels(source: ImageSource, config: FeatureConfig, words: Sequence[str]) -> None:
    name = source.config.source
    require(
        source.has_captions == bool(words),
        f"{name} has captions and no classes; the feature network learns from classes, or from words of captions.",
    )
    require(
        bool(words) or source.num_classes <= config.num_classes,
        f"{name} has {source.num_classes} classes, and the feature network {config.num_classes}; give it as many.",
    )
    require(
        source.config.image_size == config.image_size,
        f"{name} is read at {source.config.image_size} pixels, and the feature network is for {config.image_size}; "
        "read it at that size.",
    )


def _share(source: ImageSource, accelerator: Accelerator | None) -> tuple[int, int | None]:
    """This process's range of a source; the first one's is the whole of a stream."""
    if accelerator is None or accelerator.num_processes == 1:
        return 0, None
    rank, world_size = accelerator.process_index, accelerator.num_processes
    if source.num_images is None:
        return 0, 0 if rank else None
    return source.num_images * rank // world_size, source.num_images * (rank + 1) // world_size


def _read(
    source: ImageSource, batch_size: int, start: int = 0, stop: int | None = None
) -> Iterator[tuple[Pixels, list[ImageRecord]]]:
    """Yield a source's readable images in order, as (B, H, W, 3) bytes with their records."""

    def readable() -> Iterator[ImageRecord]:
        skipped = SkippedImages(source.config.max_bad, source.num_images)
        for record in source.read(start, stop, _WORKERS):
            skipped.see(record)
            if not record.error:
                yield record

    records, num_read = readable(), 0
    while batch := list(islice(records, batch_size)):
        yield np.stack([record.pixels for record in batch if record.pixels is not None]), batch
        num_read += len(batch)
    require(
        num_read > 0 or start == stop,
        f"None of the images of {source.config.source} ({source.config.split}) can be read.",
    )


def _batch_size(network: FeatureNetwork) -> int:
    return images_at_once(network.config.image_size, _device(network))


def _device(network: FeatureNetwork) -> torch.device:
    return next(network.parameters()).device
