"""The tab that draws parts of an image anew."""

from __future__ import annotations

import base64
import binascii
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from adanat_cli.core.errors import AdaNATError, require
from adanat_cli.jobs.sample.edit_files import picture_and_mask
from adanat_cli.jobs.studio import pictures
from adanat_cli.jobs.studio.assets import script
from adanat_cli.jobs.studio.draw_tab import DrawTab
from adanat_cli.jobs.studio.drawing import EditDrawing
from adanat_cli.jobs.studio.form import EditFiles, Form
from adanat_cli.jobs.studio.room import Kept, Room, plain, rows_of
from adanat_cli.jobs.studio.tab import Press, Tab, Updates
from adanat_cli.jobs.studio.ways import AUTOMATIC, WAYS

_LONGEST_SIDE = 512
"""Of the picture on which a mask is painted."""
_DATA_URL = "data:image/png;base64,"


class EditTab(Tab):
    """Edit."""

    def __init__(self, room: Room, form: Form, drawn: DrawTab, tabs: gr.Tabs) -> None:
        """Lay it out; an image that is clicked in the other tab is edited here."""
        super().__init__(room, form, "edit", "Editing")
        self.image = gr.State("")
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                self.upload = gr.UploadButton(
                    "Open an image", file_types=["image"], size="md", elem_id="edit-upload", elem_classes="narrow"
                )
                self.mask = gr.HTML(
                    None,
                    html_template='<div class="masking"></div>',
                    js_on_load=script("mask.js"),
                    elem_id="mask",
                    apply_default_css=False,
                    elem_classes="plain",
                )
                with gr.Row():
                    self.box = gr.Textbox(label="Box", info="x,y,width,height", elem_id="box", min_width=130)
                    self.extend = gr.Textbox(label="Extend", info="16, or left=16", elem_id="extend", min_width=130)
                self.full_size = gr.Checkbox(
                    False, label="Results at the image's own size", elem_id="full-size", container=False
                )
            with gr.Column(scale=3, min_width=280):
                self.way = gr.Dropdown(
                    [*WAYS], value=AUTOMATIC, label="Schedule", info="by hand: the curves of Draw", elem_id="edit-way"
                )
                self.add_buttons("Draw anew")
                self.gallery = gr.HTML(elem_id="edited", elem_classes="plain")
        self.add_downloads()
        inputs = [self.image, self.mask, self.box, self.extend, self.full_size]
        self.wire(self.way, drawn.curves, inputs, [self.gallery])
        light: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
        shown = [self.image, self.mask, self.box, self.status]
        self.upload.upload(self._open, self.upload, shown, **light)
        self.mask.input(_box_words, self.mask, self.box, **light)
        drawn.gallery.click(self._take, drawn.kept, [*shown, tabs], **light)

    def draw(self, press: Press, *values: Any) -> Iterator[Updates]:
        """Draw parts of the image anew."""
        way, curves, image, mask, box, extend, full_size = values
        files = EditFiles(*_written(image, mask, press.folder), box.strip(), extend.strip(), full_size)
        request = press.asked.edit_request(press.sampler, way, rows_of(curves), press.folder / "edits", files)
        settled = self.room.settled(request, bool(press.asked.prompts))
        drawing = EditDrawing(settled, press.sampler, press.warnings)
        words = yield from self.watched(drawing, press, self.gallery)
        yield self.finished(Kept([drawing], [way], press.folder), words, press.warnings)

    def _open(self, path: str) -> tuple[Any, ...]:
        """Show an image to paint on."""
        try:
            picture, _ = picture_and_mask(Path(path), None)
        except AdaNATError as problem:
            return gr.skip(), gr.skip(), gr.skip(), pictures.error(plain(problem, Path(path).parent))
        height, width = picture.shape[:2]
        shown = Image.fromarray(picture)
        if max(shown.size) > _LONGEST_SIDE:
            shown.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
        source = pictures.source_of(shown)
        words = pictures.message(f"{Path(path).name}: {width} x {height} pixels. Draw a box, or paint a mask.")
        return path, {"source": source, "width": width, "height": height, "box": None, "mask": ""}, "", words

    def _take(self, kept: Kept | None, event: gr.EventData) -> tuple[Any, ...]:
        """Show an image that was drawn."""
        index = getattr(event, "index", None)
        if kept is None or not isinstance(index, int) or not 0 <= index < kept.drawings[0].total:
            return (gr.skip(),) * 5
        folder = self.room.folder()  # of its own, since the drawing's goes with the next one
        path = shutil.copy(kept.drawings[0].folder / f"{kept.drawings[0].stem(index)}.png", folder)
        return *self._open(str(path)), gr.Tabs(selected="edit")


def _box_words(mask: Any) -> str:
    box = (mask or {}).get("box")
    return ",".join(map(str, box)) if box else ""


def _written(image: str, mask: Any, folder: Path) -> tuple[Path, Path | None]:
    """Put image and mask into a folder, under the names that the command line says.

    Raises:
        AdaNATError: if there is no image, or the mask is none.
    """
    require(bool(image) and Path(image).exists(), "There is no image to edit; open one, or click one that was drawn.")
    copied = Path(shutil.copy(image, folder))
    painted = str((mask or {}).get("mask") or "")
    if not painted:
        return copied, None
    try:
        data = base64.b64decode(painted.removeprefix(_DATA_URL), validate=True)
        white = Image.open(io.BytesIO(data), formats=["PNG"]).convert("L").point(lambda grey: 255 * (grey >= 128))
    except (binascii.Error, OSError, ValueError) as problem:
        raise AdaNATError("The mask cannot be read; clear it, and paint it again.") from problem
    height, width = picture_and_mask(copied, None)[0].shape[:2]
    path = folder / "mask.png"
    white.resize((width, height), Image.Resampling.NEAREST).save(path)
    return copied, path
