"""``adanat evaluate``: how close images are to real ones, by the field's protocols."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from adanat_cli.core.checkpoints.files import check_writable
from adanat_cli.core.checkpoints.folder import REFERENCE_FILES, ModelFolder
from adanat_cli.core.config import DATA_PRESETS, acting
from adanat_cli.core.config.base import Seed, check_value
from adanat_cli.core.config.own_data import usual_evaluation
from adanat_cli.core.config.requests import EvaluateRequest
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.core.hub import looks_like_hub_id
from adanat_cli.core.metrics.references import Reference, check_reference, compare_classes, read_reference
from adanat_cli.jobs.evaluate.clip_scorer import ClipScorer, load_clip_scorer
from adanat_cli.jobs.evaluate.gallery import Gallery, galleries
from adanat_cli.jobs.evaluate.generated_images import GeneratedImages
from adanat_cli.jobs.evaluate.image_sets import ImageFolder, SampleFile
from adanat_cli.jobs.evaluate.page import of_evaluation, write_page
from adanat_cli.jobs.evaluate.reconstructions import Reconstructions, open_reconstructions
from adanat_cli.jobs.evaluate.report import draw_distances, other_classes, record
from adanat_cli.jobs.evaluate.rows import Evaluation, Subject
from adanat_cli.jobs.evaluate.tables import Row, lines_of
from adanat_cli.jobs.resolve.extractors import check_protocol, load_extractor
from adanat_cli.jobs.resolve.models import num_trained_on, resolve_model
from adanat_cli.jobs.resolve.schedules import ScheduleChoice, choose_schedule, settle_schedule
from adanat_cli.jobs.runtime.devices import Processes, of_main_process, start_processes
from adanat_cli.jobs.runtime.output_lock import output_held
from adanat_cli.jobs.runtime.reporter import Reporter, SilentReporter
from adanat_cli.jobs.sample.conditions import Asked, read_prompts
from adanat_cli.jobs.sample.sampler import Sampler
from adanat_cli.jobs.train.features import LARGEST_TRAINED

_MOST_SAMPLES = 10**8
USUAL_NUM_SAMPLES = {"class": 50_000, "text": 30_000}
"""Number of images of published distances, by the condition of the model; in text to image, mostly 30,000 captions."""


def evaluate(request: EvaluateRequest, reporter: Reporter, shown: list[Gallery] | None = None) -> dict[str, Any]:
    """Measure a model's images or reconstructions, or the images of a folder or file, against a reference.

    Args:
        request: what to measure.
        reporter: receives progress and messages.
        shown: takes the first images of each set, for a report of the caller's.

    Returns:
        Where the results are, one row per schedule and seed, and their summary over the seeds; empty on processes other
        than the main one.

    Raises:
        AdaNATError: if the request cannot work, before anything is generated.
        KeyboardInterrupt: after Ctrl-C; the features of whole parts are kept, and the same call resumes after them.
    """
    check_request(request)
    request = _with_prompts(request)
    folder, reference_file = _find_reference(request)
    inside = None if folder is None else reference_file.relative_to(folder.path).as_posix()
    reference_name = reference_file.name if folder is None else f"{folder.title}/{inside}"
    reference = read_reference(reference_file)
    protocol = _protocol(request, reference, reference_file)
    processes = start_processes(request.device)
    reporter = reporter if processes.is_main else SilentReporter()
    if folder is None and (protocol == "small" or not (request.images or request.samples)):
        folder = resolve_model(request.model)
    if folder is None and request.model:
        reporter.warn(f"--model {request.model} is not used: the images exist, and protocol {protocol} has a network.")
    subjects = _subjects(request, folder, processes, reporter)
    if request.record and folder is not None:
        require(
            folder.writable,
            f"{folder.name} is on the Hub, where --record cannot write; pull it, record, and push it again.",
        )
        check_writable(folder.path, "leave --record out, or use a copy of the model that you can write to")
    output = request.output or Path("evaluations") / _name(request, folder)
    with output_held(output):
        extractor = load_extractor(protocol, processes, folder=folder, inception=request.inception, reporter=reporter)
        check_reference(reference, extractor)
        clip: tuple[ClipScorer | None, str] = (None, "")
        if not subjects[0].images.missing_prompts:
            clip = load_clip_scorer(request.clip, processes, reporter)
        _warn(subjects[0], reference, reporter)
        evaluation = Evaluation(
            request, output, reference_file, reference_name, reference, extractor, *clip, processes, reporter
        )
        rows = evaluation.run(subjects)
        if not processes.is_main:
            return {}
        seen = galleries(subjects, reporter)
        if shown is not None:
            shown += seen
        return _finish(request, folder, output, rows, seen, reporter)


def _with_prompts(request: EvaluateRequest) -> EvaluateRequest:
    """Read the prompts of a file; where no number is given, each of them is drawn once."""
    texts, number = read_prompts(request.prompts, request.prompts_file), request.num_samples
    if number is None and request.prompts_file is not None:
        number = max(2, len(texts))  # the fewest that a distance can be of
    return replace(request, prompts=texts, prompts_file=None, num_samples=number)


def _protocol(request: EvaluateRequest, reference: Reference, file: Path) -> str:
    """The requested protocol, or else the reference's own."""
    own = reference.extractor if reference.protocol == "timm" else reference.protocol  # as --protocol names it
    protocol = request.protocol or own
    require(
        bool(protocol),
        f"{file} does not record the protocol of its features; name it with --protocol adm (guided-diffusion's), paper "
        "(AdaNAT's) or clean (clean-fid's).",
    )
    require(  # before a network that would not fit is downloaded
        reference.protocol in ("", protocol.partition("/")[0]),
        f"--protocol is {protocol}, and {file} was made with protocol {reference.protocol}; leave --protocol out, or "
        "give a reference of that protocol.",
    )
    acting.refuse_idle(request, f"protocol {protocol}", protocol=protocol)
    return protocol


def _warn(subject: Subject, reference: Reference, reporter: Reporter) -> None:
    """Warn of what makes the numbers incomparable, before they are computed."""
    usual = USUAL_NUM_SAMPLES["class" if subject.images.missing_prompts else "text"]
    if subject.num_images < usual:
        reporter.warn(
            f"A Fréchet distance of {subject.num_images:,} images is biased upwards: compare it only with distances of "
            f"the same number of images. Published ones use {usual:,}."
        )
    if 0 < reference.image_size != subject.images.image_size > 0:
        reporter.warn(
            f"The reference is of images of {reference.image_size} pixels, and these have {subject.images.image_size}: "
            "the distance also measures sharpness. `adanat stats --model` uses the model's own size."
        )
    real = reference.source.rpartition(" (")[0]  # as `adanat stats` names the data; "" if unknown
    if isinstance(subject.images, Reconstructions) and real not in ("", subject.images.source.name):
        reporter.warn(
            f"The reference is of {reference.source}, and the reconstructions are of {subject.images.source.name}: "
            "unless these are the same images, the distance is also that of the two data sets. `adanat stats` of the "
            "data that is reconstructed makes a reference for --ref."
        )
    if differing := compare_classes(reference.classes, subject.images.classes(subject.num_images)):
        reporter.warn(
            f"The classes differ, which affects distance and coverage: {other_classes(differing)}. "
            "`adanat stats --model` uses the model's own classes."
        )


def _finish(
    request: EvaluateRequest,
    folder: ModelFolder | None,
    output: Path,
    rows: list[Row],
    shown: list[Gallery],
    reporter: Reporter,
) -> dict[str, Any]:
    """Draw and record the rows; returns where they are."""
    values: dict[str, Any] = {"evaluation": str(output / "evaluation.json"), "results": rows, "plot": None}
    values["summary"] = [asdict(line) for line in lines_of(rows)]
    title, plot = f"{_name(request, folder)}, {rows[0]['settings']['num_images']:,} images", None
    if len({row["settings"].get("num_steps") for row in rows}) > 1:
        plot = output / "plots" / "distance.png"
        draw_distances(plot, rows, title)
        values["plot"] = str(plot)
    sections = [*of_evaluation(rows, shown, plot)]
    values["report"] = str(write_page(output / "report.html", f"Evaluation: {title}", [], sections, keeps_others=True))
    if request.record and folder is not None and not record(folder, rows):
        reporter.log(f"{folder.path / 'README.md'} was not written by this toolkit and was left unchanged.")
    return values


def _find_reference(request: EvaluateRequest) -> tuple[ModelFolder | None, Path]:
    """The given file, or else the model with the file that it brings for the protocol."""
    if request.reference is not None:
        return None, request.reference
    folder = resolve_model(request.model)
    own = request.protocol in REFERENCE_FILES
    found = next(filter(None, map(folder.reference, [request.protocol] if own else REFERENCE_FILES)), None)
    if found is None:
        kind = f" of protocol {request.protocol}" if own else ""
        raise AdaNATError(
            f"Model {folder.name} brings no reference statistics{kind}; {_advice(folder, request.protocol)} Or give "
            "published ones with --ref."
        )
    return folder, found


def _advice(folder: ModelFolder, protocol: str) -> str:
    """Commands that make the statistics that a model lacks, of its training data where that is recorded."""
    trained = folder.index.provenance.get("nat")
    source = str(trained.get("data", "") if isinstance(trained, dict) else "").split(" (")[0]
    known = (name for name, row in DATA_PRESETS.items() if source in (name, row["source"]))
    dataset = next(known, source if looks_like_hub_id(source) else "IMAGES")
    make = f"adanat stats --dataset {dataset} --model {folder.name}"
    if protocol in REFERENCE_FILES and protocol != "small" and folder.writable and folder.has("nat"):
        return f"make them with `{make} --protocol {protocol} --install --output stats.npz`, then run this again."
    if folder.has("features") or (folder.writable and 0 < folder.index.image_size <= LARGEST_TRAINED):
        return f"make them with `{make} --install --output stats.npz`, then run this again."
    return f"make them with `{make} --protocol paper --output stats.npz`, then add --ref stats.npz."


def check_request(request: EvaluateRequest) -> None:
    """Refuse a request that contradicts itself.

    Raises:
        AdaNATError: naming the contradiction.
    """
    inputs = {
        "--images": (request.images, acting.FOLDER),
        "--samples": (request.samples, acting.FILE),
        "--reconstruct": (request.reconstruct, acting.DATASET),
    }
    given = [name for name, (value, _) in inputs.items() if value]
    require(len(given) < 2, f"{' and '.join(given[:2])} are both given; measure one at a time.")
    if given:
        acting.refuse_idle(request, f"{given[0]}, whose images exist", inputs[given[0]][1])
    require(
        request.num_samples is None or 2 <= request.num_samples <= _MOST_SAMPLES,
        f"--num-samples is {request.num_samples}; a distance needs 2 to {_MOST_SAMPLES:,} images.",
    )
    require(request.num_seeds >= 1, f"--seeds is {request.num_seeds}; expected at least 1.")
    check_value(request.seed + request.num_seeds - 1, Seed, "The last of --seeds")
    require(request.batch_size >= 1, f"--batch-size is {request.batch_size}; expected at least 1.")
    if request.protocol:
        check_protocol(request.protocol)


def _name(request: EvaluateRequest, folder: ModelFolder | None) -> str:
    """Name of the default folder of the results."""
    path = request.images or request.samples
    if path is not None:
        return path.resolve().stem if request.samples else path.resolve().name
    return folder.title if folder else "model"


def _conditions(
    request: EvaluateRequest, sampler: Sampler, processes: Processes, reporter: Reporter
) -> dict[int, Asked]:
    """Seed -> the classes or prompts to measure, checked; the order of unnamed classes follows from the seed."""
    name = sampler.folder.name
    if sampler.config.condition == "text":
        require(
            bool(request.prompts) or bool(request.classes),  # which the sampler refuses
            f"Model {name} is conditioned on text; give the prompts to measure it on: --prompts FILE, one a "
            "line (`adanat info --dataset mscoco --captions FILE` writes some), or --prompt TEXT.",
        )
        broken = [prompt for prompt in request.prompts if "\n" in prompt]
        require(not broken, f"Prompt {broken[:1]} has several lines; write it on one.")
        acting.refuse_idle(request, f"model {name}, which is conditioned on text", acting.PROMPTS)
    else:
        acting.refuse_idle(request, f"model {name}, which is conditioned on classes", acting.CLASSES)
    with processes.state.local_main_process_first():  # it downloads a text encoder; the others find the files
        first = sampler.conditions(request.classes, request.prompts, request.seed, reporter.warn)
    seeds = range(request.seed, request.seed + request.num_seeds)
    if request.classes or request.prompts:
        return dict.fromkeys(seeds, first)
    return {seed: sampler.conditions((), (), seed) for seed in seeds}


def _subjects(
    request: EvaluateRequest,
    folder: ModelFolder | None,
    processes: Processes,
    reporter: Reporter,
) -> list[Subject]:
    """The sets of images to measure, checked as far as possible without loading weights."""
    if request.samples is not None:
        return [_given(request, SampleFile(request.samples, processes.device))]
    if request.images is not None or folder is None:
        given = ImageFolder(request.images or Path(), request.workers, processes.device)
        if given.note:
            reporter.warn(given.note)
        return [_given(request, given)]
    if request.reconstruct:
        with processes.state.local_main_process_first():  # it may download images; the others find them
            reconstructed = open_reconstructions(request, folder, processes.device, reporter)
        return [Subject(reconstructed.name, "reconstructions", reconstructed, reconstructed.num_images)]
    sampler = Sampler(folder, processes.device, request.precision, request.text_encoder)
    sampler.precision = of_main_process(sampler.precision)
    if request.compiled:
        sampler.compile(reporter.log)
    conditions = _conditions(request, sampler, processes, reporter)
    num_images = request.num_samples or _usual_number(folder, sampler.config.condition, reporter)
    subjects: dict[str, Subject] = {}
    for name, choice in _schedules(request, sampler):
        for seed, asked in conditions.items():
            images = GeneratedImages(sampler, asked, choice, num_images, seed, request.batch_size)
            # The first seed has the folder that it has without others, so that these can join it later.
            own = f"-seed{seed}" if seed != request.seed else ""
            subject = Subject(name, f"{name.replace(':', '-')}-{choice.num_steps}{own}", images, num_images)
            require(
                ":" not in name or subject.folder_name not in subjects,
                f"Two schedules are called {name}, {choice.num_steps} steps; give their files different names.",
            )
            subjects[subject.folder_name] = subject
    return list(subjects.values())


def _schedules(request: EvaluateRequest, sampler: Sampler) -> Iterator[tuple[str, ScheduleChoice]]:
    """Yield the name and the settled choice of each schedule to measure."""
    unused = set(request.steps)
    for argument in request.schedules or ("",):
        kind, _, file = argument.partition(":")
        for num_steps in (None,) if file else request.steps or (None,):  # a file brings its own
            choice = choose_schedule(
                argument, num_steps, request.sampling_temperature, request.remask_temperature, request.guidance_scale
            )
            choice = settle_schedule(choice, sampler.folder)[0]
            unused.discard(choice.num_steps)
            sampler.check_steps(choice.num_steps)
            yield f"{kind}:{Path(file).stem}" if file else choice.kind, choice
    require(
        not unused,
        f"--steps {', '.join(map(str, sorted(unused)))} has no meaning with schedules from files, which bring their "
        "own number; leave it out.",
    )


def _usual_number(folder: ModelFolder, condition: str, reporter: Reporter) -> int:
    """As many images as the NAT was trained on, up to the field's number; logged where it is fewer."""
    most, num_trained = USUAL_NUM_SAMPLES[condition], num_trained_on(folder)
    number = usual_evaluation(num_trained, most)
    if number < most:
        reporter.log(
            f"{number:,} images are measured, for the model was trained on {num_trained:,}; --num-samples sets another "
            f"number, such as the usual {most:,}."
        )
    return number


def _given(request: EvaluateRequest, images: ImageFolder | SampleFile) -> Subject:
    """Check the number of images that exist."""
    num_images = request.num_samples or images.num_images
    require(images.num_images >= 2, f"{images.origin} holds one image; a distance needs at least 2.")
    require(
        2 <= num_images <= images.num_images,
        f"--num-samples is {num_images}, but {images.origin} holds {images.num_images} images; expected 2 to "
        f"{images.num_images}.",
    )
    return Subject(images.origin, "images", images, num_images)
