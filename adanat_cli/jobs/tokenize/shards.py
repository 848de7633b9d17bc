"""One shard of a token set: the images of one part of the source, and their ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adanat_cli.core.config.requests import TokenizeOptions
from adanat_cli.core.data.parts import SourcePart
from adanat_cli.core.data.records import ImageRecord, SkippedImages, in_order
from adanat_cli.core.data.sources import ImageSource
from adanat_cli.core.data.token_shards import Ids, Shard, ShardHeader
from adanat_cli.core.tokenizer.base import Tokenizer
from adanat_cli.jobs.runtime.devices import images_at_once
from adanat_cli.jobs.runtime.reporter import Task


def shard_name(number: int, num_parts: int | None) -> str:
    """File name of the shard of a part."""
    of = "" if num_parts is None else f"-of-{num_parts:05d}"
    return f"tokens-{number:05d}{of}.parquet"


def encode_shard(
    part: SourcePart,
    tokenizer: Tokenizer,
    plan: Mapping[str, Any],
    options: TokenizeOptions,
    skipped: SkippedImages,
    task: Task,
) -> Shard:
    """Decode and encode the images of one shard."""
    rows = _Rows(tokenizer, options.flips)
    device = next(tokenizer.parameters()).device
    batch: list[ImageRecord] = []
    bad: dict[str, str] = {}
    bad_at: list[int] = []
    num_read = 0
    for record in in_order(part.pending, options.num_workers):
        num_read += 1
        skipped.see(record)
        if record.pixels is None:
            bad[record.name] = record.error
            bad_at.append(record.index)
            task.advance(1, skipped=len(skipped.reasons))
            continue
        batch.append(record)
        if len(batch) == (options.batch_size or images_at_once(record.pixels.shape[0], device)):
            rows.add(batch)
            task.advance(len(batch))
            batch = []
    if batch:
        rows.add(batch)
        task.advance(len(batch))
    return rows.shard(plan, part.start, part.start + num_read, bad, bad_at)


def is_repaired(header: ShardHeader, source: ImageSource) -> bool:
    """Whether an image that a shard had to skip can be read now; never for a stream, which has no random access."""
    if not header.skipped or source.num_images is None:
        return False
    indices = range(header.start, header.stop) if header.skipped_at is None else header.skipped_at
    records = (source.load(index) for index in indices if header.start <= index < header.stop)
    return any(record.pixels is not None and record.name in header.skipped for record in records)


class _Rows:
    """Collects the rows of a shard, batch by batch."""

    def __init__(self, tokenizer: Tokenizer, flips: bool) -> None:
        self._tokenizer, self._flips = tokenizer, flips
        self._ids: list[Ids] = []
        self._flipped_ids: list[Ids] = []
        self._labels: list[int] = []
        self._captions: list[tuple[str, ...]] = []

    def add(self, records: list[ImageRecord]) -> None:
        """Encode one batch of readable images."""
        images = as_images(records, self._tokenizer)
        self._ids.append(_encode(self._tokenizer, images))
        if self._flips:
            self._flipped_ids.append(_encode(self._tokenizer, images.flip(3)))
        self._labels.extend(record.label for record in records)
        self._captions.extend(record.captions for record in records)

    def shard(
        self, plan: Mapping[str, Any], start: int, stop: int, skipped: dict[str, str], skipped_at: list[int]
    ) -> Shard:
        """Return the collected rows as the shard of positions start … stop - 1."""
        # Without a readable image N is not known here; the writer takes it from the set.
        none = np.empty((0, 1), np.uint16)
        flipped = (np.concatenate(self._flipped_ids) if self._flipped_ids else none) if self._flips else None
        ids = np.concatenate(self._ids) if self._ids else none
        labels = np.array(self._labels, np.int64)
        return Shard(plan, start, stop, skipped, ids, flipped, labels, self._captions, skipped_at)


def as_images(records: list[ImageRecord], tokenizer: Tokenizer) -> Tensor:
    """Return readable records as (B, 3, H, W) floats in [0, 1] on the device of the tokenizer."""
    device = next(tokenizer.parameters()).device
    pixels = torch.from_numpy(np.stack([record.pixels for record in records if record.pixels is not None]))
    return pixels.to(device).permute(0, 3, 1, 2).float().div(255)


def _encode(tokenizer: Tokenizer, images: Tensor) -> Ids:
    with torch.inference_mode():
        ids = tokenizer.encode(images)  # (B, N)
    return ids.cpu().numpy().astype(np.uint16)
