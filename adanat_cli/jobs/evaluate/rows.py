"""The rows of an evaluation: features of each set of images are saved to disk, then measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adanat_cli import __version__
from adanat_cli.core.config.requests import EvaluateRequest
from adanat_cli.core.data.parts import Parts
from adanat_cli.core.metrics.extraction import Extractor
from adanat_cli.core.metrics.references import Reference, compare_classes
from adanat_cli.jobs.evaluate.clip_scorer import ClipScorer
from adanat_cli.jobs.evaluate.feature_pass import extract_features, open_store, progress
from adanat_cli.jobs.evaluate.feature_store import FeatureStore, keep_store, remove_store
from adanat_cli.jobs.evaluate.generated_images import GeneratedImages
from adanat_cli.jobs.evaluate.image_sets import ImageSet, SampleFile, parts_of
from adanat_cli.jobs.evaluate.measures import MEASURES, MOST_HELD, NEIGHBORS, Measured, measure
from adanat_cli.jobs.evaluate.reconstructions import Reconstructions
from adanat_cli.jobs.evaluate.report import Results
from adanat_cli.jobs.evaluate.spread import spreads
from adanat_cli.jobs.evaluate.tables import Row, ranges
from adanat_cli.jobs.resolve.extractors import identity
from adanat_cli.jobs.runtime.devices import Processes
from adanat_cli.jobs.runtime.reporter import Reporter

_REFERENCE_IMAGES = "reference"


@dataclass(frozen=True)
class Subject:
    """One set of images to measure.

    Attributes:
        name: name of its row: the schedule of generated images, else the folder, file or data set.
        folder_name: name of the folder of its features.
        images: the set.
        num_images: how many of its images are measured.
    """

    name: str
    folder_name: str
    images: ImageSet
    num_images: int

    @property
    def title(self) -> str:
        """The name, and for generated images the number of steps and the seed."""
        images = self.images
        if not isinstance(images, GeneratedImages):
            return self.name
        return f"{self.name}, {images.choice.num_steps} steps, seed {images.seed}"


@dataclass
class Evaluation:
    """What the rows of one run share.

    Attributes:
        request: what was asked for.
        output: folder of the results, and of features while they are needed.
        reference_file: file of the reference.
        reference_name: name of that file in the results, without its path.
        reference: statistics that images are compared with.
        extractor: feature network of the protocol.
        scorer: compares images with their prompts; None where that is left out.
        missing_clip: why it is left out; "" if it is not.
        processes: processes that measure together.
        reporter: receives progress and messages.
    """

    request: EvaluateRequest
    output: Path
    reference_file: Path
    reference_name: str
    reference: Reference
    extractor: Extractor
    scorer: ClipScorer | None
    missing_clip: str
    processes: Processes
    reporter: Reporter

    def run(self, subjects: Sequence[Subject]) -> list[Row]:
        """Measure what the results in the folder do not hold yet; returns the rows, on the main process only.

        Raises:
            AdaNATError: if images cannot be read, or the folder holds features of other settings.
            KeyboardInterrupt: after Ctrl-C; the features of whole parts are kept.
        """
        results = Results(self.output)
        found = [results.find(self._settings(subject), self.request.spread) for subject in subjects]
        self.processes.state.wait_for_everyone()  # all have read the results before any adds to them
        real = self._reference_features() if None in found else None
        rows = []
        for subject, row in zip(subjects, found, strict=True):
            if row is not None:
                kept = ", and keeps its features" if self.request.keep_features else ""
                self.reporter.log(
                    f"{results.path} already holds {subject.title}; another --output measures it again{kept}."
                )
            elif (row := self._measure(subject, real)) is not None:
                results.add(row)
            if row is not None:
                rows.append(row)
            self._keep_or_remove(subject.folder_name)
        self._keep_or_remove(_REFERENCE_IMAGES)
        return rows

    def _keep_or_remove(self, folder_name: str) -> None:
        """Keep the features of what is measured, or remove them unless an earlier run was asked to keep them."""
        if self.processes.is_main:
            (keep_store if self.request.keep_features else remove_store)(self._folder(folder_name))

    def _measure(self, subject: Subject, real: Tensor | None) -> Row | None:
        """Return the row of one set of images on the main process, None on others."""
        store, speed = self._extract(subject.title, subject.folder_name, subject.images, subject.num_images)
        if not self.processes.is_main:
            return None
        skipped = subject.images.check_read(store) if isinstance(subject.images, Reconstructions) else {}
        device = self.processes.device if self.processes.device.type == "cuda" else torch.device("cpu")
        measured = Measured(
            store,
            store.num_rows(),
            self.reference,
            real,
            self.extractor.protocol,
            subject.images.missing_labels,
            self._missing_recognition(subject),
            subject.images.missing_prompts or self.missing_clip,
            device,
        )
        with self.reporter.task(f"Computing the metrics of {subject.title}", len(MEASURES), "metrics") as task:
            values, absent = measure(measured, task=task)
        cost: dict[str, Any] = {"images_per_second": speed, "num_processes": self.processes.num}
        if isinstance(subject.images, GeneratedImages):
            cost["tera_flops_per_image"] = subject.images.tera_flops()
        differing = compare_classes(self.reference.classes, subject.images.classes(subject.num_images))
        return {
            "name": subject.name,
            "origin": subject.images.origin,
            "settings": self._settings(subject),
            "metrics": values,
            "absent": absent,
            "neighbors": {name: k for name, k in NEIGHBORS.items() if values[name] is not None},
            "reference": {
                "file": self.reference_name,
                "source": self.reference.source,
                "num_images": self.reference.num_images or None,
                "num_classes": None if self.reference.classes is None else len(self.reference.classes),
                "classes": None if self.reference.classes is None else ranges(self.reference.classes),
                **({"recognition": asdict(self.reference.recognition)} if self.reference.recognition else {}),
            },
            **({"classes": differing} if differing else {}),
            **({"held": MOST_HELD} if subject.num_images > MOST_HELD else {}),
            **({"skipped": skipped} if skipped else {}),
            **self._spread(measured, values, subject.title),
            "cost": cost,
        }

    def _spread(self, measured: Measured, values: dict[str, float | None], title: str) -> dict[str, Any]:
        """The spread of the metrics for which it was asked, and the number of features."""
        if not (names := self.request.spread):
            return {}
        spread = spreads(measured, values, names, self.reporter, title)
        return {"spread": spread, "feature_width": self.extractor.feature_width}

    def _missing_recognition(self, subject: Subject) -> str:
        """Why ImageNet's classes cannot be recognised in the images; "" if they can."""
        images = subject.images
        if images.missing_labels:
            return images.missing_labels
        if isinstance(images, GeneratedImages | Reconstructions):
            return "" if images.numbered_as_imagenet else "their classes do not have ImageNet's numbers"
        # A file of images does not tell whose numbers it has; those of the same classes as the reference's are its own.
        differing = compare_classes(self.reference.classes, images.classes(subject.num_images))
        known = self.reference.recognition is not None and not differing
        return "" if known else f"the classes of {images.origin} are not those of a reference with ImageNet's numbers"

    def _settings(self, subject: Subject) -> dict[str, Any]:
        """What decides the numbers of a row, as JSON values."""
        features = self._features_settings(subject.images, subject.num_images)
        return {**features, "reference": self.reference.sha256, "adanat": __version__}

    def _features_settings(self, images: ImageSet, num_images: int) -> dict[str, Any]:
        return {
            **images.identity(),
            "num_images": num_images,
            **identity(self.extractor),
            **(scorer.identity() if (scorer := self._scorer(images)) else {}),
        }

    def _scorer(self, images: ImageSet) -> ClipScorer | None:
        """The scorer, if these images have prompts."""
        return None if images.missing_prompts else self.scorer

    def _reference_features(self) -> Tensor | None:
        """Real features for precision and recall, on the main process: stored ones, or those of stored images."""
        if self.reference.features is not None or self.reference.images is None:
            return self.reference.features
        images = SampleFile(self.reference_file, self.processes.device)
        num_images = min(images.num_images, MOST_HELD)
        store, _ = self._extract("the reference's images", _REFERENCE_IMAGES, images, num_images)
        return store.column("features") if self.processes.is_main else None

    def _extract(
        self, title: str, folder_name: str, images: ImageSet, num_images: int
    ) -> tuple[FeatureStore, float | None]:
        """Save the features of a set, or those that are missing; returns them with the images per second."""
        settings = {**self._features_settings(images, num_images), "part_size": self.request.part_size}
        store = open_store(self._folder(folder_name), settings, self.processes, self.reporter)
        parts = Parts(num_images, self.request.part_size, self.processes.rank, self.processes.num)
        with progress(self.reporter, f"Measuring {title}", parts, store) as task:
            left = parts_of(images, parts, store.has)
            return store, extract_features(left, store, self.extractor, self.processes, task, self._scorer(images))

    def _folder(self, name: str) -> Path:
        return self.output / "features" / name
