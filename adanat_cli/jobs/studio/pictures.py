"""What the page shows, as HTML: images under their names, progress, and messages."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from adanat_cli.core.errors import printable
from adanat_cli.jobs.sample.pictures import Pixels
from adanat_cli.jobs.studio.drawing import Frame

_LARGE, _QUALITY = 128, 85
"""Images with longer sides are shown as JPEG while they are drawn: a page that redraws often has to be quick."""


def gallery(images: Sequence[Pixels], labels: Sequence[str], is_final: bool, note: str = "") -> str:
    """Figures of images with their labels, and a note below; grey ones for labels whose images are not begun."""
    figures = [
        _figure(_picture(images[index], is_final) if index < len(images) else "", label)
        for index, label in enumerate(labels)
    ]
    few = " few" if len(labels) <= _FEW else ""
    return f'<div class="gallery{few}" data-done="{int(is_final)}">{"".join(figures)}</div>{_note(note)}'


_FEW = 4
"""Images that are shown larger than others."""


def columns(
    heads: Sequence[str], images: Sequence[Sequence[Pixels]], labels: Sequence[str], errors: Sequence[str], done: int
) -> str:
    """A table with a column for each way and a row for each label.

    Args:
        heads: names of the columns.
        images: those of each column so far.
        labels: names of the rows.
        errors: of each column; "" for none.
        done: number of columns that are finished.
    """
    top = "".join(f"<th scope=col>{html.escape(head)}</th>" for head in heads)
    rows = []
    for row, label in enumerate(labels):
        cells = []
        for column, drawn in enumerate(images):
            if errors[column]:
                message = f"<div class=refused>{_line(errors[column])}</div>" if row == 0 else ""
                cells.append(f"<td>{message}</td>")
            else:
                source = _picture(drawn[row], column < done) if row < len(drawn) else ""
                cells.append(f"<td>{_image(source, f'{label}, {heads[column]}')}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr><tr><td class=label colspan={len(heads)}>{_line(label)}</td></tr>")
    is_done = int(done == len(heads))
    return f'<table class="compared" data-done="{is_done}"><thead><tr>{top}</tr></thead>{"".join(rows)}</table>'


def progress(words: str, frame: Frame | None, total: int, share: float | None = None) -> str:
    """A bar and a line on how far the drawing is.

    Args:
        words: what is being drawn, such as "learned policy".
        frame: the last one; None before the first.
        total: number of images.
        share: of all work, if the frame is of a part of it.
    """
    if frame is None:
        return _bar(share or 0.0, f"{words}: loading")
    share = frame.share if share is None else share
    undecided = f"{frame.num_undecided / frame.num_tokens:.0%} of tokens undecided"
    left = f", {frame.seconds / frame.share * (1 - frame.share):.0f} s left" if frame.seconds > 2 else ""
    batch = f"image {len(frame.images)} of {total}, " if total > len(frame.images) else ""
    return _bar(share, f"{words}: {batch}step {frame.step} of {frame.num_steps}, {undecided}{left}")


def _bar(share: float, words: str) -> str:
    filled = f'<div style="width:{share:.1%}"></div>'
    bar = f'<div class="bar" role="progressbar" aria-valuenow="{100 * share:.0f}">{filled}</div>'
    return f"{bar}{message(words, state='working')}"


def message(words: str, warnings: Sequence[str] = (), state: str = "done") -> str:
    """A line on what happened, and lines with warnings; scripts can read the state."""
    lines = "".join(f'<p class="warning">Warning: {_line(warning)}</p>' for warning in warnings)
    return f'<p class="said" role="status" data-state="{state}">{_line(words)}</p>{lines}'


def error(words: str) -> str:
    """The line that the terminal would show."""
    return f'<p class="error" role="alert" data-state="error">Error: {_line(words)}</p>'


def working(share: float, words: str) -> str:
    """A bar for work that is not about images."""
    return _bar(share, words)


def source_of(image: Image.Image) -> str:
    """An image as a data URL, pixel by pixel."""
    return _picture(np.asarray(image), is_final=True)


def _note(words: str) -> str:
    return f'<p class="note">{_line(words)}</p>' if words else ""


def _figure(source: str, label: str) -> str:
    return f"<figure tabindex=0>{_image(source, label)}<figcaption>{_line(label)}</figcaption></figure>"


def _image(source: str, label: str) -> str:
    return f'<img alt="{_line(label)}" src="{source}">' if source else '<div class="waiting"></div>'


def _picture(pixels: Pixels, is_final: bool) -> str:
    as_png = is_final or max(pixels.shape[:2]) <= _LARGE
    data = io.BytesIO()
    kind = "png" if as_png else "jpeg"
    Image.fromarray(pixels).save(data, kind, compress_level=1, quality=_QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def _line(text: str) -> str:
    return html.escape(printable(" ".join(text.split())))
