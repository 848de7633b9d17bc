"""What keeps ``adanat studio`` from opening is said in one line."""

from __future__ import annotations

import socket
import sys
import urllib.request

import pytest

from adanat_cli.core.config.studio import StudioRequest
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.studio.serve import serve


def test_without_gradio_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)  # as where it is not installed
    with pytest.raises(AdaNATError, match=r"needs Gradio, which is not installed; try: pip install 'adanat\[ui\]'"):
        serve(StudioRequest(), SilentReporter())


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AdaNATError, match=f"Port {port} cannot be used .*; choose another with --port, or 0"):
            serve(StudioRequest(port=port), SilentReporter())


def test_the_studio_answers_on_this_machine(studio: str) -> None:
    """How it ends is checked where the fixture ends it."""
    with urllib.request.urlopen(studio) as answer:
        assert b"adanat studio" in answer.read()
