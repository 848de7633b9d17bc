"""A report as one HTML file that opens offline: no script, nothing from elsewhere, light and dark, and on a phone."""

from __future__ import annotations

import base64
import html
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adanat_cli import __version__
from adanat_cli.core.checkpoints.files import atomic_path
from adanat_cli.core.errors import printable
from adanat_cli.core.reading import json_text
from adanat_cli.jobs.evaluate.gallery import Gallery
from adanat_cli.jobs.evaluate.in_words import how_measured, not_measured
from adanat_cli.jobs.evaluate.tables import Row, cells, lines_of

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --dim: #5c6670; --line: #dde1e6; --back: #fff; --band: #f5f6f8;
  --mark: #2463c9; --good: #18794e; --bad: #c62a2f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --dim: #9aa4ae; --line: #33383e; --back: #141619;
  --band: #1d2024; --mark: #79a8ff; --good: #4cc38a; --bad: #ff8a8a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 3rem; background: var(--back); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .4rem; overflow-wrap: anywhere; }
p, li, dd { margin: .35rem 0; overflow-wrap: anywhere; }
ul { padding-left: 1.2rem; }
.dim, figcaption, footer { color: var(--dim); font-size: .85rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .4rem; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .875rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
thead th { border-top: 0; background: var(--band); font-weight: 600; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--back); }
thead th:first-child { background: var(--band); }
td.equal, td.within { color: var(--good); } td.outside { color: var(--bad); font-weight: 700; }
td.unjudged { color: var(--dim); }
.images { display: grid; grid-template-columns: repeat(6, 1fr); gap: .6rem .5rem; }
.images figure { margin: 0; } .images img { width: 100%; display: block; border-radius: .25rem; }
figcaption { line-height: 1.25; margin-top: .2rem; overflow-wrap: anywhere; }
.plot { overflow-x: auto; margin-bottom: 1rem; }
.plot img { max-width: 100%; background: #fff; border-radius: .4rem; display: block; }
svg { max-width: 28rem; width: 100%; height: auto; display: block; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg .faint { fill: var(--dim); }
@media (max-width: 40rem) {
  .images { grid-template-columns: repeat(3, 1fr); } .plot img { min-width: 30rem; max-width: none; }
  table { font-size: .8rem; } th, td { padding: .35rem; } }
details { margin: .5rem 0; } summary { cursor: pointer; }
pre { overflow-x: auto; background: var(--band); padding: .75rem; border-radius: .4rem; font-size: .8rem; }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: .75rem; }
"""
# Should a name slip through unescaped, this still keeps it from running or loading anything.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_UNMARKED: Mapping[str, str] = {}


def text(value: object) -> str:
    """Escape a text for HTML; control characters and undecodable bytes become visible."""
    return html.escape(printable(str(value)))


def write_page(
    path: Path, title: str, lead: Sequence[str], sections: Sequence[str], keeps_others: bool = False
) -> Path:
    """Write a page, whole or not at all; returns where it is.

    Args:
        path: file.
        title: its heading.
        lead: lines below it.
        sections: HTML, as the functions of this module return it.
        keeps_others: whether a page of other contents stays, and this one takes the name PATH-2, and so on.
    """
    paragraphs = "".join(f"<p>{text(line)}</p>" for line in lead)
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>{text(title)}</h1>{paragraphs}\n" + "\n".join(sections) + f"\n<footer>adanat {text(__version__)}</footer>"
        "</body></html>\n"
    )
    names = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    while keeps_others and path.exists() and path.read_bytes() != page.encode():
        path = next(names)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def section(heading: str, *parts: str) -> str:
    """A heading above parts; "" without any."""
    inside = "".join(parts)
    return f"<section><h2>{text(heading)}</h2>{inside}</section>" if inside else ""


def heading(words: str) -> str:
    """A heading inside a section."""
    return f"<h3>{text(words)}</h3>"


def table(head: Sequence[str], body: Sequence[Sequence[str]], marked: Mapping[str, str] = _UNMARKED) -> str:
    """A table that scrolls sideways where the screen is narrow; ``marked``: content of a cell -> its class."""
    heads = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)

    def cell(content: str) -> str:
        mark = f' class="{text(marked[content])}"' if content in marked else ""
        return f"<td{mark}>{text(content)}</td>"

    rows = "".join(f"<tr>{''.join(map(cell, line))}</tr>" for line in body)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def notes(lines: Sequence[str]) -> str:
    """A list of lines."""
    return f'<ul class="dim">{"".join(f"<li>{text(line)}</li>" for line in lines)}</ul>' if lines else ""


def picture(path: Path, about: str) -> str:
    """A PNG of a plot."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<div class="plot"><img alt="{text(about)}" src="data:image/png;base64,{data}"></div>'


def images(gallery: Gallery) -> str:
    """Images in rows, as many to a row as fit."""
    figures = []
    for (kind, data), label in zip(gallery.pictures, gallery.labels, strict=True):
        source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
        caption = f"<figcaption>{text(label)}</figcaption>" if label else ""
        figures.append(f'<figure><img alt="{text(label or gallery.name)}" src="{source}">{caption}</figure>')
    return f'{heading(gallery.name)}<div class="images">{"".join(figures)}</div>'


def details(summary: str, values: Mapping[str, Any] | Sequence[Any]) -> str:
    """JSON values, folded."""
    shown = "\n".join(map(text, json_text(values, indent=2).split("\n")))
    return f"<details><summary>{text(summary)}</summary><pre>{shown}</pre></details>"


def bars(names: Sequence[str], numbers: Sequence[float], forms: Sequence[str]) -> str:
    """Horizontal bars from 0, with their numbers.

    Args:
        names: one of each bar.
        numbers: lengths, not negative.
        forms: the numbers as they are shown.
    """
    most = max(numbers) or 1.0
    lines = []
    for row, (name, number, form) in enumerate(zip(names, numbers, forms, strict=True)):
        top, width = 40 * row, 300 * number / most
        lines.append(
            f'<text x="0" y="{top + 13}">{text(name)}</text>'
            f'<rect x="0" y="{top + 18}" width="{width:.1f}" height="12" rx="2" fill="var(--mark)"/>'
            f'<text class="faint" x="{width + 6:.1f}" y="{top + 28}">{text(form)}</text>'
        )
    return f'<svg viewBox="0 0 370 {40 * len(names)}">{"".join(lines)}</svg>'


def band(names: Sequence[str], shares: Sequence[float]) -> str:
    """Differences as shares of their tolerances: dots in a band from -1 to 1; those far outside are at the edge.

    Args:
        names: one of each difference.
        shares: difference divided by tolerance.
    """
    left, unit, pitch = 216, 48, 18
    height = pitch * len(names) + 24
    middle = left + 1.5 * unit
    parts = [
        f'<rect x="{middle - unit}" y="18" width="{2 * unit}" height="{height - 20}" fill="var(--band)"/>',
        f'<line x1="{middle}" y1="18" x2="{middle}" y2="{height - 2}" stroke="var(--line)"/>',
    ]
    parts += [
        f'<text class="faint" text-anchor="middle" x="{middle + sign * unit}" y="12">{word}</text>'
        for sign, word in ((-1, "-1"), (0, "0"), (1, "+1"))
    ]
    for row, (name, share) in enumerate(zip(names, shares, strict=True)):
        y = 32 + pitch * row
        color = "var(--good)" if abs(share) <= 1 else "var(--bad)"
        x = middle + unit * max(-1.45, min(1.45, share))
        parts.append(f'<text x="0" y="{y}">{text(name)}</text><circle cx="{x:.1f}" cy="{y - 4}" r="4" fill="{color}"/>')
    return f'<svg viewBox="0 0 {left + 3 * unit} {height}">{"".join(parts)}</svg>'


def of_evaluation(rows: Sequence[Row], shown: Sequence[Gallery], plot: Path | None = None) -> Iterator[str]:
    """Yield the sections of the rows of one run.

    Args:
        rows: what was measured.
        shown: images of each set.
        plot: PNG of distances over steps; None where there is none.
    """
    yield section("Figures", table(*cells(rows)), notes([*how_measured(rows), *not_measured(rows)]))
    parts = [picture(plot, "Fréchet distance against steps and operations")] if plot else []
    known = [(line.name, line.metrics["fid"].mean or 0.0) for line in lines_of(rows) if "fid" in line.metrics]
    if len(known) > 1:
        names, numbers = zip(*known, strict=True)
        parts.append(bars(names, numbers, [f"{number:.4g}" for number in numbers]))
    yield section("Fréchet distance: less is better", *parts)
    yield section("First images", *map(images, shown))
    kept = [{key: row[key] for key in ("name", "settings", "reference", "cost") if key in row} for row in rows]
    yield section("How it was measured", details("All settings, as JSON", kept))
