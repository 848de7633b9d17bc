"""One shard of a token set: the images of one part of the source, and their ids."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
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
    """Decode and encode the images of one shard, batch by batch."""
    unreadable: list[ImageRecord] = []

    def readable() -> Iterator[ImageRecord]:
        for record in in_order(part.pending, options.num_workers):
            skipped.see(record)
            if record.pixels is not None:
                yield record
                continue
            unreadable.append(record)
            task.advance(1, skipped=len(skipped.reasons))

    ids: list[Ids] = []
    flipped_ids: list[Ids] = []
    labels: list[int] = []
    captions: list[tuple[str, ...]] = []
    records = readable()
    while batch := list(itertools.islice(records, options.batch_size)):
        images = as_images(batch, tokenizer)
        ids.append(_encode(tokenizer, images))
        if options.flips:
            flipped_ids.append(_encode(tokenizer, images.flip(3)))
        labels.extend(record.label for record in batch)
        captions.extend(record.captions for record in batch)
        task.advance(len(batch))
    # Without a readable image N is not known here; the writer takes it from the set.
    none = [np.empty((0, 1), np.uint16)]
    return Shard(
        plan,
        start=part.start,
        stop=part.start + len(labels) + len(unreadable),
        skipped={record.name: record.error for record in unreadable},
        tokens=np.concatenate(ids or none),
        tokens_flipped=np.concatenate(flipped_ids or none) if options.flips else None,
        labels=np.array(labels, np.int64),
        captions=captions,
        skipped_at=[record.index for record in unreadable],
    )


def is_repaired(header: ShardHeader, source: ImageSource) -> bool:
    """Whether an image that a shard had to skip can be read now; never for a stream, which has no random access."""
    if not header.skipped or source.num_images is None:
        return False
    indices = range(header.start, header.stop) if header.skipped_at is None else header.skipped_at
    records = (source.load(index) for index in indices if header.start <= index < header.stop)
    return any(record.pixels is not None and record.name in header.skipped for record in records)


def as_images(records: list[ImageRecord], tokenizer: Tokenizer) -> Tensor:
    """Return readable records as (B, 3, H, W) floats in [0, 1] on the device of the tokenizer."""
    device = next(tokenizer.parameters()).device
    pixels = torch.from_numpy(np.stack([record.pixels for record in records if record.pixels is not None]))
    return pixels.to(device).permute(0, 3, 1, 2).float().div(255)


def _encode(tokenizer: Tokenizer, images: Tensor) -> Ids:
    with torch.inference_mode():
        ids = tokenizer.encode(images)  # (B, N)
    return ids.cpu().numpy().astype(np.uint16)
