"""The tab that draws images, and shows and changes the four values of every step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.studio import pictures
from adanat_cli.jobs.studio.assets import script
from adanat_cli.jobs.studio.drawing import SampleDrawing
from adanat_cli.jobs.studio.form import Form
from adanat_cli.jobs.studio.room import Kept, Room, curves_of, curves_of_table, plain, rows_of
from adanat_cli.jobs.studio.tab import Press, Tab, Updates
from adanat_cli.jobs.studio.ways import AUTOMATIC, BY_HAND, WAYS, fixed_rows, stretched

EMPTY_CURVES = '<div class="curves"></div>'


class DrawTab(Tab):
    """Draw."""

    def __init__(self, room: Room, form: Form) -> None:
        """Lay it out."""
        super().__init__(room, form, "draw", "Drawing")
        self.way = gr.Radio(
            [*WAYS],
            value=AUTOMATIC,
            label="Schedule",
            elem_id="way",
            info="automatic: learned where the model has a policy for this number of steps, else cosine",
        )
        self.add_buttons("Draw")
        self.gallery = gr.HTML(elem_id="gallery", elem_classes="plain", js_on_load=script("gallery.js"))
        gr.Markdown("#### The four values of every step")
        first = curves_of_table(AUTOMATIC, ())
        self.curves = gr.HTML(
            first,
            html_template=EMPTY_CURVES,
            js_on_load=script("curves.js"),
            elem_id="curves",
            apply_default_css=False,
            elem_classes="plain",
        )
        self.add_downloads()
        self.wire(self.way, self.curves, [], [self.gallery, self.curves])
        light: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
        chosen = ([self.form.model, self.form.steps, self.way, self.curves], [self.curves, self.status])
        self.way.input(self._show_way, *chosen, **light)
        self.form.steps.change(self._show_way, *chosen, **light)
        self.form.model.change(self._show_way, *chosen, **light)
        self.curves.input(lambda: BY_HAND, None, self.way, **light)

    def draw(self, press: Press, *values: Any) -> Iterator[Updates]:
        """Draw the images, and show their curves."""
        way, curves = values
        request = press.asked.sample_request(press.sampler, way, rows_of(curves), press.folder)
        settled = self.room.settled(request, bool(press.asked.prompts))
        drawing = SampleDrawing(settled, press.sampler, press.warnings)
        words = yield from self.watched(drawing, press, self.gallery, "Click an image to edit it.")
        kept = Kept([drawing], [way], press.folder)
        yield {**self.finished(kept, words, press.warnings), self.curves: curves_of(drawing, way)}

    def _show_way(self, model: str, steps: float | None, way: str, curves: Any) -> tuple[Any, Any]:
        """Show the table of a schedule that is chosen; by hand, go on with the table that is shown."""
        try:
            asked = self.form.read(model, (), "", steps or 0, 1, 0)
            sampler = self.room.models.get(asked.model)
            sampler.check_steps(asked.num_steps)
            rows = rows_of(curves)
            if way == BY_HAND and rows and asked.num_steps > 0:
                rows = stretched(rows, asked.num_steps) if len(rows) != asked.num_steps else rows
            else:
                known = AUTOMATIC if way == BY_HAND else way
                rows = fixed_rows(known, sampler, asked.num_steps, self.room.root / "tables")
                if way == BY_HAND and not rows:
                    rows = fixed_rows("cosine", sampler, asked.num_steps, self.room.root / "tables")
        except AdaNATError as problem:
            return gr.skip(), pictures.error(plain(problem, self.room.root))
        return curves_of_table(way, rows), ""
