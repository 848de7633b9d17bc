"""The studio as a user meets it: a server on loopback and a page in a headless Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.studio.browsing import opened

ROOT = Path(__file__).parents[3]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run"
)


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a studio with the embedded model, in a process of its own, which Ctrl-C ends."""
    pytest.importorskip("gradio", reason="the studio needs Gradio: pip install 'adanat[ui]'")
    folder = tmp_path_factory.mktemp("studio")
    command = [sys.executable, "-m", "adanat_cli", "studio", "--port", "0", "--device", "cpu", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # Tests that run in a shell's background ignore Ctrl-C, and so would the server.
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, env=environment, text=True, preexec_fn=heeds, **pipes) as server:
        try:
            assert server.stderr is not None
            said = server.stderr.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert address, said + server.stderr.read()
            yield address[0]
            server.send_signal(signal.SIGINT)
            result, errors = server.communicate(timeout=60)
        finally:
            server.kill()
    assert (server.returncode, errors) == (0, "")
    assert json.loads(result)["url"] == address[0]
    assert list(folder.glob("adanat-studio-*")) == [], "nothing is left behind"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by Playwright's package")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page(browser: Any, studio: str) -> Iterator[Any]:
    """The page, which notes its requests, and the errors of its scripts: there must be none."""
    one = opened(browser, studio)
    yield one
    errors = one.errors
    one.close()
    assert errors == []
