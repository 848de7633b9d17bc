"""Measure speed and memory of the feature pass of `adanat evaluate` on this machine.

    python examples/bench_features.py --protocol adm --num-images 500

The weights are random, which affects neither, so nothing is downloaded.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from adanat_cli.core.config import FeatureConfig
from adanat_cli.core.config.requests import PART_SIZE
from adanat_cli.core.data.parts import Parts
from adanat_cli.core.metrics.extraction import Extractor
from adanat_cli.core.metrics.features import FeatureNetwork
from adanat_cli.core.metrics.inception import InceptionV3
from adanat_cli.core.metrics.protocols import InceptionExtractor, SmallExtractor, TimmExtractor
from adanat_cli.jobs.evaluate.feature_pass import extract_features
from adanat_cli.jobs.evaluate.feature_store import FeatureStore
from adanat_cli.jobs.evaluate.image_sets import ImageBatch, images_to_read, parts_of
from adanat_cli.jobs.runtime.devices import start_processes
from adanat_cli.jobs.runtime.reporter import SilentReporter


class RandomImages:
    """Images of random bytes."""

    missing_labels = "they are noise"
    origin = "noise"

    def __init__(self, num_images: int, size: int, device: torch.device) -> None:
        self.num_images, self._size, self._device = num_images, size, device

    def batches(self, start: int, stop: int) -> Iterator[ImageBatch]:
        """Yield images start … stop - 1, (B, 3, H, W) bytes."""
        at_once = images_to_read(self._size, self._size, self._device)
        for first in range(start, stop, at_once):
            shape = (min(at_once, stop - first), 3, self._size, self._size)
            generator = torch.Generator().manual_seed(first)
            yield ImageBatch(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator))

    def identity(self) -> dict[str, Any]:
        """Return what identifies these images."""
        return {"noise": self._size}


def random_extractor(protocol: str, size: int, device: torch.device) -> Extractor:
    """Return an extractor with a randomly initialised network."""
    if protocol == "small":
        config = FeatureConfig(image_size=size, num_classes=1000, channels=(32, 64, 128, 256))
        return SmallExtractor(FeatureNetwork(config).eval().to(device), "random")
    if protocol.startswith("timm/"):
        import timm
        from timm.data import resolve_model_data_config

        name = protocol.removeprefix("timm/")
        network = timm.create_model(name, pretrained=False, num_classes=0).eval().to(device)
        return TimmExtractor(name, network, resolve_model_data_config(network), "random")
    if protocol not in ("adm", "paper"):
        sys.exit(f"--protocol {protocol}: expected adm, paper, small or timm/NAME")
    return InceptionExtractor("adm" if protocol == "adm" else "paper", InceptionV3().eval().to(device), "random")


def main() -> None:
    """Run one pass and print images per second, peak memory and bytes on disk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", default="adm", help="adm, paper, small or timm/NAME")
    parser.add_argument("--num-images", type=int, default=500)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--device", default="")
    options = parser.parse_args()
    processes = start_processes(options.device)
    device = processes.device
    extractor = random_extractor(options.protocol, options.image_size, device)
    images = RandomImages(options.num_images, options.image_size, device)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder, SilentReporter().task("", None) as task:
        store = FeatureStore(Path(folder), images.identity())
        parts = parts_of(images, Parts(images.num_images, PART_SIZE, processes.rank, processes.num), store.has)
        speed = extract_features(parts, store, extractor, processes, task)
        size = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 2**20 if sys.platform == "darwin" else 2**10
    threads = torch.get_num_threads()
    print(f"{options.protocol}, {images.num_images} images of {options.image_size} pixels, {device}, {threads} threads")
    print(f"{speed:.1f} images/s")
    print(f"peak memory {peak / unit:.0f} MB, of which {before / unit:.0f} MB before the pass")
    print(f"features on disk {size / images.num_images / 1024:.1f} kB an image")


if __name__ == "__main__":
    main()
