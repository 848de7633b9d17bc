"""Images from Python: the code that ``adanat sample`` runs, without files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from adanat_cli.core.config import Precision
from adanat_cli.core.config.base import Seed, check_value
from adanat_cli.core.config.edit import Box, Sides, read_box, read_sides
from adanat_cli.core.errors import require
from adanat_cli.core.hub import HubId
from adanat_cli.jobs.resolve.models import resolve_model
from adanat_cli.jobs.resolve.schedules import ScheduleChoice, choose_schedule, settle_schedule
from adanat_cli.jobs.runtime.devices import pick_device
from adanat_cli.jobs.sample.canvas import Canvas, canvas_of
from adanat_cli.jobs.sample.conditions import Asked
from adanat_cli.jobs.sample.edit_files import picture_and_mask
from adanat_cli.jobs.sample.editing import draw, fit, paste_cut, paste_full
from adanat_cli.jobs.sample.pictures import Pixels
from adanat_cli.jobs.sample.sampler import Sampler
from adanat_cli.jobs.sample.trace import Trace

if TYPE_CHECKING:
    from adanat_cli.core.checkpoints.folder import ModelFolder

_NUM_IMAGES = 16


@dataclass(frozen=True)
class Samples:
    """What ``Pipeline.sample`` and ``Pipeline.edit`` return.

    Attributes:
        images: PIL images, in order.
        labels: class id of each image, or the position of its prompt; the number of classes for an edit of no class.
        trace: what every step decided for each image (the values that ``adanat sample --trace`` writes as JSON);
            empty unless it was asked for.
        schedule: what the steps followed, in words.
    """

    images: list[Image.Image]
    labels: list[int]
    trace: list[list[dict[str, Any]]]
    schedule: str


class Pipeline(Sampler):
    """A model, loaded and ready to draw.

    Example:
        >>> from adanat_cli import Pipeline
        >>> pipeline = Pipeline.from_pretrained("imagenet64")
        >>> pipeline.sample(labels=["golden retriever"], num_steps=8).images[0].save("dog.png")
    """

    def __init__(
        self, folder: ModelFolder, device: str = "", precision: Precision = "auto", compiled: bool = False
    ) -> None:
        """Load the networks of a model folder; ``from_pretrained`` finds one by name.

        Raises:
            AdaNATError: if a network is missing, damaged, or does not belong to the other.
        """
        super().__init__(folder, pick_device(device), precision)
        if compiled:
            self.compile(lambda _: None)
        self.load()

    @classmethod
    def from_pretrained(
        cls,
        name: str = "",
        revision: str | None = None,
        device: str | None = None,
        precision: Precision = "auto",
        compiled: bool = False,
    ) -> Pipeline:
        """Load a model.

        Args:
            name: a folder, a known name or a Hub id ``user/repo[@revision]``; "" for the embedded model.
            revision: branch, tag or commit on the Hub, instead of ``@revision``.
            device: cuda, mps or cpu; None for the best one here.
            precision: number format of the NAT.
            compiled: whether the NAT goes through torch.compile: the first batch takes a minute or more, and later
                ones, which are padded to as many images, are drawn faster. Rounding may change a few tokens.

        Raises:
            AdaNATError: if there is no such model or it is damaged.
        """
        if revision is not None:
            hub_id = HubId.parse(name, "Model")
            require(
                hub_id.revision in ("", revision),
                f"Model {name} names a revision, and revision={revision!r} another; give one of them.",
            )
            name = str(HubId(hub_id.repo, revision))
        return cls(resolve_model(name), device or "", precision, compiled)

    def sample(
        self,
        labels: Sequence[int | str] | int | str | None = None,
        prompts: Sequence[str] | str | None = None,
        num_steps: int | None = None,
        schedule: str = "",
        seed: int = 0,
        sampling_temperature: float | None = None,
        remask_temperature: float | None = None,
        guidance_scale: float | None = None,
        batch_size: int = 64,
        trace: bool = False,
        num_images: int | None = None,
    ) -> Samples:
        """Draw images; image i depends on the seed, i and its class only.

        Args:
            labels: class ids or names, also as an array, in turn over the images; None for all that the model has seen.
            prompts: texts, for models that are conditioned on text; in turn over the images.
            num_steps: T; None for 8, or what a schedule file says.
            schedule: "learned", "cosine", "halton", "autonat:FILE", "table:FILE"; "" is learned if possible.
            seed: everything random follows from it.
            sampling_temperature: factor on a fixed schedule's sampling temperature; for "halton", the temperature.
            remask_temperature: factor on a fixed schedule's re-masking temperature.
            guidance_scale: factor on a fixed schedule's guidance scale; for "halton", the scale.
            batch_size: images at a time; changes no image but by rounding, and none on a CPU.
            trace: whether to keep what every step decided.
            num_images: None for one of each label or prompt, or 16 without either.

        Raises:
            AdaNATError: if the request does not fit the model.
        """
        asked, texts = _listed(labels, "labels"), _listed(prompts, "prompts")
        total = (len(asked) or len(texts) or _NUM_IMAGES) if num_images is None else num_images
        require(total >= 1, f"num_images is {total}; expected at least 1.")
        choice = choose_schedule(schedule, num_steps, sampling_temperature, remask_temperature, guidance_scale)
        conditions = self._checked(choice, asked, texts, seed, batch_size)
        choice, line = settle_schedule(choice, self.folder)
        draw_batch = partial(self.images, self.schedule(choice), conditions, seed)
        return _in_batches(draw_batch, conditions, total, batch_size, trace, line)

    def edit(
        self,
        image: Image.Image | np.ndarray[Any, Any] | Path | str,
        mask: Image.Image | np.ndarray[Any, Any] | Path | str | None = None,
        box: tuple[int, int, int, int] | None = None,
        extend: int | Mapping[str, int] = 0,
        labels: Sequence[int | str] | int | str | None = None,
        prompts: Sequence[str] | str | None = None,
        variations: int | None = None,
        full_size: bool = False,
        num_steps: int | None = None,
        schedule: str = "",
        seed: int = 0,
        sampling_temperature: float | None = None,
        remask_temperature: float | None = None,
        guidance_scale: float | None = None,
        batch_size: int = 64,
        trace: bool = False,
    ) -> Samples:
        """Draw a part of an image anew, as ``adanat edit`` does; see ``adanat_cli.jobs.sample.canvas`` for the square.

        Args:
            image: (h, w, 3) uint8, a PIL image of any mode, or a file.
            mask: (h, w) bool, True where to change; or uint8, a PIL image or a file, white where to change.
            box: x, y, width, height of a rectangle to change, in pixels of the image.
            extend: pixels to add on all sides, or a mapping from left, top, right and bottom; they are drawn.
            labels: class ids or names, in turn over the variations; None for no class.
            prompts: texts, for models that are conditioned on text, in turn over the variations; None for none.
            variations: number of results; None for one, or one of each label or prompt.
            full_size: whether results are (h, w) with what was added, instead of the model's (S, S), or less along one
                side where the model sees a whole image that is not square.
            num_steps: T; None for 8, or what a schedule file says.
            schedule: as in ``sample``; re-masking ratios are fractions of the tokens that are drawn.
            seed: variation i depends on (seed, i), its class and the image only.
            sampling_temperature: as in ``sample``.
            remask_temperature: as in ``sample``.
            guidance_scale: as in ``sample``; without a class, it changes nothing.
            batch_size: variations at a time.
            trace: whether to keep what every step decided.

        Raises:
            AdaNATError: if the request does not fit the image or the model.
        """
        canvas = canvas_of(*picture_and_mask(image, mask), _box(box), _sides(extend), "the image")
        asked, texts = _listed(labels, "labels"), _listed(prompts, "prompts")
        total = (len(asked) or len(texts) or 1) if variations is None else variations
        require(total >= 1, f"variations is {total}; expected at least 1.")
        choice = choose_schedule(schedule, num_steps, sampling_temperature, remask_temperature, guidance_scale)
        conditions = self._checked(choice, asked, texts, seed, batch_size, free=not (asked or texts))
        return self._edited(canvas, choice, conditions, total, full_size, seed, batch_size, trace)

    def _edited(
        self,
        canvas: Canvas,
        choice: ScheduleChoice,
        conditions: Asked,
        total: int,
        full_size: bool,
        seed: int,
        batch_size: int,
        trace: bool,
    ) -> Samples:
        """Draw variations of a canvas and put them into its picture."""
        choice, line = settle_schedule(choice, self.folder)
        schedule, fitted = self.schedule(choice), fit(self, canvas, "the image")
        finish = partial(paste_full, canvas, fitted) if full_size else partial(paste_cut, fitted)

        def draw_batch(batch: range, kept: Trace | None) -> list[Pixels]:
            drawn = draw(self, schedule, conditions, seed, [fitted] * len(batch), batch, kept)
            return [finish(square, self.config.grid) for square in drawn]

        return _in_batches(draw_batch, conditions, total, batch_size, trace, line)

    def _checked(
        self,
        choice: ScheduleChoice,
        asked: list[str],
        texts: list[str],
        seed: int,
        batch_size: int,
        free: bool = False,
    ) -> Asked:
        """Check what both kinds of drawing are asked for; returns their classes or prompts, or none if ``free``."""
        require(batch_size >= 1, f"batch_size is {batch_size}; expected at least 1.")
        check_value(seed, Seed, "seed")
        self.check_steps(choice.num_steps)
        require(
            self.config.condition == "text" or not texts,
            f"Model {self.folder.name} draws classes, not prompts; give labels, as ids or names.",
        )
        return self.no_conditions() if free else self.conditions(asked, texts, seed, warnings.warn)


def _in_batches(
    draw_batch: Callable[[range, Trace | None], Iterable[Pixels]],
    conditions: Asked,
    total: int,
    batch_size: int,
    trace: bool,
    line: str,
) -> Samples:
    """Draw images batch by batch."""
    images: list[Image.Image] = []
    traces: list[list[dict[str, Any]]] = []
    for first in range(0, total, batch_size):
        batch = range(first, min(first + batch_size, total))
        kept = Trace(len(batch)) if trace else None
        images += map(Image.fromarray, draw_batch(batch, kept))
        if kept:
            traces += map(kept.values, range(len(batch)))
    return Samples(images, conditions.numbers(range(total)).tolist(), traces, line)


def _box(box: Sequence[int] | None) -> Box | None:
    return None if box is None else read_box(",".join(map(str, box)))


def _sides(extend: int | Mapping[str, int]) -> Sides:
    if not extend:
        return Sides()
    return read_sides(
        ",".join(f"{side}={n}" for side, n in extend.items()) if isinstance(extend, Mapping) else f"{extend}"
    )


def _listed(values: Any, name: str) -> list[str]:
    """One value, several, or an array of them as text; none for None."""
    if values is None:
        return []
    values = values.tolist() if hasattr(values, "tolist") else values
    listed = [str(value) for value in ([values] if isinstance(values, int | str) else values)]
    require(bool(listed), f"{name} is empty; expected at least one, or None.")
    return listed
