"""What the tabs have in common: a button that draws and one that cancels, progress, downloads, and the command line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.sample.sampler import Sampler
from adanat_cli.jobs.studio import pictures
from adanat_cli.jobs.studio.drawing import Drawing
from adanat_cli.jobs.studio.form import Asked, Form
from adanat_cli.jobs.studio.room import Kept, Room, plain
from adanat_cli.jobs.studio.ways import BY_HAND

QUEUE = "drawing"
"""All work with a model takes turns in one queue, whoever asks."""
_KEEP_SECONDS = 3600
_CHANGED = '<p class="note">The settings have changed since these images were drawn.</p>'
Updates = dict[Any, Any]


@dataclass(frozen=True)
class Press:
    """A press of a tab's button.

    Attributes:
        asked: what the form holds.
        sampler: its model.
        folder: where its files go.
        kept: the drawing before; None for none.
        warnings: those to be shown.
    """

    asked: Asked
    sampler: Sampler
    folder: Path
    kept: Kept | None
    warnings: list[str] = field(default_factory=list)


class Tab(ABC):
    """One tab; a subclass adds what it draws.

    Attributes:
        room: shared by all tabs and sessions.
        form: what to draw.
        status: progress, messages and errors.
    """

    def __init__(self, room: Room, form: Form, name: str, doing: str) -> None:
        """Keep what is shared, and what is said before there is anything to see, such as "Drawing"."""
        self.room, self.form, self.name, self.doing = room, form, name, doing

    @abstractmethod
    def draw(self, press: Press, *values: Any) -> Iterator[Updates]:
        """Draw; a mistake that is raised is shown.

        Args:
            press: what was asked for.
            values: those of the tab's own inputs.
        """

    def add_buttons(self, words: str) -> None:
        """Add the buttons and the line below them."""
        with gr.Row(elem_classes="buttons"):
            self.button = gr.Button(words, variant="primary", size="md", elem_id=f"{self.name}-draw", min_width=120)
            self.cancel = gr.Button("Cancel", size="md", elem_id=f"{self.name}-cancel", min_width=90)
        self.status = gr.HTML("", elem_id=f"{self.name}-status", min_height=34, elem_classes="plain")
        gr.HTML(_CHANGED, elem_id=f"{self.name}-changed", elem_classes="plain")

    def add_downloads(self) -> None:
        """Add the downloads of what is drawn, and the command line that draws the same."""
        self.kept = gr.State(None, time_to_live=_KEEP_SECONDS, delete_callback=_forget)
        with gr.Row(elem_classes="buttons"):
            images, traces = f"{self.name}-images", f"{self.name}-traces"
            self.images = gr.DownloadButton(
                "Download images", interactive=False, size="md", elem_id=images, min_width=140
            )
            self.traces = gr.Button("Download traces", interactive=False, size="md", elem_id=traces, min_width=140)
            self.trace_file = gr.DownloadButton("", visible="hidden", elem_id=f"{traces}-file")
        self.command = gr.Textbox(
            label="The command that draws the same",
            interactive=False,
            buttons=["copy"],
            lines=1,
            max_lines=6,
            elem_id=f"{self.name}-command",
            info="The same bytes on the same machine; its files are in the downloads.",
        )

    def wire(self, way: Any, curves: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Let the button draw, and changes of what it reads mark what was drawn before.

        Args:
            way: the schedule, or the schedules.
            curves: the table by hand.
            inputs: other inputs of ``draw``, which takes those two first.
            outputs: what it updates; the downloads and the state are among them in any case.
        """
        shared = [self.status, self.images, self.traces, self.command, self.kept]
        settings = {"concurrency_id": QUEUE, "concurrency_limit": 1, "show_progress_on": self.status}
        drawing = self.button.click(
            self._pressed,
            [*self.form.fields, way, curves, *inputs, self.kept],
            [*shared, *outputs],
            show_progress="minimal",
            **settings,
        )
        self._mark_changes(way, curves, inputs)
        tracing = self.traces.click(
            self._write_traces, self.kept, [self.status, self.trace_file], show_progress="minimal", **settings
        )
        tracing.success(None, js=f"() => document.querySelector('#{self.name}-traces-file').click()")
        self.cancel.click(
            lambda: pictures.message("Cancelled."),
            None,
            self.status,
            cancels=[drawing, tracing],
            queue=False,
            show_progress="hidden",
        )

    def watched(self, drawing: Drawing, press: Press, gallery: Any, note: str = "") -> Generator[Updates, None, str]:
        """Draw and show every step.

        Args:
            drawing: what to draw.
            press: by which it was asked for.
            gallery: where images are shown.
            note: a line below them in the end.

        Returns:
            What there is to say of it.
        """
        labels, words = list(map(drawing.label, range(drawing.total))), drawing.line.removesuffix(".")
        yield {**self.begun(press.kept), gallery: pictures.gallery([], labels, False)}
        for frame in drawing.frames():
            is_last = frame.share == 1
            yield {
                self.status: pictures.progress(words, frame, drawing.total),
                gallery: pictures.gallery(frame.images, labels, is_last, note if is_last else ""),
            }
        return f"{words}: {drawing.total / frame.seconds:.2f} images/s."

    def begun(self, kept: Kept | None) -> Updates:
        """What changes before anything is drawn."""
        _forget(kept)
        off = gr.update(interactive=False)
        return {self.images: off, self.traces: off, self.command: "", self.kept: None}

    def finished(self, kept: Kept, words: str, warnings: Sequence[str]) -> Updates:
        """What changes when all is drawn."""
        self.room.num_images += sum(drawing.total for drawing in kept.drawings)
        return {
            self.status: pictures.message(words, warnings),
            self.images: gr.update(value=str(kept.zipped()), interactive=True),
            self.traces: gr.update(interactive=True),
            self.command: kept.commands,
            self.kept: kept,
        }

    def _pressed(self, *values: Any) -> Iterator[Updates]:
        fields, own, kept = values[: len(self.form.fields)], values[len(self.form.fields) : -1], values[-1]
        folder = self.room.folder()
        yield {self.status: pictures.progress(self.doing, None, 0)}
        try:
            asked = self.form.read(*fields)
            yield from self.draw(Press(asked, self.room.models.get(asked.model), folder, kept), *own)
        except AdaNATError as problem:
            yield {self.status: pictures.error(plain(problem, folder))}

    def _mark_changes(self, way: Any, curves: Any, inputs: Sequence[Any]) -> None:
        """Mark the page where what a finished drawing was asked for has changed since; the style sheet shows it."""
        mark = f"document.querySelector('.gradio-container').dataset.{self.name}"
        quick: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
        self.button.click(None, js=f"() => {{ {mark} = ''; }}", **quick)
        for one in (*self.form.fields, *inputs):
            changes = one.change if isinstance(one, gr.State) else one.input
            changes(None, js=f"() => {{ {mark} = 'changed'; }}", **quick)
        way.change(None, js=f"() => {{ {mark} = 'changed'; }}", **quick)
        # Others than those by hand do not read the curves.
        by_hand = f"way => {{ if ([way].flat().includes('{BY_HAND}')) {mark} = 'changed'; }}"
        curves.input(None, way, js=by_hand, **quick)

    def _write_traces(self, kept: Kept | None) -> Iterator[Updates]:
        if kept is None:
            return
        yield {self.status: pictures.working(0.0, "Writing traces")}
        for done in kept.zipped_traces():
            if isinstance(done, float):
                yield {self.status: pictures.working(done, "Writing traces")}
            else:
                yield {self.status: pictures.message("The traces are written."), self.trace_file: str(done)}


def _forget(kept: Kept | None) -> None:
    if kept is not None:
        kept.forget()
