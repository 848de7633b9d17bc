"""The page in a real browser: load, draw, compare, steer, fail, edit, and on a phone."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from typer.testing import CliRunner

from adanat_cli.cli import app

PATIENCE = 60_000
"""Milliseconds until a machine with much else to do counts as stuck."""


@pytest.fixture(scope="module")
def page(studio: str, browser: Any) -> Iterator[Any]:
    """The page, open; it notes the requests that it makes, and errors of its scripts."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(PATIENCE)
    opened.asked, opened.errors = [], []
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.on("pageerror", lambda error: opened.errors.append(str(error)))
    opened.goto(studio)
    opened.locator("#draw-draw").wait_for()
    yield opened
    opened.close()


def ask(page: Any, **fields: object) -> None:
    """Fill in steps, count and seed."""
    for name, value in fields.items():
        page.locator(f"#{name} input").fill(str(value))
        page.locator(f"#{name} input").blur()


def test_the_page_loads_from_this_machine_alone(page: Any) -> None:
    assert page.title() == "adanat studio"
    assert "20 classes" in page.locator("#facts").inner_text()
    hosts = {urlparse(url).hostname for url in page.asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}
    assert page.errors == []


def test_images_are_watched_step_by_step_and_the_command_draws_the_same_bytes(page: Any, tmp_path: Path) -> None:
    ask(page, steps=4, count=2, seed=5)
    page.evaluate(
        """() => {
          window.seen = [];
          new MutationObserver(() => {
            const line = document.querySelector('#draw-status .said')?.textContent;
            if (line && window.seen.at(-1) !== line) window.seen.push(line);
          }).observe(document.body, {subtree: true, childList: true, characterData: true});
        }"""
    )
    page.locator("#draw-draw").click()
    page.locator('#gallery [data-done="1"]').wait_for()
    page.locator("#curves .handle").first.wait_for()
    seen = page.evaluate("window.seen")
    assert any("step 1 of 4" in line for line in seen), seen
    assert any("step 3 of 4" in line and " 0%" not in line for line in seen), seen
    assert page.locator("#gallery figcaption").all_inner_texts() == ["goldfish (1)", "king penguin (145)"]
    with page.expect_download() as download:
        page.locator("#draw-images").click()
    archive = zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes()))
    command = page.locator("#draw-command textarea").input_value()
    assert archive.read("command.sh").decode() == f"{command}\n"
    done = CliRunner().invoke(app, [*command_words(command), "--output", str(tmp_path / "again")])
    assert done.exit_code == 0, done.output
    pictures = [name for name in archive.namelist() if name.endswith(".png")]
    assert len(pictures) == 3
    for name in pictures:
        assert archive.read(name) == (tmp_path / "again" / name).read_bytes(), name


def command_words(command: str) -> list[str]:
    """A command line without the program's name."""
    import shlex

    return shlex.split(command)[1:]
