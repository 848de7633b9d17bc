"""``adanat tokenize``: the token ids of a whole data set, in shards that survive a kill."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adanat_cli.core.checkpoints.files import check_picture, check_writable
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.checkpoints.token_identity import tokens_fingerprint
from adanat_cli.core.config import BENCHMARKS, DATA_PRESETS, DataConfig, TokenizerConfig, data_config, tokenizer_config
from adanat_cli.core.config.requests import TokenizeOptions, TokenizeRequest
from adanat_cli.core.data.parts import Parts
from adanat_cli.core.data.records import SkippedImages
from adanat_cli.core.data.sources import ImageSource, open_source
from adanat_cli.core.data.token_shards import ShardHeader, TokenSetInfo
from adanat_cli.core.errors import require
from adanat_cli.core.text.encoder import TextEncoder
from adanat_cli.core.tokenizer.base import Tokenizer
from adanat_cli.core.tokenizer.build import build_tokenizer
from adanat_cli.jobs.resolve.classes import find_classes
from adanat_cli.jobs.resolve.images import describe_own, look_at_own
from adanat_cli.jobs.resolve.models import is_absent, load_tokenizer, missing_parts, resolve_model
from adanat_cli.jobs.resolve.text_encoders import load_encoder, recorded_name, usual_encoder
from adanat_cli.jobs.runtime.devices import Processes, images_at_once, start_processes
from adanat_cli.jobs.runtime.gpu_hours import gpu_hours
from adanat_cli.jobs.runtime.operations import planned_operations, without_memory
from adanat_cli.jobs.runtime.output_lock import holds_output
from adanat_cli.jobs.runtime.reporter import Reporter, SilentReporter
from adanat_cli.jobs.tokenize.preview import save_reconstructions
from adanat_cli.jobs.tokenize.shards import encode_shard, is_repaired, shard_name
from adanat_cli.jobs.tokenize.token_folder import TokenFolder


@dataclass(frozen=True)
class TokenizeResult:
    """What a finished run returns: numbers of the whole set, and what this run added to it."""

    output: str
    num_images: int
    num_shards: int
    num_shards_written: int
    skipped: dict[str, str]
    seconds: float
    images_per_second: float
    info: dict[str, Any]


@holds_output
def run_tokenize(request: TokenizeRequest, reporter: Reporter) -> dict[str, Any]:
    """Open data and tokenizer, then write the preview, the token set, or both.

    Returns:
        What was written and measured; empty on processes other than the main one.

    Raises:
        AdaNATError: if data or tokenizer cannot be opened or do not fit together, or too many images are unreadable.
    """
    processes = start_processes(request.device)
    reporter = reporter if processes.is_main else SilentReporter()
    folder = _tokenizer_folder(request.model)
    config = tokenizer_config(folder.config("tokenizer"), f"{folder.path}/tokenizer")
    if request.output:
        check_writable(request.output)
    if request.preview:
        check_picture(request.preview, "--preview")
        check_writable(request.preview.parent, "choose another --preview")
    source = _open(request, config, reporter)
    tokenizer = load_tokenizer(folder, processes.device, source.config.image_size)
    values: dict[str, Any] = {}
    if request.preview and processes.is_main:
        psnr = save_reconstructions(source, tokenizer, request.preview)
        values |= {"preview": str(request.preview), "psnr": psnr}
    if request.output is None:
        return values
    encoder = _encoder(request, source, processes.device, reporter)
    fingerprint = tokens_fingerprint(folder)
    result = tokenize(source, tokenizer, fingerprint, request.output, request.options, reporter, processes, encoder)
    if result is None:
        return {}
    values |= dataclasses.asdict(result)
    values["info"] = {key: value for key, value in result.info.items() if key != "class_names"}
    return values


def plan(request: TokenizeRequest) -> dict[str, Any]:
    """Describe what ``run_tokenize`` would do; of data, images of one's own on this machine alone are looked at.

    Raises:
        AdaNATError: as ``run_tokenize``, as far as it is known without reading all images.
    """
    benchmark = BENCHMARKS.get(request.dataset)
    if benchmark and is_absent(request.dataset, request.model):
        config: TokenizerConfig = benchmark.tokenizer()
        model = request.model or "(the benchmark's tokenizer)"
    else:
        folder = _tokenizer_folder(request.model)
        model = request.model or folder.name
        config = tokenizer_config(folder.config("tokenizer"), str(folder.path))
    data = _data(request, config)
    own = look_at_own(data)
    source = _of_classes(own, request.classes) if own else None
    num_images = source.num_images if source else benchmark.num_images if benchmark and data.split == "train" else None
    tokenizer = without_memory(lambda: build_tokenizer(config))
    num_parameters = sum(parameter.numel() for parameter in tokenizer.parameters())
    image = torch.zeros(1, 3, data.image_size, data.image_size)
    encoding = planned_operations(lambda: tokenizer.encode(image)) * (1 + request.options.flips)
    num_tokens = (data.image_size // config.downsampling) ** 2
    text = {}
    if request.encode_captions and benchmark and benchmark.text_width:
        text = {"state_kilobytes_per_caption": round(2 * benchmark.text_width * benchmark.text_length / 1024, 1)}
    at_once = request.options.batch_size or images_at_once(data.image_size, torch.device("cpu"))
    return {
        "data": data.to_dict(),
        **({"images": describe_own(source)} if source else {}),
        "model": model,
        "tokenizer": config.to_dict(),
        "output": str(request.output or ""),
        "options": dataclasses.asdict(request.options),
        "num_parameters": num_parameters,
        "tokens_per_image": num_tokens,
        "bytes_per_image": (size := 2 * num_tokens * (1 + request.options.flips)),
        "tera_flops_per_image": round(encoding / 1e12, 4),
        **(_amounts(min(num_images, request.options.num_images or num_images), size, encoding) if num_images else {}),
        **text,
        "images_at_once": at_once,
        # The widest layers hold about 400 floats per pixel.
        "megabytes_at_once": (4 * num_parameters + 1600 * at_once * data.image_size**2) // 2**20,
        **missing_parts(request.dataset, request.model),
    }


def _amounts(num_images: int, size: int, encoding: int) -> dict[str, Any]:
    """What all images take: bytes on disk at most, before compression, and hours on GPUs."""
    return {
        "num_images": num_images,
        "megabytes_on_disk_at_most": num_images * size // 2**20,
        "gpu_hours": gpu_hours(tf32=encoding * num_images),
    }


def _encoder(
    request: TokenizeRequest, source: ImageSource, device: torch.device, reporter: Reporter
) -> TextEncoder | None:
    """Load the text encoder if captions are to be encoded, and log how much space that takes."""
    require(
        request.encode_captions or not request.text_encoder,
        "--text-encoder encodes captions: it has no meaning without --encode-captions; leave it out, or add that.",
    )
    if not request.encode_captions:
        return None
    require(
        source.has_captions, f"--encode-captions: {source.config.source} has class labels, not captions; leave it out."
    )
    encoder = load_encoder(request.text_encoder or usual_encoder(request.dataset), device)
    size = 2 * encoder.length * encoder.width
    total = f", at least {size * source.num_images / 1e9:.3g} GB in all" if source.num_images else ""
    reporter.log(
        f"Encoded captions take {size / 1e3:.4g} kB each ({encoder.length} states of {encoder.width} float16){total}."
    )
    return encoder


def _tokenizer_folder(model: str) -> ModelFolder:
    """Open the model folder; its tokenizer/ may be named directly."""
    path = Path(model)
    if path.name == "tokenizer" and ModelFolder(path.parent).exists():
        return ModelFolder(path.parent)
    return resolve_model(model)


def _data(request: TokenizeRequest, tokenizer: TokenizerConfig) -> DataConfig:
    """The images at the requested size, or else at that of the tokenizer."""
    size = request.data.get("image_size")
    fields = {**request.data, "image_size": tokenizer.image_size if size is None else size}
    config = data_config(request.dataset, **fields)
    check_size(config.image_size, tokenizer)
    return config


def _open(request: TokenizeRequest, tokenizer: TokenizerConfig, reporter: Reporter) -> ImageSource:
    """Open the requested classes of the images."""
    config, own_size = _data(request, tokenizer), tokenizer.image_size
    usual = DATA_PRESETS.get(request.dataset, {}).get("image_size", own_size)
    if config.image_size == own_size != usual:
        reporter.warn(
            f"{request.dataset} is usually read at {usual} pixels; this tokenizer is for {own_size}, so images are "
            f"cropped to {own_size}. Set another size with --image-size."
        )
    source = _of_classes(open_source(config), request.classes)
    reporter.log(source.describe())
    return source


def _of_classes(source: ImageSource, classes: tuple[str, ...]) -> ImageSource:
    """The images of the classes that were named; all if none was."""
    return source.keep(tuple(find_classes(classes, source.class_names, source.num_classes, "the data")))


def tokenize(
    source: ImageSource,
    tokenizer: Tokenizer,
    fingerprint: str,
    output: Path,
    options: TokenizeOptions,
    reporter: Reporter,
    processes: Processes,
    encoder: TextEncoder | None = None,
) -> TokenizeResult | None:
    """Write the token ids of all images of a source.

    A shard covers a fixed part of the source, whatever the batch size or the number of processes, and is whole or
    absent; so the same call finishes a run that was killed, with the same bytes.

    Args:
        source: images, their size a multiple of the tokenizer's downsampling.
        tokenizer: on its device, in evaluation mode.
        fingerprint: sha256 of the tokenizer's weights.
        output: folder of the set.
        options: sizes and workers.
        reporter: receives progress and messages.
        processes: processes that share the shards.
        encoder: text encoder for the captions; None stores them as text alone.

    Returns:
        The result on the main process, None on others.

    Raises:
        AdaNATError: if the sizes do not fit, the folder holds other tokens, or too many images are unreadable.
    """
    plan = {**source.identity(), "shard_size": options.shard_size, "num_images": options.num_images}
    # Every shard has a digest of its own files, so that an image that was repaired changes no other shard.
    plan.pop("files_digest", None)
    folder = TokenFolder(output, _info(source, tokenizer, fingerprint, options, encoder), plan, source, encoder)
    done = {name: header for name, header in folder.finished().items() if not is_repaired(header, source)}
    hashes = folder.recorded_hashes(done)
    if done:
        reporter.log(f"{output} already holds {len(done)} shards; resuming after them.")
    start_time = time.monotonic()
    written = _write_shards(folder, done, tokenizer, options, reporter, processes)
    if processes.is_main:
        folder.write_encoder()
    processes.state.wait_for_everyone()
    if not processes.is_main:
        return None
    seconds = time.monotonic() - start_time
    return TokenizeResult(
        output=str(output),
        num_shards_written=len(written),
        seconds=seconds,
        images_per_second=sum(written) / seconds,
        **folder.complete(hashes),
    )


def _write_shards(
    folder: TokenFolder,
    done: Mapping[str, ShardHeader],
    tokenizer: Tokenizer,
    options: TokenizeOptions,
    reporter: Reporter,
    processes: Processes,
) -> list[int]:
    """Write this process's shards that are not done yet; returns how many images were read for each."""
    source, size = folder.source, options.shard_size
    at_once = options.batch_size or images_at_once(source.config.image_size, processes.device)
    options = dataclasses.replace(options, batch_size=at_once)
    parts = Parts.of_source(source, options.num_images, size, processes.rank, processes.num)
    lengths = {header.start // size: header.stop - header.start for header in done.values()}
    skipped = SkippedImages(source.config.max_bad, parts.num_images, num_seen=sum(lengths.values()))
    for header in done.values():
        skipped.add(dict(header.skipped))
    num_done = sum(length for number, length in lengths.items() if parts.is_mine(number))
    written = []
    with reporter.task("Tokenizing", parts.num_mine(), "img", num_done) as task:
        for part in parts.read(source, lambda number: shard_name(number, parts.num_parts) in done):
            shard = encode_shard(part, tokenizer, folder.plan, options, skipped, task)
            folder.write(shard_name(part.number, parts.num_parts), shard)
            written.append(shard.stop - shard.start)
    return written


def _info(
    source: ImageSource,
    tokenizer: Tokenizer,
    fingerprint: str,
    options: TokenizeOptions,
    encoder: TextEncoder | None,
) -> TokenSetInfo:
    config, image_size = tokenizer.config, source.config.image_size
    check_size(image_size, config)
    return TokenSetInfo(
        image_size=image_size,
        grid=(image_size // config.downsampling,) * 2,
        codebook_size=config.codebook_size,
        tokenizer_fingerprint=fingerprint,
        condition="text" if source.has_captions else "class",
        num_classes=source.num_classes,
        has_flips=options.flips,
        class_names=source.class_names,
        source=f"{source.name} ({source.config.split})",
        text_encoder=recorded_name(encoder.model) if encoder else "",
        text_fingerprint=encoder.fingerprint if encoder else "",
        text_width=encoder.width if encoder else 0,
        text_length=encoder.length if encoder else 0,
    )


def check_size(image_size: int, tokenizer: TokenizerConfig) -> None:
    """Refuse a size of images, in pixels, that does not divide into tokens."""
    require(
        image_size % tokenizer.downsampling == 0,
        f"Images of {image_size} pixels do not divide into tokens of {tokenizer.downsampling} pixels; "
        f"give --image-size {tokenizer.image_size} or another tokenizer.",
    )
