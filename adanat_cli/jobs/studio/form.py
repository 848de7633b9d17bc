"""What to draw, as the page asks for it: the model, its classes or prompts, steps, seed and number of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from adanat_cli.core.config.edit import EditRequest, read_box, read_sides
from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.jobs.resolve.models import DEFAULT_MODEL
from adanat_cli.jobs.sample.sampler import Sampler
from adanat_cli.jobs.studio import pictures
from adanat_cli.jobs.studio.models import Models, describe, offered
from adanat_cli.jobs.studio.ways import Rows, schedule_options

MOST_IMAGES = 64
_FIRST_IMAGES = 4
_FIRST_STEPS = 8


@dataclass(frozen=True)
class Asked:
    """What the form holds.

    Attributes:
        model: name; "" for the embedded one.
        classes, prompts: of which one is empty.
        num_steps, seed, num_images: as in the request of ``adanat sample``.
    """

    model: str
    classes: tuple[str, ...]
    prompts: tuple[str, ...]
    num_steps: int
    seed: int
    num_images: int

    def sample_request(self, sampler: Sampler, way: str, rows: Rows, folder: Path) -> SampleRequest:
        """The request of ``adanat sample`` that draws this into a folder.

        Raises:
            AdaNATError: if the schedule cannot be had, or there are too many images.
        """
        self._check(sampler)
        schedule = schedule_options(way, sampler.folder, self.num_steps, rows, folder)
        return SampleRequest(num_images=self.num_images, output=folder, **self._shared(), **schedule)

    def edit_request(self, sampler: Sampler, way: str, rows: Rows, folder: Path, files: EditFiles) -> EditRequest:
        """The request of ``adanat edit`` that draws this into a folder.

        Raises:
            AdaNATError: as ``sample_request``, or if box or extension cannot be read.
        """
        self._check(sampler)
        schedule = schedule_options(way, sampler.folder, self.num_steps, rows, folder)
        places: dict[str, Any] = {"box": read_box(files.box)} if files.box else {}
        if files.extend:
            places["extend"] = read_sides(files.extend)
        return EditRequest(
            image=files.image,
            mask=files.mask,
            variations=self.num_images,
            full_size=files.full_size,
            output=folder,
            **places,
            **self._shared(),
            **schedule,
        )

    def _shared(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "classes": self.classes,
            "prompts": self.prompts,
            "num_steps": self.num_steps,
            "seed": self.seed,
        }

    def _check(self, sampler: Sampler) -> None:
        sampler.check_steps(self.num_steps)  # before a table by hand would be of another number
        require(
            self.num_images <= MOST_IMAGES,
            f"--num-images is {self.num_images}; the studio draws at most {MOST_IMAGES} at once, `adanat sample` more.",
        )


@dataclass(frozen=True)
class EditFiles:
    """What an edit is of.

    Attributes:
        image, mask: files.
        box, extend: as typed for the command; "" for none.
        full_size: whether results have the image's own size.
    """

    image: Path
    mask: Path | None
    box: str
    extend: str
    full_size: bool


class Form:
    """The part of the page that is beside all tabs.

    Attributes:
        fields: components whose values ``read`` takes, in order.
    """

    def __init__(self, models: Models, model: str) -> None:
        """Lay it out for a model."""
        self._models = models
        known = describe(models.get(model))
        names = offered(model)
        self.model = gr.Dropdown(
            names,
            value=model or DEFAULT_MODEL,
            label="Model",
            allow_custom_value=True,
            elem_id="model",
            info="name, folder or Hub id",
        )
        self.facts = gr.HTML(_facts(known.words), elem_id="facts")
        first = [value for _, value in known.classes if value in _FAVOURITES]
        self.classes = gr.Dropdown(
            known.classes,
            value=first,
            multiselect=True,
            label="Classes",
            allow_custom_value=True,
            visible=not known.by_prompt,
            elem_id="classes",
            info="in turn; none for all",
        )
        self.prompts = gr.Textbox(
            label="Prompts",
            lines=3,
            visible=known.by_prompt,
            elem_id="prompts",
            info="one a line, in turn",
        )
        with gr.Row():
            self.steps = gr.Number(_FIRST_STEPS, label="Steps", elem_id="steps", min_width=90)
            self.count = gr.Number(_FIRST_IMAGES, label="Images", elem_id="count", min_width=90)
            self.seed = gr.Number(0, label="Seed", elem_id="seed", min_width=90)
        self.fields = [self.model, self.classes, self.prompts, self.steps, self.count, self.seed]
        self.model.change(
            self._describe, self.model, [self.facts, self.classes, self.prompts], queue=False, show_progress="hidden"
        )

    def read(self, model: str, classes: Sequence[str], prompts: str, steps: float, count: float, seed: float) -> Asked:
        """What the fields hold.

        Raises:
            AdaNATError: if a number is missing or not whole, or the model cannot be had.
        """
        for name, number in (("--steps", steps), ("--num-images", count), ("--seed", seed)):
            found = "empty" if number is None else f"{number:g}"
            require(number is not None and float(number).is_integer(), f"{name} is {found}; expected a whole number.")
        name = "" if model == DEFAULT_MODEL else model.strip()
        by_prompt = self._models.get(name).config.condition == "text"
        lines = tuple(line.strip() for line in prompts.splitlines() if line.strip()) if by_prompt else ()
        return Asked(name, () if by_prompt else tuple(classes), lines, int(steps), int(seed), int(count))

    def _describe(self, model: str) -> tuple[Any, Any, Any]:
        """Show what another model can draw."""
        try:
            known = describe(self._models.get("" if model == DEFAULT_MODEL else model.strip()))
        except AdaNATError as problem:
            return pictures.error(str(problem)), gr.skip(), gr.skip()
        classes = gr.Dropdown(known.classes, value=[], visible=not known.by_prompt)
        return _facts(known.words), classes, gr.Textbox(visible=known.by_prompt)


_FAVOURITES = ("goldfish", "king penguin", "monarch", "seashore")


def _facts(words: str) -> str:
    return f"<p>{words}</p>"
