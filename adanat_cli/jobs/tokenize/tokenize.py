"""``adanat tokenize``: the token ids of a whole data set, in shards that survive a kill."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from adanat_cli.core.checkpoints.files import atomic_path, check_picture, check_writable, clear_litter, write_json
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import BENCHMARKS, DATA_PRESETS, TokenizerConfig, data_config, tokenizer_config
from adanat_cli.core.config.requests import TokenizeOptions, TokenizeRequest
from adanat_cli.core.data.caption_states import NULL_STATES, states_file, write_states
from adanat_cli.core.data.parts import num_covered, share_of, source_ranges
from adanat_cli.core.data.records import SkippedImages
from adanat_cli.core.data.sources import ImageSource, open_source
from adanat_cli.core.data.token_card import token_set_card
from adanat_cli.core.data.token_rows import read_rows, sha256_of
from adanat_cli.core.data.token_set import (
    SUMMARY,
    Shard,
    ShardHeader,
    TokenSetInfo,
    recorded_hashes,
    write_shard,
)
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.text.encoder import TextEncoder
from adanat_cli.core.tokenizer.base import Tokenizer
from adanat_cli.core.tokenizer.build import build_tokenizer
from adanat_cli.jobs.resolve.classes import find_classes
from adanat_cli.jobs.resolve.models import is_absent, load_tokenizer, missing_parts, resolve_model
from adanat_cli.jobs.resolve.text_encoders import encoded, load_encoder, recorded_name, usual_encoder, write_encoder
from adanat_cli.jobs.runtime.devices import images_at_once, start_processes
from adanat_cli.jobs.runtime.output_lock import holds_output
from adanat_cli.jobs.runtime.reporter import Reporter, SilentReporter
from adanat_cli.jobs.tokenize import shard_sources
from adanat_cli.jobs.tokenize.preview import save_reconstructions
from adanat_cli.jobs.tokenize.shard_sources import clear_notes, finished_shards, note_source, noted_sources
from adanat_cli.jobs.tokenize.shards import encode_shard, is_repaired, shard_name


@dataclass(frozen=True)
class TokenizeResult:
    """What a finished run says: the whole set, and what this run added to it."""

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
        AdaNATError: if data or tokenizer cannot be opened, do not fit, or too many images are unreadable.
    """
    state, device = start_processes(request.device)
    if not state.is_main_process:
        reporter = SilentReporter()
    folder = _tokenizer_folder(request.model)
    config = tokenizer_config(folder.config("tokenizer"), f"{folder.path}/tokenizer")
    if request.output:
        check_writable(request.output)
    if request.preview:
        check_picture(request.preview, "--preview")
        check_writable(request.preview.parent, "choose another --preview")
    source = _open(request, config, reporter)
    tokenizer = load_tokenizer(folder, device, source.config.image_size)
    values: dict[str, Any] = {}
    if request.preview and state.is_main_process:
        psnr = save_reconstructions(source, tokenizer, request.preview)
        values |= {"preview": str(request.preview), "psnr": psnr}
    if request.output is None:
        return values
    encoder = _encoder(request, source, device, reporter)
    fingerprint = folder.fingerprint("tokenizer")
    result = tokenize(source, tokenizer, fingerprint, request.output, request.options, reporter, state, encoder)
    if result is None:
        return {}
    values |= dataclasses.asdict(result)
    values["info"] = {key: value for key, value in result.info.items() if key != "class_names"}
    return values


def plan(request: TokenizeRequest) -> dict[str, Any]:
    """What ``run_tokenize`` would do, without touching data."""
    benchmark = BENCHMARKS.get(request.dataset)
    if benchmark and is_absent(request.dataset, request.model):
        config: TokenizerConfig = benchmark.tokenizer()
    else:
        folder = _tokenizer_folder(request.model)
        config = tokenizer_config(folder.config("tokenizer"), str(folder.path))
    fields = {**request.data_fields, "image_size": request.data_fields.get("image_size") or config.image_size}
    data = data_config(request.dataset, **fields)
    _check_size(data.image_size, config)
    with torch.device("meta"):
        num_parameters = sum(parameter.numel() for parameter in build_tokenizer(config).parameters())
    num_tokens = (data.image_size // config.downsampling) ** 2
    text = {}
    if request.encode_captions and benchmark and benchmark.text_width:
        text = {"state_kilobytes_per_caption": round(2 * benchmark.text_width * benchmark.text_length / 1024, 1)}
    at_once = request.options.batch_size or images_at_once(data.image_size, torch.device("cpu"))
    return {
        "data": data.to_dict(),
        "model": request.model or ("(the benchmark's tokenizer)" if benchmark else ""),
        "tokenizer": config.to_dict(),
        "output": str(request.output or ""),
        "options": dataclasses.asdict(request.options),
        "num_parameters": num_parameters,
        "tokens_per_image": num_tokens,
        "bytes_per_image": 2 * num_tokens * (1 + request.options.flips),
        **({"num_images": benchmark.num_images} if benchmark and data.split == "train" else {}),
        **text,
        "images_at_once": at_once,
        # The widest layers keep some 400 floats a pixel.
        "megabytes_at_once": (4 * num_parameters + 1600 * at_once * data.image_size**2) // 2**20,
        **missing_parts(request.dataset, request.model),
    }


def _encoder(
    request: TokenizeRequest, source: ImageSource, device: torch.device, reporter: Reporter
) -> TextEncoder | None:
    """Load the text encoder if captions are to be encoded, and say how much room that takes."""
    if not request.encode_captions:
        return None
    require(source.has_captions, f"--encode-captions: {source.config.source} has class labels, not captions.")
    encoder = load_encoder(request.text_encoder or usual_encoder(request.dataset), device)
    size = 2 * encoder.length * encoder.width
    total = f", at least {size * source.num_images / 1e9:.3g} GB in all" if source.num_images else ""
    reporter.log(
        f"Encoded captions take {size / 1e3:.4g} kB each ({encoder.length} states of {encoder.width} float16){total}."
    )
    return encoder


def _tokenizer_folder(model: str) -> ModelFolder:
    """The model folder; its tokenizer/ component may be named directly."""
    path = Path(model)
    if path.name == "tokenizer" and ModelFolder(path.parent).exists():
        return ModelFolder(path.parent)
    return resolve_model(model)


def _open(request: TokenizeRequest, tokenizer: TokenizerConfig, reporter: Reporter) -> ImageSource:
    """Open the images at the size that was asked for, else at the tokenizer's own."""
    own_size, size = tokenizer.image_size, request.data_fields.get("image_size")
    fields = {**request.data_fields, "image_size": own_size if size is None else size}
    config = data_config(request.dataset, **fields)
    usual = DATA_PRESETS.get(request.dataset, {}).get("image_size", own_size)
    if config.image_size == own_size != usual:
        reporter.warn(
            f"{request.dataset} is usually read at {usual} pixels; this tokenizer's images are {own_size}, so they "
            f"are cropped to {config.image_size}. --image-size sets another size."
        )
    _check_size(config.image_size, tokenizer)
    source = open_source(config)
    source = source.keep(tuple(find_classes(request.classes, source.class_names, source.num_classes, "the data")))
    reporter.log(source.describe())
    return source


def tokenize(
    source: ImageSource,
    tokenizer: Tokenizer,
    fingerprint: str,
    output: Path,
    options: TokenizeOptions,
    reporter: Reporter,
    state: PartialState | None = None,
    encoder: TextEncoder | None = None,
) -> TokenizeResult | None:
    """Write the token ids of all images of a source.

    A shard covers a fixed range of the source, whatever the batch size or the number of processes, and is
    whole or absent; so a run that was killed is finished by the same call, with the same bytes.

    Args:
        source: images, their size a multiple of the tokenizer's downsampling.
        tokenizer: on its device, in evaluation mode.
        fingerprint: of the tokenizer's weights.
        output: folder of the set.
        options: sizes and workers.
        reporter: told of progress.
        state: the processes, which take the shards in turn; None for this one alone.
        encoder: of the captions; None stores them as text alone.

    Returns:
        The result on the main process, None on others.

    Raises:
        AdaNATError: if the sizes do not fit, the folder holds other tokens, or too many images are unreadable.
    """
    info = _info(source, tokenizer, fingerprint, options, encoder)
    plan = {**source.identity(), "shard_size": options.shard_size, "num_images": options.num_images}
    # Every shard has a digest of its own files, so that an image that was repaired changes no other shard.
    plan.pop(shard_sources.KEY, None)
    rank, world_size = (state.process_index, state.num_processes) if state else (0, 1)
    finished = finished_shards(output, info, plan, source)
    done = {name: header for name, header in finished.items() if not is_repaired(header, source)}
    known = _known_hashes(output, done)
    skipped = SkippedImages(
        source.config.max_bad, num_covered(source, options.num_images), num_seen=_num_images(done.values())
    )
    for header in done.values():
        skipped.add(dict(header.skipped))
    if done:
        reporter.log(f"{output} already holds {len(done)} shards; going on from there.")
    start_time, num_read, num_written = time.monotonic(), 0, 0
    mine = [header for header in done.values() if header.start // options.shard_size % world_size == rank]
    share = share_of(source, options.shard_size, options.num_images, rank, world_size)
    with reporter.task("Tokenizing", share, "img", _num_images(mine)) as task:
        for part in source_ranges(source, options.shard_size, options.num_images):
            name = shard_name(part)
            if name in done or part.number % world_size != rank:
                deque(part.pending, maxlen=0)  # a stream has to be read past
                continue
            shard = encode_shard(part, tokenizer, plan, options, skipped, task)
            note_source(output, name, source.digest(shard.start, shard.stop, shard.skipped_at))
            _write_shard(output / name, info, shard, encoder)
            num_written, num_read = num_written + 1, num_read + shard.stop - shard.start
    if encoder and rank == 0:
        _write_states(output / NULL_STATES, encoder, [""])
        write_encoder(encoder, output)
    if state:
        state.wait_for_everyone()
    if rank != 0:
        return None
    return _finish(output, info, plan, source, known, num_written, time.monotonic() - start_time, num_read)


def _known_hashes(output: Path, done: Collection[str]) -> dict[str, str]:
    """Hashes of the files of finished shards, as far as an earlier run has recorded them."""
    kept = {*done, *(states_file(Path(name)).name for name in done)}
    with suppress(AdaNATError):  # a summary that is missing or damaged is written anew
        return {name: sha256 for name, sha256 in recorded_hashes(output).items() if name in kept}
    return {}


def _write_shard(path: Path, info: TokenSetInfo, shard: Shard, encoder: TextEncoder | None) -> None:
    """Write a shard, and before it its captions' states, for its presence says that both are whole."""
    if encoder:
        captions = [caption for texts in shard.captions for caption in texts]
        _write_states(states_file(path), encoder, captions)
    path.with_name(SUMMARY).unlink(missing_ok=True)  # until all shards are there again
    with atomic_path(path) as temporary:
        write_shard(temporary, info, shard)


def _write_states(path: Path, encoder: TextEncoder, captions: list[str]) -> None:
    with atomic_path(path) as temporary:
        write_states(temporary, encoded(encoder, captions), (len(captions), encoder.length, encoder.width))


def _info(
    source: ImageSource,
    tokenizer: Tokenizer,
    fingerprint: str,
    options: TokenizeOptions,
    encoder: TextEncoder | None,
) -> TokenSetInfo:
    config, image_size = tokenizer.config, source.config.image_size
    _check_size(image_size, config)
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


def _check_size(image_size: int, tokenizer: TokenizerConfig) -> None:
    require(
        image_size % tokenizer.downsampling == 0,
        f"Images of {image_size} pixels do not divide into tokens of {tokenizer.downsampling} pixels; "
        f"give --image-size {tokenizer.image_size} or another tokenizer.",
    )


def _num_images(shards: Iterable[ShardHeader]) -> int:
    return sum(header.stop - header.start for header in shards)


def _finish(
    output: Path,
    info: TokenSetInfo,
    plan: dict[str, Any],
    source: ImageSource,
    known: dict[str, str],
    num_written: int,
    seconds: float,
    num_read: int,
) -> TokenizeResult:
    """Write the summary and the card once all shards are there and whole.

    ``known`` are the hashes of shards that an earlier run has left, as it noted them.
    """
    shards = finished_shards(output, info, plan, source)
    for name in shards:
        read_rows(output / name, info, known.get(name))
    skipped = {name: reason for header in shards.values() for name, reason in header.skipped.items()}
    SkippedImages(source.config.max_bad, _num_images(shards.values())).add(skipped)
    num_images = sum(header.num_rows for header in shards.values())
    require(num_images > 0, f"No image of {info.source} can be read; nothing was tokenized.")
    clear_litter(output)
    with atomic_path(output / "README.md") as temporary:
        temporary.write_text(token_set_card(info, num_images), encoding="utf-8", errors="backslashreplace")
    summary = {"num_images": num_images, "num_shards": len(shards), "skipped": skipped, "info": info.to_json()}
    files = [*(output / name for name in shards), *sorted(output.glob("*.states.npy"))]
    hashes = {file.name: known.get(file.name) or sha256_of(file) for file in files}
    write_json(output / SUMMARY, {**summary, "plan": plan, "sha256": hashes, shard_sources.KEY: noted_sources(output)})
    clear_notes(output)
    return TokenizeResult(
        output=str(output),
        num_images=num_images,
        num_shards=len(shards),
        num_shards_written=num_written,
        skipped=skipped,
        seconds=seconds,
        images_per_second=num_read / seconds if num_read else 0.0,
        info=info.to_json(),
    )
