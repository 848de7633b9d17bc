"""The report of an evaluation: one file that runs and loads nothing, whatever names it holds."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from adanat_cli.core.config.requests import SampleRequest
from adanat_cli.jobs.evaluate import page
from adanat_cli.jobs.evaluate.evaluate import evaluate
from adanat_cli.jobs.evaluate.gallery import Gallery
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.sample.sample import sample
from tests.evaluation_toy import evaluate_request

EVIL = '</td><script>alert(1)</script><img src=x onerror="a">\x1b[31m\udc80 & "q" \u202e'
_VOID = {"meta", "img", "br", "rect", "line", "circle"}


class Checked(HTMLParser):
    """Follows the elements, and keeps texts and addresses."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.sources: list[str] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in _VOID:
            self.open.append(tag)
        for name, value in attributes:
            assert not name.startswith("on")
            if name in ("src", "href"):
                self.sources.append(str(value))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(path: Path) -> Checked:
    content = path.read_text(encoding="utf-8")
    checked = Checked(content)
    assert checked.open == []
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(checked.tags)
    assert all(source.startswith("data:image/") for source in checked.sources)
    assert "url(" not in content
    assert "default-src 'none'" in content
    return checked


def test_a_name_is_text_wherever_it_stands(tmp_path: Path) -> None:
    gallery = Gallery(EVIL, [("image/png", b"")], [EVIL])
    parts = [
        page.heading(EVIL),
        page.table([EVIL], [[EVIL]], {EVIL: EVIL}),
        page.notes([EVIL]),
        page.images(gallery),
        page.details(EVIL, {EVIL: EVIL}),
        page.bars([EVIL, "b"], [1.0, 0.0], [EVIL, "0"]),
        page.band([EVIL], [0.5]),
    ]
    page.write_page(tmp_path / "a.html", EVIL, [EVIL], [page.section(EVIL, *parts)])
    checked = read(tmp_path / "a.html")
    shown = "".join(checked.texts)
    assert shown.count("<script>alert(1)</script>") >= 10
    assert not set(shown) & {"\x1b", "\u202e"}
    assert len(checked.sources) == 1


def test_an_evaluation_writes_a_report_with_its_figures_and_the_first_images(toy: Path, tmp_path: Path) -> None:
    seen: list[Gallery] = []
    values = evaluate(evaluate_request(toy, tmp_path, steps=(2, 3), num_seeds=2), SilentReporter(), seen)
    assert values["report"] == str(tmp_path / "report.html")
    checked = read(tmp_path / "report.html")
    shown = " ".join(checked.texts)
    assert f"Evaluation: {toy.name}, 22 images" in shown
    assert f"{values['summary'][0]['metrics']['fid']['mean']:.3f} ±" in shown
    assert "Mean ± standard deviation over seeds 0 to 1." in shown
    assert [gallery.name for gallery in seen] == ["cosine, 2 steps", "cosine, 3 steps"]
    assert len(checked.sources) == 2 * 12 + 1  # images, and the plot
    # They are the images that `adanat sample` draws.
    request = SampleRequest(
        output=tmp_path / "s",
        model=str(toy / "model"),
        num_images=12,
        num_steps=2,
        image_format="npz",
        device="cpu",
    )
    sample(request, SilentReporter())
    with np.load(tmp_path / "s" / "samples.npz") as arrays:
        expected = arrays["arr_0"]
    pictures = [Image.open(io.BytesIO(data)) for _, data in seen[0].pictures]
    assert np.array_equal(np.stack([np.asarray(picture) for picture in pictures]), expected)
    assert seen[0].labels[0] in shown
    assert base64.b64encode(seen[0].pictures[0][1]).decode() in checked.sources[1]


def test_another_evaluation_leaves_the_report_that_is_there(toy: Path, tmp_path: Path) -> None:
    first = evaluate(evaluate_request(toy, tmp_path), SilentReporter())["report"]
    before = Path(first).read_bytes()
    second = evaluate(evaluate_request(toy, tmp_path, steps=(3,)), SilentReporter())["report"]
    assert (Path(first).name, Path(second).name) == ("report.html", "report-2.html")
    assert Path(first).read_bytes() == before
    for steps, report in ((2, first), (3, second)):
        assert f"cosine, {steps} steps" in " ".join(read(Path(report)).texts)
        again = evaluate(evaluate_request(toy, tmp_path, steps=(steps,)), SilentReporter())
        assert again["report"] == report, "the same command has the same report"


def test_existing_images_are_shown_small_enough_to_mail(tmp_path: Path, toy: Path) -> None:
    folder = tmp_path / "<b>photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    for number, image in enumerate(noise):
        Image.fromarray(image).save(folder / f"{number}.png")
    request = evaluate_request(toy, tmp_path / "out", images=folder, steps=(), num_samples=None)
    checked = read(Path(evaluate(request, SilentReporter())["report"]))
    assert "<b>photos" in " ".join(checked.texts)
    assert len(checked.sources) == 2


def test_bars_and_dots_lie_inside_their_drawing() -> None:
    drawn = page.bars(["a", "b", "c"], [0.0, 5.0, 10.0], ["0", "5", "10"])
    assert [float(width) for width in re.findall(r'<rect .*? width="([\d.]+)"', drawn)] == [0.0, 150.0, 300.0]
    assert page.bars(["a"], [0.0], ["0"])
    dots = page.band(["a", "b", "c"], [0.0, -1e9, 1.01])
    places = [float(x) for x in re.findall(r'cx="([\d.]+)"', dots)]
    width = float(re.findall(r'viewBox="0 0 ([\d.]+) ', dots)[0])
    assert all(0 < place < width for place in places)
    assert re.findall(r'fill="var\(--(good|bad)\)"', dots) == ["good", "bad", "bad"]
