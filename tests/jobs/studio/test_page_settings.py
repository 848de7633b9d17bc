"""The page when settings change: old images are marked, one image's curves are taken, and another model has prompts."""

from __future__ import annotations

import io
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.clip_toy import make_text_model
from tests.jobs.studio.browsing import ask, download, draw, run_lines, shown
from tests.nat_toy import make_model


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random NAT of prompts with its tokenizer of 16 x 16 pixels and its text encoder."""
    pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("prompts")
    model = make_model(place / "model")
    make_text_model(model, place / "clip", ["a", "red", "blue", "bus"])
    return model.path


def opacity(page: Any, place: str) -> str:
    return page.locator(place).evaluate("shown => getComputedStyle(shown).opacity")


def test_images_of_other_settings_are_dimmed_with_a_line_until_they_are_drawn_again(page: Any) -> None:
    ask(page, steps=2, count=2, seed=1)
    draw(page)
    line = page.locator("#draw-changed")
    assert (opacity(page, "#gallery"), line.is_visible()) == ("1", False)
    ask(page, seed=2)
    line.wait_for()
    assert line.inner_text() == "The settings have changed since these images were drawn."
    assert opacity(page, "#gallery") == "0.5"
    draw(page)
    assert (opacity(page, "#gallery"), line.is_visible()) == ("1", False)
    page.locator('#way input[value="halton"]').check()
    line.wait_for()
    page.locator('#way input[value="automatic"]').check()


def test_the_curves_of_one_image_are_where_a_table_by_hand_begins(page: Any) -> None:
    ask(page, steps=4, count=3, seed=5)
    draw(page)
    select = page.locator("#curves .choice select")
    assert select.locator("option").all_inner_texts()[:2] == ["mean of all images", "image 1, goldfish (1)"]
    handle = page.locator('#curves .handle[data-action="1"][data-step="0"]')

    def values() -> list[float]:
        handles = page.locator("#curves .handle").all()
        return [float(handle.get_attribute("aria-valuenow")) for handle in handles]

    mean = values()
    select.select_option("1")
    second = values()
    assert second != mean
    select.select_option("")
    assert values() == mean
    select.select_option("1")
    assert page.locator("#way input:checked").input_value() == "automatic", "nothing is changed yet"
    handle.focus()
    page.keyboard.press("ArrowUp")
    page.wait_for_function("document.querySelector('#way input:checked').value === 'by hand'")
    page.locator("#draw-changed").wait_for()
    raised = values()
    assert raised[3] > second[3]
    draw(page)
    table = yaml.safe_load(download(page, "#draw-images").read("schedule.yaml"))
    drawn = [*table["remask_ratio"][:3], *table["sampling_temperature"], *table["remask_temperature"][:3]]
    assert [*drawn, *table["guidance_scale"]] == raised
    assert sum(old != new for old, new in zip(second, raised, strict=True)) == 1


def test_an_image_is_extended(page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses what the test before has drawn."""
    page.locator("#gallery figure").first.click()
    page.locator("#mask canvas").wait_for()
    page.locator("#extend input, #extend textarea").fill("left=16,right=16")
    ask(page, steps=2, count=2)
    draw(page, "edit")
    assert [pixels.shape for pixels in shown(page, "#edited")] == 2 * [(43, 64, 3)]
    archive, command = download(page, "#edit-images"), page.locator("#edit-command textarea").input_value()
    archive.extract(shlex.split(command)[2], tmp_path)
    run_lines(command, tmp_path, monkeypatch)
    names = [name for name in archive.namelist() if name.startswith("0000")]
    assert len(names) == 3
    for name in names[:2]:
        assert archive.read(name) == (tmp_path / "edits" / name).read_bytes(), name
    page.locator("#extend input, #extend textarea").fill("2000")
    assert draw(page, "edit", ends="error").startswith("Error: --extend leaves nothing of")
    page.locator("#extend input, #extend textarea").fill("")


def test_a_model_of_prompts_draws_compares_and_edits(
    page: Any, text_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.get_by_role("tab", name="Draw").click()
    page.locator("#model input").fill(str(text_model))
    page.locator("#model input").press("Enter")
    page.locator("#prompts textarea").wait_for()
    assert not page.locator("#classes").is_visible()
    assert "16 x 16 pixels, 4 x 4 tokens, text, no learned policy" in page.locator("#facts").inner_text()
    page.locator('#way input[value="automatic"]').check()
    ask(page, steps=3, count=2, seed=4)
    assert 'conditioned on text; say what to draw: --prompt "a red bus"' in draw(page, ends="error")
    page.locator("#prompts textarea").fill("a red bus\n\nblue")
    draw(page)
    assert page.locator("#gallery figcaption").all_inner_texts() == ["a red bus", "blue"]
    archive, command = download(page, "#draw-images"), page.locator("#draw-command textarea").input_value()
    assert "--prompt 'a red bus' --prompt blue" in command
    run_lines(command, tmp_path, monkeypatch)
    for name in [name for name in archive.namelist() if name.endswith(".png")]:
        assert archive.read(name) == (tmp_path / "samples" / name).read_bytes(), name
    page.get_by_role("tab", name="Compare").click()
    draw(page, "compare")
    assert [pixels.shape for pixels in shown(page, "#compared")] == 4 * [(16, 16, 3)]
    places = "images => images.map(image => image.closest('td').cellIndex)"
    assert page.locator("#compared img").evaluate_all(places) == [1, 3, 1, 3], "below cosine and halton"
    page.get_by_role("tab", name="Draw").click()
    original = shown(page, "#gallery")[1]
    page.locator("#gallery figure").nth(1).click()
    page.wait_for_function("document.querySelector('#mask .stage img')?.naturalWidth === 16")
    page.locator("#box input, #box textarea").fill("4,4,8,8")
    draw(page, "edit")
    edited = shown(page, "#edited")
    assert len(edited) == 2
    outside = np.ones((16, 16), bool)
    outside[4:12, 4:12] = False
    for pixels in edited:
        assert (pixels[outside] == original[outside]).all()
    picture = Image.open(io.BytesIO(download(page, "#edit-images").read("grid.png")))
    assert picture.width > 3 * 16
