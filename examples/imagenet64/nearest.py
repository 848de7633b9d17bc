"""Does a model draw its training images again? Generated images beside the nearest real ones of the same class.

    python examples/imagenet64/nearest.py MODEL DATA [--images 200] [--steps 8] [--output nearest.png]

MODEL is a folder or name, DATA the folder of Parquet files that it was trained on. Images are compared in the features
of EfficientNet-Lite1, and training images also mirrored, as the NAT saw them. The picture shows the pairs with the
smallest distances. The median of these distances stands beside that of the validation images, which no training saw:
where the ratio of the two is far below 1, the model repeats what it was trained on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from adanat_cli.commands.console import ConsoleReporter
from adanat_cli.core.config import data_config
from adanat_cli.core.data.records import SkippedImages
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.metrics.extraction import Extractor
from adanat_cli.jobs.evaluate.image_sets import images_to_read
from adanat_cli.jobs.evaluate.real_images import Chosen, choose_images, read_batches
from adanat_cli.jobs.resolve.classes import short_name
from adanat_cli.jobs.resolve.extractors import load_extractor
from adanat_cli.jobs.resolve.models import resolve_model
from adanat_cli.jobs.resolve.schedules import choose_schedule, settle_schedule
from adanat_cli.jobs.runtime.devices import Processes, start_processes
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample.pictures import Pixels, image_grid, plot_text, save_figure
from adanat_cli.jobs.sample.sampler import Sampler

_COLUMNS = 8


class Nearest(NamedTuple):
    """The nearest of the images that were seen so far.

    Attributes:
        distances: (n,), Euclidean; infinite where no image of the class was seen.
        indices: (n,), numbers of these images.
    """

    distances: Tensor
    indices: Tensor

    def with_batch(self, distances: Tensor, first: int) -> Nearest:
        """Look at (n, B) distances to images ``first``, ``first`` + 1, …, too."""
        closest = distances.min(1)
        is_closer = closest.values < self.distances
        return Nearest(
            torch.where(is_closer, closest.values, self.distances),
            torch.where(is_closer, closest.indices + first, self.indices),
        )


def real_features(chosen: Chosen, extractor: Extractor, processes: Processes) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Yield (2 B, D) features of batches of images and of their mirror images, (B,) classes, and the first's number."""
    source, first = chosen.source, 0
    size = source.config.image_size
    skipped = SkippedImages(0.0, source.num_images)  # numbers would not fit if images were left out
    at_once = min(64, images_to_read(size, size, processes.device))
    with ConsoleReporter().task(f"Looking at {source.config.split} images", source.num_images, "images") as task:
        for batch in read_batches(source.pending(), at_once, 2, skipped):
            assert batch.labels is not None
            both = torch.cat([batch.images, batch.images.flip(3)])
            yield features_of(both, extractor), chosen.own_ids(batch.labels), first
            first += len(batch.images)
            task.advance(len(batch.images))


def features_of(images: Tensor, extractor: Extractor) -> Tensor:
    """Return (n, D) features, a few images at a time."""
    return torch.cat([extractor(part).features.cpu() for part in images.split(8)])


def find_nearest(
    features: Tensor, labels: Tensor, training: Chosen, extractor: Extractor, processes: Processes
) -> Nearest:
    """Find the nearest training image of the same class for images with (n, D) features and (n,) classes."""
    found = Nearest(torch.full((len(labels),), torch.inf), torch.zeros(len(labels), dtype=torch.int64))
    for real, classes, first in real_features(training, extractor, processes):
        distances = torch.cdist(features, real).unflatten(1, (2, len(classes))).amin(1)  # (n, B)
        found = found.with_batch(distances.masked_fill(labels[:, None] != classes, torch.inf), first)
    return found


def generate(options: argparse.Namespace, processes: Processes) -> tuple[Pixels, Tensor]:
    """Draw images (n, H, W, 3); return them with their (n,) classes."""
    sampler = Sampler(resolve_model(options.model), processes.device)
    choice, _ = settle_schedule(choose_schedule(options.schedule, options.steps), sampler.folder)
    conditions = sampler.conditions((), (), options.seed)
    images = sampler.images(sampler.schedule(choice), conditions, options.seed, range(options.images))
    return images, conditions.numbers(range(options.images))


def run(options: argparse.Namespace) -> dict[str, float]:
    """Compare, draw, and return the medians."""
    require(options.images >= 1, f"--images is {options.images}; expected at least 1.")
    processes, folder = start_processes(options.device), resolve_model(options.model)
    extractor = load_extractor("efficientnet", processes)
    training, validation = (
        choose_images(data_config("imagenet64", data_dir=options.data, split=split), (), folder, SilentReporter())
        for split in ("train", "validation")
    )
    images, labels = generate(options, processes)
    features, classes = [features_of(torch.from_numpy(images).permute(0, 3, 1, 2), extractor)], [labels]
    for both, real_classes, _ in real_features(validation, extractor, processes):
        features.append(both[: len(real_classes)])
        classes.append(real_classes)
    found = find_nearest(torch.cat(features), torch.cat(classes), training, extractor, processes)
    of_samples, of_validation = (part.median().item() for part in found.distances.tensor_split([len(labels)]))
    medians = {"samples": of_samples, "validation": of_validation, "ratio": of_samples / of_validation}
    chosen = found.distances[: len(labels)].argsort()[: options.pairs]
    records = map(training.source.load, found.indices[chosen].tolist())
    real = np.stack([record.pixels for record in records if record.pixels is not None])
    names = [
        f"{short_name(folder.labels().get(label, str(label)))}, {distance:.2g}"
        for label, distance in zip(labels[chosen].tolist(), found.distances[chosen].tolist(), strict=True)
    ]
    title = (
        f"Generated images above training images, the {len(chosen)} nearest of {len(labels)}\n"
        f"median distance {of_samples:.3g}, of validation images {of_validation:.3g}"
    )
    draw_pairs(options.output, images[chosen.numpy()], real, names, title)
    return medians


def draw_pairs(path: Path, above: Pixels, below: Pixels, names: list[str], title: str) -> None:
    """Draw pairs of images, eight to a row, each under its name."""
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(1.25 * columns, 2.6 * rows + 0.5), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_axis_off()
    for axes, pair, name in zip(panels, zip(above, below, strict=True), names, strict=False):
        axes.imshow(image_grid(np.stack(pair), 1), interpolation="nearest")
        axes.set_title(plot_text(name), fontsize=7)
    figure.suptitle(title, fontsize=9)
    save_figure(path, figure, dpi=120)


def main() -> None:
    """Read the command line, and print the medians as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=200, help="images to generate")
    parser.add_argument("--pairs", type=int, default=24, help="pairs to draw")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--schedule", default="", help="by default learned, where the model has a policy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("nearest.png"))
    parser.add_argument("--device", default="")
    try:
        print(json.dumps(run(parser.parse_args())))
    except AdaNATError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
