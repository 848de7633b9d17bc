"""Images of a data set as a tokenizer reconstructs them, as a set to be measured: rFID, and PSNR against the originals.

Source: rFID is the reconstruction FID of the latent generators' papers, as in MaskGIT (arXiv 2202.04200).
"""

from __future__ import annotations

import json
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import torch

from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import data_config, tokenizer_config
from adanat_cli.core.config.requests import EvaluateRequest
from adanat_cli.core.data.image_source import TableSource
from adanat_cli.core.data.records import PendingImage, SkippedImages
from adanat_cli.core.data.sources import ImageSource
from adanat_cli.core.errors import require
from adanat_cli.core.tokenizer.base import Tokenizer
from adanat_cli.jobs.evaluate.feature_store import FeatureStore
from adanat_cli.jobs.evaluate.image_sets import ImageBatch, images_to_read
from adanat_cli.jobs.evaluate.real_images import choose_images, have_imagenet_ids, model_ids, read_batches
from adanat_cli.jobs.resolve.models import load_tokenizer, read_config
from adanat_cli.jobs.runtime.reporter import Reporter
from adanat_cli.jobs.tokenize.preview import reconstruct
from adanat_cli.jobs.tokenize.tokenize import check_size

USUAL_NUM_RECONSTRUCTIONS = 50_000
"""ImageNet's validation images, of which published reconstruction distances are."""


@dataclass
class Reconstructions:
    """Reconstructions of images of a data set, as an ``ImageSet``.

    Attributes:
        model: name of the tokenizer's model.
        source: the data.
        tokenizer: encodes and decodes.
        fingerprint: sha256 of its weights.
        ids: class id in the data to class id of the model; empty where they are the same, None where unknown.
        num_images: number of images, spread evenly over the data; of a stream, the first.
        num_workers: threads that decode image files.
        numbered_as_imagenet: whether the class ids of the images are ImageNet's.
    """

    model: str
    source: ImageSource
    tokenizer: Tokenizer
    fingerprint: str
    ids: Mapping[int, int] | None
    num_images: int
    num_workers: int
    numbered_as_imagenet: bool = False
    missing_labels: str = field(init=False)
    missing_prompts: str = "reconstructions are compared with images, not with prompts"

    def __post_init__(self) -> None:
        self._skipped = SkippedImages(self.source.config.max_bad, self.num_images)
        self._stream: Iterator[PendingImage] = iter(())
        self._position = self.num_images  # opened on first use
        self.missing_labels = self._why_no_labels()

    @property
    def name(self) -> str:
        """What is reconstructed, as results call it."""
        return f"{self.source.name} ({self.source.config.split}), reconstructed"

    @property
    def origin(self) -> str:
        """The model's name."""
        return self.model

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.source.config.image_size

    def batches(self, start: int, stop: int) -> Iterator[ImageBatch]:
        """Encode and decode images start … stop - 1; the decoded values are not rounded to bytes.

        Raises:
            AdaNATError: if too many images are unreadable, or a stream ends too early.
        """
        device = next(self.tokenizer.parameters()).device
        at_once = images_to_read(self.image_size, self.image_size, device)
        for batch in read_batches(self._pending(start, stop), at_once, self.num_workers, self._skipped):
            labels = None if self.missing_labels else self._own_ids(batch.labels)
            if not len(batch.images):
                yield batch._replace(labels=labels)
                continue
            images = batch.images.to(device).float().div(255)  # (B, 3, H, W)
            decoded = reconstruct(self.tokenizer, images)
            errors = (decoded - images).square().flatten(1).mean(1)
            yield ImageBatch(decoded, labels, batch.skipped, errors=errors)

    def classes(self, num_images: int) -> set[int] | None:
        """Class ids of the first images; None where they have none, or of a stream."""
        labels = None if self.missing_labels else self._data_labels(num_images)
        return None if labels is None else set(self._own_ids(labels).tolist())

    def identity(self) -> dict[str, Any]:
        """Return what decides the images, as JSON values."""
        numbering = {"class_ids_crc32": zlib.crc32(json.dumps(sorted(self.ids.items())).encode())} if self.ids else {}
        return {"tokenizer": self.fingerprint, **self.source.identity(), **numbering}

    def check_read(self, store: FeatureStore) -> dict[str, str]:
        """Return the unreadable images of all processes and runs, name to reason.

        Raises:
            AdaNATError: if there are too many of them.
        """
        skipped, num_read = store.skipped(), store.num_rows()
        self._skipped.add(skipped)
        require(num_read >= 2, f"{num_read} images of {self.source.name} can be read; a distance needs at least 2.")
        return skipped

    def _pending(self, start: int, stop: int) -> Iterator[PendingImage]:
        """The images of a range, not yet decoded."""
        total = self.source.num_images
        if total is None:
            return self._streamed(start, stop)
        return (partial(self.source.load, index) for index in self._positions(total, range(start, stop)))

    def _positions(self, total: int, indices: range) -> list[int]:
        return [index * total // self.num_images for index in indices]

    def _streamed(self, start: int, stop: int) -> Iterator[PendingImage]:
        """Read on in the stream, whose ranges are asked for in order."""
        if start < self._position:
            self._stream, self._position = self.source.pending(0, self.num_images), 0
        deque(islice(self._stream, start - self._position), maxlen=0)  # what other processes or runs read
        self._position = stop
        for image in islice(self._stream, stop - start):
            start += 1
            yield image
        require(
            start == stop,
            f"--num-samples is {self.num_images}, but the stream {self.source.name} holds {start} image(s).",
        )

    def _data_labels(self, num_images: int) -> torch.Tensor | None:
        """(n,) class ids in the data; None of a stream."""
        if not isinstance(self.source, TableSource):
            return None
        rows = self.source.rows[self._positions(self.source.num_images, range(num_images))]
        labels = torch.from_numpy(self.source.labels[rows])
        return labels[labels >= 0]

    def _own_ids(self, labels: torch.Tensor | None) -> torch.Tensor:
        """Map (n,) class ids in the data to class ids of the model; -1 where it has none."""
        labels = torch.empty(0) if labels is None else labels
        ids = [self.ids.get(label, -1) if self.ids else label for label in labels.tolist()]
        return torch.tensor(ids, dtype=torch.int64)

    def _why_no_labels(self) -> str:
        source = self.source
        if source.has_captions or source.num_classes <= 1:
            return f"{source.name} has no classes, or one"
        if self.ids is None:
            return f"the classes of {source.name} are not found among those of model {self.model}"
        labels = self._data_labels(self.num_images)
        if labels is not None and bool((self._own_ids(labels) < 0).any()):
            return f"some of the images are of classes that model {self.model} does not know"
        return ""


def open_reconstructions(
    request: EvaluateRequest, folder: ModelFolder, device: torch.device, reporter: Reporter
) -> Reconstructions:
    """Open the images, in the size of the tokenizer and by default of the model's classes, and load the tokenizer.

    Raises:
        AdaNATError: if the model has no tokenizer, the data cannot be read, or it holds fewer images.
    """
    tokenizer = read_config(folder, "tokenizer", tokenizer_config)
    size = request.data.get("image_size") or tokenizer.image_size
    check_size(size, tokenizer)
    config = data_config(request.reconstruct, **{**request.data, "image_size": size})
    source, _, chosen_ids = choose_images(config, request.classes, folder, reporter)
    ids = chosen_ids or model_ids(source, folder)
    reporter.log(source.describe())
    trained_on = folder.index.provenance.get("tokenizer", {}).get("data")
    if isinstance(trained_on, dict) and all(trained_on.get(key) == getattr(config, key) for key in ("source", "split")):
        reporter.warn(
            f"The tokenizer was trained on {source.name} ({config.split}), whose images are reconstructed; --split "
            "validation takes others where the data has them."
        )
    return Reconstructions(
        folder.title,
        source,
        load_tokenizer(folder, device, size),
        folder.fingerprint("tokenizer"),
        ids,
        _number(source, request.num_samples),
        request.workers,
        ids is not None and have_imagenet_ids(source, ids, folder),
    )


def _number(source: ImageSource, asked: int | None) -> int:
    """The number of images, which must exist as far as that is known."""
    total, where = source.num_images, f"{source.name} ({source.config.split})"
    if total is None:
        require(asked is not None, f"{where} is a stream, which is not counted; give --num-samples.")
        return asked or 0
    number = asked or min(total, USUAL_NUM_RECONSTRUCTIONS)
    require(
        2 <= number <= total, f"--num-samples is {number}, but {where} holds {total} image(s); expected 2 to {total}."
    )
    return number
