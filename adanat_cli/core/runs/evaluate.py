"""``adanat evaluate``: how near images are to real ones, by the field's protocols."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from adanat_cli import __version__
from adanat_cli.core.checkpoints.files import check_writable
from adanat_cli.core.checkpoints.folder import ModelFolder
from adanat_cli.core.config import Precision
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.metrics.extraction import Extractor
from adanat_cli.core.metrics.references import Reference, check_reference, read_reference
from adanat_cli.core.runs.evaluation_report import Results, Row, draw_distances, name_of, record
from adanat_cli.core.runs.extractors import load_extractor
from adanat_cli.core.runs.feature_pass import PART_SIZE, Speed, extract_features, open_store, start_processes
from adanat_cli.core.runs.feature_store import FeatureStore
from adanat_cli.core.runs.generated_images import GeneratedImages, Generator
from adanat_cli.core.runs.image_folder import ImageFolder
from adanat_cli.core.runs.image_sets import ImageSet, num_of_rank, parts_of
from adanat_cli.core.runs.measures import Measured, measure
from adanat_cli.core.runs.models import resolve_model
from adanat_cli.core.runs.reporter import Reporter, SilentReporter
from adanat_cli.core.runs.sample_file import SampleFile
from adanat_cli.core.runs.schedule_choice import choose_schedule, settle_schedule

DEFAULT_NUM_SAMPLES = 50_000
"""What published distances are of."""


@dataclass(frozen=True)
class EvaluateRequest:
    """What one run of ``adanat evaluate`` is asked for.

    Attributes:
        reference: .npz of reference statistics.
        output: folder of the results; None for ``evaluations/<name>``.
        model: folder or name; generates where neither ``images`` nor ``samples`` is given, and has the feature
            network of the protocol "small".
        images: folder of image files to measure instead.
        samples: .npz of images to measure instead.
        classes: ids or names that take turns; empty for all that the model has seen.
        protocol: "adm", "paper", "clean", "small" or "timm/NAME"; "" as the reference says.
        inception: file of the Inception weights; None where they are found without.
        num_samples: images to measure; None for 50,000, or all of a folder or file.
        steps: numbers of steps; empty for 8, or what a schedule file says.
        schedules: words of ``--schedule``; empty for the learned one if the model has it, else cosine.
        temperature: factor on a fixed schedule's re-masking temperature.
        guidance: factor on a fixed schedule's guidance scale.
        seed: image i depends on (seed, i) and its class only.
        batch_size: images to generate at a time.
        keep_features: whether features stay on disk afterwards.
        record: whether to note the results in the model's index and card.
        workers: threads that decode image files.
        device: "" for the best one here.
        precision: of the NAT.
        part_size: images whose features are saved together.
    """

    reference: Path
    output: Path | None = None
    model: str = ""
    images: Path | None = None
    samples: Path | None = None
    classes: tuple[str, ...] = ()
    protocol: str = ""
    inception: Path | None = None
    num_samples: int | None = None
    steps: tuple[int, ...] = ()
    schedules: tuple[str, ...] = ()
    temperature: float | None = None
    guidance: float | None = None
    seed: int = 0
    batch_size: int = 64
    keep_features: bool = False
    record: bool = False
    workers: int = 2
    device: str = ""
    precision: Precision = "auto"
    part_size: int = PART_SIZE


@dataclass(frozen=True)
class _Subject:
    """One set of images to measure, with the name of its row and of its folder of features."""

    name: str
    folder_name: str
    images: ImageSet
    num_images: int


@dataclass
class _Evaluation:
    """The parts of a run that its rows share."""

    request: EvaluateRequest
    output: Path
    reference: Reference
    extractor: Extractor
    state: PartialState
    device: torch.device
    reporter: Reporter
    results: Results
    reference_features: Tensor | None = None

    def settings(self, subject: _Subject) -> dict[str, Any]:
        """What decides a row's numbers, as JSON values."""
        return {
            **self._features_of(subject.images, subject.num_images),
            "reference": self.reference.sha256,
            "adanat": __version__,
        }

    def _features_of(self, images: ImageSet, num_images: int) -> dict[str, Any]:
        return {
            **images.identity(),
            "num_images": num_images,
            "protocol": self.extractor.protocol,
            "extractor": self.extractor.name,
            "weights_hash": self.extractor.weights_hash,
        }

    def extract(self, name: str, folder_name: str, images: ImageSet, num_images: int) -> tuple[FeatureStore, Speed]:
        """Get the features of a set onto the disk, or what is missing of them."""
        settings, size = self._features_of(images, num_images), self.request.part_size
        store = open_store(self.output / "features" / folder_name, {**settings, "part_size": size}, self.state)
        if store.num_found:
            self.reporter.log(f"{store.folder} already holds {store.num_found} parts; going on from there.")
        rank, world_size = self.state.process_index, self.state.num_processes
        share = num_of_rank(num_images, size, rank, world_size, lambda _: True)
        done = num_of_rank(num_images, size, rank, world_size, store.has)
        with self.reporter.task(f"Measuring {name}", share, "images", done) as task:
            speed = extract_features(parts_of(images, num_images, size), store, self.extractor, self.state, task)
        return store, speed

    def read_reference_features(self) -> None:
        """Find features for precision and recall: in the reference, or of the images that it holds."""
        self.reference_features = self.reference.features
        if self.reference_features is not None or self.reference.images is None:
            return
        images = SampleFile(self.request.reference, self.device)
        store, _ = self.extract("the reference's images", "reference", images, images.num_images)
        if self.state.is_main_process:
            self.reference_features = store.column("features")
        self.state.wait_for_everyone()

    def measure(self, subject: _Subject) -> Row | None:
        """Measure one set of images; the row on the main process, None on others."""
        store, speed = self.extract(subject.name, subject.folder_name, subject.images, subject.num_images)
        if not self.state.is_main_process:
            return None
        self.reporter.log(f"Computing the metrics of {subject.name}.")
        device = self.device if self.device.type == "cuda" else torch.device("cpu")
        values, absent = measure(
            Measured(
                store,
                subject.num_images,
                self.reference,
                self.reference_features,
                self.extractor.protocol,
                subject.images.missing_labels,
                device,
            )
        )
        cost: dict[str, Any] = {"images_per_second": speed.images_per_second, "num_processes": self.state.num_processes}
        if isinstance(subject.images, GeneratedImages):
            cost["tera_flops_per_image"] = subject.images.tera_flops()
        reference = self.reference
        row = {
            "name": subject.name,
            "settings": self.settings(subject),
            "metrics": values,
            "absent": absent,
            "reference": {
                "file": str(self.request.reference),
                "source": reference.source,
                "num_images": reference.num_images or None,
            },
            "cost": cost,
        }
        self.results.add(row)
        if not self.request.keep_features:
            store.remove()
        return row


def evaluate(request: EvaluateRequest, reporter: Reporter) -> dict[str, Any]:
    """Measure a model's images, or those of a folder or file, against a reference.

    Returns:
        Where the results are, and one row a schedule; empty on processes other than the main one.

    Raises:
        AdaNATError: if the request cannot work, which is told before anything is generated.
        KeyboardInterrupt: after Ctrl-C; the features of whole parts are kept, and the same call goes on from them.
    """
    check_request(request)
    reference = read_reference(request.reference)
    protocol = request.protocol or reference.protocol
    require(
        bool(protocol),
        f"{request.reference} does not say by which protocol its features were made; name it: --protocol adm (TensorFlow's "
        "resizing on bytes), paper (AdaNAT's, on unrounded images) or clean (Pillow's bicubic).",
    )
    state, device = start_processes(request.device)
    if not state.is_main_process:
        reporter = SilentReporter()
    folder = resolve_model(request.model) if _needs_model(request, protocol) else None
    subjects = list(_subjects(request, folder, device))
    output = request.output or Path("evaluations") / _name(request, folder)
    check_writable(output)
    if request.record and folder is not None:
        check_writable(folder.path)
    extractor = load_extractor(protocol, folder=folder, inception=request.inception, device=device)
    check_reference(reference, extractor)
    if min(subject.num_images for subject in subjects) < DEFAULT_NUM_SAMPLES:
        fewest = min(subject.num_images for subject in subjects)
        reporter.warn(
            f"A Fréchet distance of {fewest:,} images is biased upwards; compare it with others of as many images "
            f"only. Published ones are of {DEFAULT_NUM_SAMPLES:,}."
        )
    results = Results(output)
    run = _Evaluation(request, output, reference, extractor, state, device, reporter, results)
    rows = run_all(run, subjects)
    if not state.is_main_process:
        return {}
    values: dict[str, Any] = {"evaluation": str(results.path), "results": rows, "plot": None}
    if len({row["settings"].get("num_steps") for row in rows}) > 1:
        plot = output / "plots" / "distance.png"
        draw_distances(plot, rows, f"{_name(request, folder)}, {rows[0]['settings']['num_images']:,} images")
        values["plot"] = str(plot)
    if request.record and folder is not None and not record(folder, rows):
        reporter.log(f"{folder.path / 'README.md'} is not this toolkit's and was left as it is.")
    return values


def run_all(run: _Evaluation, subjects: list[_Subject]) -> list[Row]:
    """Measure what is not measured yet; returns all rows on the main process."""
    settings = [run.settings(subject) for subject in subjects]
    found = [run.results.find(one) for one in settings]
    run.state.wait_for_everyone()  # all have read the results before any adds to them
    if None in found:
        run.read_reference_features()
    rows = []
    for subject, row in zip(subjects, found, strict=True):
        if row is not None:
            run.reporter.log(
                f"{run.results.path} holds {name_of(row)} already; choose another --output to measure it anew."
            )
        row = row or run.measure(subject)
        if row is not None:
            rows.append(row)
    if run.state.is_main_process and not run.request.keep_features:
        FeatureStore(run.output / "features" / "reference", {}, write=False).remove()
    return rows


def check_request(request: EvaluateRequest) -> None:
    """Refuse what contradicts itself.

    Raises:
        AdaNATError: naming it.
    """
    given = [name for name, value in (("--images", request.images), ("--samples", request.samples)) if value]
    require(len(given) < 2, "--images and --samples are both given; measure one at a time.")
    if given:
        unused = {
            "--steps": request.steps,
            "--schedule": request.schedules,
            "--class": request.classes,
            "--record": request.record,
        }
        wrong = [name for name, value in unused.items() if value]
        require(not wrong, f"{', '.join(wrong)} has no meaning with {given[0]}, whose images exist; leave it out.")
    require(
        request.num_samples is None or request.num_samples >= 2,
        f"--num-samples is {request.num_samples}; a distance needs at least 2 images.",
    )
    require(request.batch_size >= 1, f"--batch-size is {request.batch_size}; expected at least 1.")


def _needs_model(request: EvaluateRequest, protocol: str) -> bool:
    return protocol == "small" or not (request.images or request.samples)


def _name(request: EvaluateRequest, folder: ModelFolder | None) -> str:
    """What the default folder of the results is called."""
    path = request.images or request.samples
    if path is not None:
        return path.resolve().stem if request.samples else path.resolve().name
    path = folder.path.resolve() if folder else Path("model")
    return path.parent.name if path.name == "model" else path.name  # a run's exported model


def _subjects(request: EvaluateRequest, folder: ModelFolder | None, device: torch.device) -> Iterator[_Subject]:
    """What is measured, each checked as far as that goes without weights."""
    if request.images or request.samples or folder is None:
        images: ImageSet
        if request.samples:
            images, name = SampleFile(request.samples, device), request.samples.name
        else:
            images, name = ImageFolder(request.images or Path(), request.workers, device), str(request.images)
        num_images = request.num_samples or images.num_images
        require(
            2 <= num_images <= images.num_images,
            f"{name} holds {images.num_images} images, and {num_images} are to be measured; expected 2 to "
            f"{max(2, images.num_images)} (--num-samples).",
        )
        yield _Subject(name, "images", images, num_images)
        return
    generator = Generator(folder, request.classes, request.seed, request.batch_size, device, request.precision)
    num_images = request.num_samples or DEFAULT_NUM_SAMPLES
    seen = set()
    for words in request.schedules or ("",):
        kind, _, file = words.partition(":")
        for num_steps in (None,) if file else request.steps or (None,):
            choice = choose_schedule(words, num_steps, request.temperature, request.guidance)
            require(
                choice.num_steps <= generator.config.num_tokens,
                f"--steps is {choice.num_steps}, but images of this model have {generator.config.num_tokens} tokens; "
                f"expected 1 to {generator.config.num_tokens}.",
            )
            choice, _line = settle_schedule(choice, folder)
            name = f"{kind}:{Path(file).stem}" if file else choice.kind
            folder_name = f"{name.replace(':', '-')}-{choice.num_steps}"
            if folder_name not in seen:
                seen.add(folder_name)
                yield _Subject(name, folder_name, GeneratedImages(generator, choice, num_images), num_images)
            elif file:
                raise AdaNATError(f"Two schedules are called {name}; give the files different names.")
