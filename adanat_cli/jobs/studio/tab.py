"""What the tabs have in common: a button that draws and one that cancels, progress, downloads, and the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from adanat_cli.jobs.studio import pictures
from adanat_cli.jobs.studio.form import Form
from adanat_cli.jobs.studio.room import Kept, Room

QUEUE = "drawing"
"""All work with a model takes turns in one queue, whoever asks."""
_KEEP_SECONDS = 3600
Updates = dict[Any, Any]


class Tab:
    """One tab; a subclass adds what it draws.

    Attributes:
        room: shared by all tabs and sessions.
        form: what to draw.
        status: progress, messages and errors.
    """

    def __init__(self, room: Room, form: Form, name: str) -> None:
        """Keep what is shared."""
        self.room, self.form, self.name = room, form, name

    def add_buttons(self, words: str) -> None:
        """Add the buttons and the line below them."""
        with gr.Row(elem_classes="buttons"):
            self.button = gr.Button(words, variant="primary", size="md", elem_id=f"{self.name}-draw", min_width=120)
            self.cancel = gr.Button("Cancel", size="md", elem_id=f"{self.name}-cancel", min_width=90)
        self.status = gr.HTML("", elem_id=f"{self.name}-status", min_height=34, elem_classes="plain")

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

    def wire(self, run: Callable[..., Iterator[Updates]], inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Let the button draw; the downloads and the state are among the outputs in any case."""
        shared = [self.status, self.images, self.traces, self.command, self.kept]
        settings = {"concurrency_id": QUEUE, "concurrency_limit": 1, "show_progress_on": self.status}
        drawing = self.button.click(
            run, [*self.form.fields, *inputs, self.kept], [*shared, *outputs], show_progress="minimal", **settings
        )
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
