"""The tab that draws the same images under several schedules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.jobs.sample.pictures import Pixels
from adanat_cli.jobs.studio import pictures
from adanat_cli.jobs.studio.assets import script
from adanat_cli.jobs.studio.draw_tab import EMPTY_CURVES, DrawTab
from adanat_cli.jobs.studio.drawing import Drawing, SampleDrawing
from adanat_cli.jobs.studio.form import Form
from adanat_cli.jobs.studio.room import Kept, Room, curves_of_all, plain, rows_of
from adanat_cli.jobs.studio.tab import Press, Tab, Updates
from adanat_cli.jobs.studio.ways import AUTOMATIC, COSINE, HALTON, LEARNED, TUNED, WAYS, Rows

_FIRST = [LEARNED, COSINE, TUNED, HALTON]


class CompareTab(Tab):
    """Compare."""

    def __init__(self, room: Room, form: Form, drawn: DrawTab) -> None:
        """Lay it out; the table by hand is that of the other tab."""
        super().__init__(room, form, "compare", "Comparing")
        ways = [way for way in WAYS if way != AUTOMATIC]
        self.ways = gr.CheckboxGroup(
            ways,
            value=_FIRST,
            label="Schedules",
            elem_id="ways",
            info="from the same seed; tuned: what the policy starts from; by hand: the curves of Draw",
        )
        self.add_buttons("Compare")
        self.table = gr.HTML(elem_id="compared", elem_classes="plain")
        gr.Markdown("#### The four values of every step")
        self.curves = gr.HTML(
            None,
            html_template=EMPTY_CURVES,
            js_on_load=script("curves.js"),
            elem_id="all-curves",
            apply_default_css=False,
            elem_classes="plain",
        )
        self.add_downloads()
        self.wire(self.ways, drawn.curves, [], [self.table, self.curves])

    def draw(self, press: Press, *values: Any) -> Iterator[Updates]:
        """Draw the images under every schedule."""
        chosen, curves = values
        require(bool(chosen), "No schedule is chosen; choose one or more.")
        ways = [way for way in WAYS if way in chosen]
        prepared = self._prepared(press, ways, rows_of(curves))
        yield {**self.begun(press.kept), self.curves: None}
        yield from self._drawn(prepared, ways, press)

    def _prepared(self, press: Press, ways: Sequence[str], rows: Rows) -> list[Drawing | str]:
        """A drawing for each way, or why there is none.

        Raises:
            AdaNATError: if there is none of any way.
        """
        prepared = list[Drawing | str]()
        for way in ways:
            own = press.folder / way.replace(" ", "-")
            try:
                request = press.asked.sample_request(press.sampler, way, rows, own)
                settled = self.room.settled(request, bool(press.asked.prompts))
                prepared.append(SampleDrawing(settled, press.sampler, press.warnings))
            except AdaNATError as problem:
                if way == ways[-1] and all(isinstance(one, str) for one in prepared):
                    raise
                prepared.append(plain(problem, own))
        return prepared

    def _drawn(self, prepared: Sequence[Drawing | str], ways: Sequence[str], press: Press) -> Iterator[Updates]:
        drawings = [one for one in prepared if isinstance(one, Drawing)]
        errors = [one if isinstance(one, str) else "" for one in prepared]
        labels = list(map(drawings[0].label, range(drawings[0].total)))
        shown: list[Sequence[Pixels]] = [[] for _ in ways]
        seconds = 0.0
        yield {self.table: pictures.columns(ways, shown, labels, errors, 0)}
        for place, drawing in enumerate(prepared):
            if isinstance(drawing, str):
                continue
            before = drawings.index(drawing)
            for frame in drawing.frames():
                shown[place] = frame.images
                done = place + (frame.share == 1)
                share = (before + frame.share) / len(drawings)
                yield {
                    self.status: pictures.progress(ways[place], frame, drawing.total, share),
                    self.table: pictures.columns(ways, shown, labels, errors, done),
                }
            seconds += frame.seconds
        if isinstance(prepared[-1], str):
            yield {self.table: pictures.columns(ways, shown, labels, errors, len(ways))}
        heads = [way for way, one in zip(ways, prepared, strict=True) if isinstance(one, Drawing)]
        total = sum(drawing.total for drawing in drawings)
        words = f"{total} images from seed {drawings[0].seed}: {total / seconds:.2f} images/s."
        yield {
            **self.finished(Kept(drawings, heads, press.folder), words, [*dict.fromkeys(press.warnings)]),
            self.curves: curves_of_all(drawings, heads),
        }
