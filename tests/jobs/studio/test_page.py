"""The page in a real browser: load, draw, steer, compare, edit, cancel, fail, queue, and on a phone."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from adanat_cli.cli import app
from adanat_cli.core.errors import AdaNATError
from tests.jobs.studio.browsing import ask, download, draw, opened, run_lines, shown, start


def test_the_page_loads_from_this_machine_alone(page: Any) -> None:
    assert page.title() == "adanat studio"
    assert "20 classes" in page.locator("#facts").inner_text()
    hosts = {urlparse(url).hostname for url in page.asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}


def test_images_are_watched_step_by_step_and_the_command_draws_the_same_bytes(
    page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    assert re.fullmatch(r"Schedule: learned policy, 4 steps: [\d.]+ images/s\.", draw(page))
    steps = [re.search(r"step (\d) of 4, (\d+)% of tokens undecided", line) for line in page.evaluate("window.seen")]
    undecided = {int(found[1]): int(found[2]) for found in steps if found}
    assert {1, 3} <= undecided.keys()
    assert 100 > undecided[1] > undecided[3] > 0
    assert page.locator("#gallery figcaption").all_inner_texts() == ["goldfish (1)", "king penguin (145)"]
    archive = download(page, "#draw-images")
    command = page.locator("#draw-command textarea").input_value()
    assert archive.read("command.sh").decode() == f"{command}\n"
    run_lines(command, tmp_path, monkeypatch)
    names = [name for name in archive.namelist() if name.endswith(".png")]
    assert len(names) == 3
    for name in names:
        assert archive.read(name) == (tmp_path / "samples" / name).read_bytes(), name
    for name, pixels in zip(names, shown(page, "#gallery"), strict=False):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(archive.read(name)))), pixels)


def test_a_point_that_is_dragged_and_a_number_that_is_typed_change_the_images(
    page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uses what the test before has drawn."""
    before = shown(page, "#gallery")
    handle = page.locator('#curves .handle[data-action="3"][data-step="2"]')
    handle.scroll_into_view_if_needed()
    box, value = handle.bounding_box(), float(handle.get_attribute("aria-valuenow"))
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] - 20, steps=3)
    page.mouse.up()
    page.wait_for_function("document.querySelector('#way input:checked').value === 'by hand'")
    dragged = float(handle.get_attribute("aria-valuenow"))
    assert dragged > value
    page.locator("#curves summary").click()
    page.get_by_label("re-masking ratio, step 1", exact=True).and_(page.locator("input")).fill("0.5")
    page.keyboard.press("Tab")
    draw(page)
    assert all((old != new).any() for old, new in zip(before, shown(page, "#gallery"), strict=True))
    archive, command = download(page, "#draw-images"), page.locator("#draw-command textarea").input_value()
    table = yaml.safe_load(archive.read("schedule.yaml"))
    assert (table["guidance_scale"][2], table["remask_ratio"][0]) == (dragged, 0.5)
    archive.extract("schedule.yaml", tmp_path)
    run_lines(command, tmp_path, monkeypatch)
    for name in [name for name in archive.namelist() if name.endswith(".png")]:
        assert archive.read(name) == (tmp_path / "samples" / name).read_bytes(), name


def test_schedules_are_compared_from_one_seed_and_those_that_are_not_to_be_had_say_why(page: Any) -> None:
    page.get_by_role("tab", name="Compare").click()
    ask(page, steps=3, count=1)
    assert re.match(r"3 images from seed 5", draw(page, "compare"))
    assert page.locator("#compared th").all_inner_texts() == ["learned", "cosine", "tuned", "halton"]
    assert "has no learned policy for 3 steps (it has them for 4, 8)" in page.locator(".refused").inner_text()
    cosine, tuned, halton = shown(page, "#compared")
    assert (cosine != tuned).any()
    assert (cosine != halton).any()
    assert page.locator("#all-curves .legend span").all_inner_texts() == ["cosine", "tuned", "halton"]
    lines = page.locator("#compare-command textarea").input_value().splitlines()
    assert [re.search("--schedule ([a-z]+)", line)[1] for line in lines] == ["cosine", "cosine", "halton"]
    assert re.search(r"--remask-temperature \d+\.0 --guidance-scale \d+\.0", lines[1])


def test_a_mistake_says_what_the_terminal_says(page: Any) -> None:
    page.get_by_role("tab", name="Draw").click()
    before = page.locator("#draw-command textarea").input_value()
    page.locator('#way input[value="automatic"]').check()
    ask(page, steps=4)
    page.locator("#classes input").fill("goldfinch")
    page.locator("#classes input").press("Enter")
    said = draw(page, ends="error")
    done = CliRunner().invoke(app, ["sample", "--class", "goldfinch"])
    assert isinstance(done.exception, AdaNATError)
    assert said == f"Error: {done.exception}"
    assert page.locator("#draw-command textarea").input_value() == before, "what was drawn before can be downloaded"
    assert page.locator("#gallery").evaluate("shown => getComputedStyle(shown).opacity") == "0.35"
    page.locator("#classes").get_by_title("Clear").click()
    ask(page, seed=1.5)
    assert draw(page, ends="error") == "Error: --seed is 1.5; expected a whole number."
    ask(page, seed=5)


def test_work_that_is_cancelled_stops(page: Any) -> None:
    ask(page, steps=60, count=16)
    start(page, "draw")
    page.wait_for_function("document.querySelector('#draw-status .said')?.textContent.includes('step 2 of 60')")
    page.locator("#draw-cancel").click()
    page.wait_for_function("document.querySelector('#draw-status .said')?.textContent === 'Cancelled.'")
    page.wait_for_timeout(1500)
    assert page.locator("#draw-status .said").inner_text() == "Cancelled."


def test_two_users_take_turns(page: Any, studio: str, browser: Any) -> None:
    other = opened(browser, studio)
    ask(page, steps=8, count=2, seed=1)
    ask(other, steps=2, count=1, seed=2)
    start(page, "draw")
    assert "2 steps" in draw(other)
    page.locator('#draw-status [data-state="done"]').wait_for()
    assert len(shown(page, "#gallery")) == 2
    assert "--steps 2 --seed 2" in other.locator("#draw-command textarea").input_value()
    assert other.errors == []
    other.close()


def test_an_image_that_is_clicked_is_edited_in_a_box(
    page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uses what the test before has drawn."""
    original = shown(page, "#gallery")[1]
    page.locator("#gallery figure").nth(1).click()
    canvas = page.locator("#mask canvas")
    canvas.wait_for()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.26, box["y"] + box["height"] * 0.26)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.74, box["y"] + box["height"] * 0.49, steps=3)
    page.mouse.up()
    page.wait_for_function("document.querySelector('#box input, #box textarea').value === '16,16,32,16'")
    ask(page, steps=2, count=1)
    draw(page, "edit")
    (edited,) = shown(page, "#edited")
    outside = np.ones(edited.shape[:2], bool)
    outside[16:32, 16:48] = False
    assert (edited[outside] == original[outside]).all()
    assert (edited != original).any()
    archive, command = download(page, "#edit-images"), page.locator("#edit-command textarea").input_value()
    archive.extract(shlex.split(command)[2], tmp_path)
    run_lines(command, tmp_path, monkeypatch)
    results = [name for name in archive.namelist() if name.startswith("00000_")]
    assert len(results) == 1
    assert archive.read(results[0]) == (tmp_path / "edits" / results[0]).read_bytes()


def test_a_mask_that_is_painted_is_in_the_download(page: Any) -> None:
    """Uses the image of the test before."""
    page.locator("#mask").get_by_text("Clear").click()
    page.locator("#mask").get_by_text("Brush").click()
    box = page.locator("#mask canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.5, steps=3)
    page.mouse.up()
    page.wait_for_function("document.querySelector('#box input, #box textarea').value === ''")
    draw(page, "edit")
    assert "--mask mask.png" in page.locator("#edit-command textarea").input_value()
    mask = np.asarray(Image.open(io.BytesIO(download(page, "#edit-images").read("mask.png"))))
    assert mask.shape == (64, 64)
    assert mask[32, 20:44].all()
    assert not mask[:20].any()


def test_a_phone_shows_all_of_it_without_scrolling_sideways(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for tab in ("Draw", "Compare", "Edit"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") == 390, tab
