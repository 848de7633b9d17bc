"""``adanat stats``: reference statistics of real images, for ``adanat evaluate``."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from adanat_cli.core.checkpoints.card import write_card
from adanat_cli.core.checkpoints.files import atomic_path, check_writable
from adanat_cli.core.checkpoints.folder import REFERENCE_FILES, ModelFolder
from adanat_cli.core.config import DATA_PRESETS, FeatureConfig, data_config
from adanat_cli.core.config.acting import refuse_idle
from adanat_cli.core.config.requests import StatsRequest
from adanat_cli.core.data.held_out import same_files
from adanat_cli.core.data.parts import Parts
from adanat_cli.core.data.records import SkippedImages
from adanat_cli.core.data.sources import ImageSource
from adanat_cli.core.errors import AdaNATError, hide_secrets, require
from adanat_cli.core.metrics.extraction import Extractor
from adanat_cli.core.metrics.npz import Archive
from adanat_cli.core.metrics.recognition import Recognition, recognition
from adanat_cli.core.metrics.references import Reference, extractor_fields, holds_statistics, write_reference
from adanat_cli.jobs.evaluate.feature_pass import extract_features, open_store, progress
from adanat_cli.jobs.evaluate.feature_store import FeatureStore, remove_store
from adanat_cli.jobs.evaluate.image_sets import ImagePart, images_to_read
from adanat_cli.jobs.evaluate.measures import MOST_HELD, moments_of
from adanat_cli.jobs.evaluate.real_images import Chosen, choose_images, have_imagenet_ids, read_batches
from adanat_cli.jobs.resolve.extractors import identity, load_extractor
from adanat_cli.jobs.resolve.models import read_config, resolve_model
from adanat_cli.jobs.runtime.devices import Processes, start_processes
from adanat_cli.jobs.runtime.output_lock import output_held
from adanat_cli.jobs.runtime.reporter import Reporter, SilentReporter
from adanat_cli.jobs.runtime.seeding import stream_seed
from adanat_cli.jobs.train.features import SmallNetworks


def make_stats(request: StatsRequest, reporter: Reporter) -> dict[str, Any]:
    """Measure all images of a source and write their reference file.

    Features are kept beside the output during the run, so that the same call resumes a run that was killed.

    Returns:
        What was written; empty on processes other than the main one.

    Raises:
        AdaNATError: if the request cannot work, or too many images are unreadable.
        KeyboardInterrupt: after Ctrl-C; the features of whole parts are kept.
    """
    require(
        request.num_images is None or request.num_images >= 2,
        f"--num-images is {request.num_images}; expected at least 2.",
    )
    require(
        0 <= request.num_features <= MOST_HELD,
        f"--num-features is {request.num_features}; expected 0 to {MOST_HELD:,}, the most that evaluate compares.",
    )
    _check_output(request.output)
    processes = start_processes(request.device)
    reporter = reporter if processes.is_main else SilentReporter()
    folder, protocol = _protocol(request)
    refuse_idle(request, f"protocol {protocol}", protocol=protocol)
    chosen = _open(request, folder, protocol, reporter)
    source = chosen.source
    reporter.log(source.describe())
    target = _target(request, folder, protocol)
    with output_held(request.output.parent, request.output.name):
        if target is not None and protocol == "small":
            _train_features(request, target, source, processes, reporter)
        extractor = load_extractor(protocol, processes, folder=folder, inception=request.inception, reporter=reporter)
        # Beside the output, so that the same command finds it again.
        work = request.output.with_name(f"{request.output.name}.parts")
        settings = {**source.identity(), "num_images": request.num_images, **identity(extractor)}
        store = open_store(work, {**settings, "part_size": request.part_size}, processes, reporter)
        speed = _extract(request, source, extractor, store, processes, reporter)
        if not processes.is_main:
            return {}
        values = _write(request, chosen, extractor, store, _recognised(chosen, folder, extractor, store), reporter)
        if target is not None:
            target.write_reference(request.output, protocol)
        remove_store(work)
    return {**values, "installed": target.name if target else None, "images_per_second": speed}


def _check_output(output: Path) -> None:
    """Refuse to replace anything but statistics."""
    require(not output.is_dir(), f"--output {output} is a folder; give a file such as stats.npz.")
    if output.exists():
        with suppress(AdaNATError):
            found = Archive(output)
            if holds_statistics(found) and "arr_0" not in found.names:
                return
        raise AdaNATError(f"--output {output} exists and is not a file of statistics; choose another name.")


def _target(request: StatsRequest, folder: ModelFolder | None, protocol: str) -> ModelFolder | None:
    """The model that the statistics are installed into, if any; refuses one where that cannot work."""
    if not request.install:
        idle = "--updates" if request.updates else "--half" if request.half else ""
        require(not idle, f"{idle} is for the small network that --install trains; leave it out, or add --install.")
        return None
    if folder is None or not folder.writable or protocol not in REFERENCE_FILES:
        raise AdaNATError(
            f"--install is for statistics of protocol {' or '.join(REFERENCE_FILES)} in a model folder; leave it out, "
            "or use one of these and a folder."
        )
    require(
        protocol == "small" or folder.has("nat"),
        f"Model {folder.name} has no nat, whose images these statistics are for; leave --install out.",
    )
    target = (folder.path / REFERENCE_FILES[protocol]).parent
    target = target if target.is_dir() else folder.path
    check_writable(target, "leave --install out, or use a copy of the model that you can write to")
    return folder


def _protocol(request: StatsRequest) -> tuple[ModelFolder | None, str]:
    """The model, where one is needed, and the protocol."""
    if request.protocol not in ("", "small"):
        return resolve_model(request.model) if request.model or request.install else None, request.protocol
    folder = resolve_model(request.model)
    require(
        folder.has("features") or request.install,
        f"Model {folder.name} has no features/ of its own: --install trains a small network for it first, or name "
        "another protocol: --protocol adm, paper, clean, efficientnet or timm/NAME.",
    )
    return folder, "small"


def _open(request: StatsRequest, folder: ModelFolder | None, protocol: str, reporter: Reporter) -> Chosen:
    """Open the images, by default in the size and the classes of the model."""
    fields = dict(request.data)
    if folder is not None:
        asked, own = fields.get("image_size"), folder.index.image_size
        if protocol == "small" and folder.has("features"):
            own = read_config(folder, "features", FeatureConfig.from_dict).image_size
            require(
                asked in (None, own),
                f"--image-size is {asked}, but the feature network of {folder.name} is for {own}; give --image-size "
                f"{own}, or another --protocol.",
            )
        fields["image_size"] = asked or own or None
    require(
        bool(fields.get("image_size")) or request.dataset in DATA_PRESETS,
        "Statistics are of images of one size, which the protocol then resizes, and data without a preset, such as "
        f"{hide_secrets(request.dataset)}, name none: give that of the images to compare with as --image-size, or "
        "their --model.",
    )
    return choose_images(data_config(request.dataset, **fields), request.classes, folder, reporter)


def _train_features(
    request: StatsRequest,
    folder: ModelFolder,
    source: ImageSource,
    processes: Processes,
    reporter: Reporter,
) -> None:
    """Train the small network on the training images of the same data, if the model has none."""
    with processes.state.main_process_first():
        if folder.has("features"):
            return
        training, held_out = source, None
        if source.config.split != "train":
            asked = replace(request, data={**request.data, "split": "train"})
            training = _open(asked, folder, "small", SilentReporter())[0]
            held_out = None if same_files(training, source) else source
        reporter.log(f"Model {folder.name} has no features/ to measure with; a small network is trained for it.")
        networks = SmallNetworks(request.dataset, request.output, training, held_out, processes.device, reporter)
        networks.install(folder, request.updates, request.half)
        write_card(folder)


def _extract(
    request: StatsRequest,
    source: ImageSource,
    extractor: Extractor,
    store: FeatureStore,
    processes: Processes,
    reporter: Reporter,
) -> float | None:
    """Save the features of all images; returns images per second."""
    parts = Parts.of_source(source, request.num_images, request.part_size, processes.rank, processes.num)
    skipped = SkippedImages(source.config.max_bad, parts.num_images)
    skipped.add(store.skipped())
    at_once = images_to_read(source.config.image_size, source.config.image_size, processes.device)
    left = (
        ImagePart(part.number, read_batches(part.pending, at_once, request.workers, skipped))
        for part in parts.read(source, store.has)
    )
    with progress(reporter, f"Reading {source.config.source}", parts, store) as task:
        return extract_features(left, store, extractor, processes, task)


def _write(
    request: StatsRequest,
    chosen: Chosen,
    extractor: Extractor,
    store: FeatureStore,
    recognised: Recognition | None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Compute the moments and write the file: in the compact form where it is installed and no other tool reads it."""
    source = chosen.source
    num_rows, skipped = store.num_rows(), store.skipped()
    SkippedImages(source.config.max_bad, num_rows + len(skipped)).add(skipped)
    require(num_rows >= 2, f"{num_rows} images of {source.config.source} can be read; statistics need at least 2.")
    cpu = torch.device("cpu")
    moments, spatial = moments_of(store, "features", cpu), moments_of(store, "spatial", cpu)
    if moments is None:
        raise AdaNATError(f"{store.folder} holds no features; remove it and run the same command again.")
    classes = f", {chosen.num_classes} classes" if chosen.num_classes else ""
    generator = torch.Generator().manual_seed(stream_seed(request.seed))
    rows = torch.randperm(num_rows, generator=generator)[: request.num_features].sort().values
    reference = Reference(
        moments.gaussian(),
        spatial.gaussian() if spatial else None,
        store.rows("features", rows) if len(rows) else None,
        num_images=num_rows,
        **extractor_fields(extractor),
        source=f"{source.name} ({source.config.split}, {source.config.image_size} pixels{classes})",
        classes=_count_classes(chosen, store),
        image_size=source.config.image_size,
        recognition=recognised,
    )
    num_found = len(reference.classes or {})
    if chosen.num_classes > num_found:
        lacking = f"{chosen.num_classes - num_found} of the {chosen.num_classes}"
        reporter.warn(f"{lacking} classes have no image in {source.name}.")
    with atomic_path(request.output) as temporary:
        only_ours = extractor.protocol in ("small", "efficientnet")
        compact = request.install and only_ours and len(rows) == num_rows
        write_reference(temporary, reference, compact)
    return {
        "output": str(request.output),
        "num_images": num_rows,
        "num_features": len(rows),
        "num_classes": num_found or None,
        **identity(extractor),
        "source": reference.source,
        "recognition": asdict(recognised) if recognised else None,
        "skipped": skipped,
    }


def _count_classes(chosen: Chosen, store: FeatureStore) -> dict[int, int] | None:
    """Class id to number of readable images; None where the data has no classes."""
    labels, source = store.column("labels"), chosen.source
    if labels is None or source.has_captions or (source.num_classes <= 1 and not source.class_names):
        return None
    ids, numbers = chosen.own_ids(labels).unique(return_counts=True)
    return dict(zip(ids.tolist(), numbers.tolist(), strict=True))


def _recognised(
    chosen: Chosen, folder: ModelFolder | None, extractor: Extractor, store: FeatureStore
) -> Recognition | None:
    """How many of the images the network recognises; None where their classes do not have ImageNet's numbers."""
    labels = store.column("labels")
    if (
        extractor.protocol != "efficientnet"
        or labels is None
        or bool((labels < 0).any())
        or not have_imagenet_ids(chosen.source, chosen.ids, folder)
    ):
        return None
    pairs = zip(store.pieces("logits"), map(chosen.own_ids, store.pieces("labels")), strict=True)
    return recognition(pairs, chosen.own_ids(labels).unique().tolist())
