"""What a user does on the page: open it, fill it in, press buttons, look at images, download."""

from __future__ import annotations

import base64
import io
import shlex
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from adanat_cli.cli import app

PATIENCE = 60_000
"""Milliseconds after which a machine with much else to do counts as stuck."""


def opened(browser: Any, studio: str, width: int = 1280) -> Any:
    """The page in a new tab."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.asked, page.errors = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(studio)
    page.locator("#draw-draw").wait_for()
    return page


def ask(page: Any, **fields: float) -> None:
    """Fill in steps, count and seed."""
    for name, value in fields.items():
        page.locator(f"#{name} input").fill(str(value))
        page.locator(f"#{name} input").blur()


def start(page: Any, tab: str) -> None:
    """Press a tab's button; what its last drawing said counts no more."""
    forget = "tab => document.querySelector(`#${tab}-status [data-state]`)?.setAttribute('data-state', 'old')"
    page.evaluate(forget, tab)
    page.locator(f"#{tab}-draw").click()


def draw(page: Any, tab: str = "draw", ends: str = "done") -> str:
    """Press a tab's button and wait; returns what it says."""
    start(page, tab)
    said = page.locator(f'#{tab}-status [data-state="{ends}"]')
    said.wait_for()
    return said.inner_text()


def shown(page: Any, place: str) -> list[np.ndarray]:
    """The images of a part of the page, as pixels."""
    sources = page.locator(f"{place} img").evaluate_all("images => images.map(image => image.src)")
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))) for source in sources]


def download(page: Any, button: str) -> zipfile.ZipFile:
    """What a button downloads."""
    with page.expect_download() as started:
        page.locator(button).click()
    return zipfile.ZipFile(io.BytesIO(Path(started.value.path()).read_bytes()))


def run_lines(lines: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run command lines in a folder."""
    monkeypatch.chdir(folder)
    for line in lines.splitlines():
        done = CliRunner().invoke(app, shlex.split(line)[1:])
        assert done.exit_code == 0, done.output
