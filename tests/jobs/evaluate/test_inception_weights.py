"""The weights' way here, from a server on this machine: whole, or not at all."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.resolve import inception_weights as module
from adanat_cli.jobs.resolve.inception_weights import INCEPTION_URL, clean_weights, inception_weights, published_hash

CONTENT = bytes(range(256)) * 5000
NAME = f"weights-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


class Handler(BaseHTTPRequestHandler):
    """Gives the content under its name, another under another, half of it, or nothing."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        folder = self.path.split("/")[1]
        if folder == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write({"good": CONTENT, "other": CONTENT[::-1], "broken": CONTENT[: len(CONTENT) // 2]}[folder])

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("ADANAT_INCEPTION", raising=False)
    Handler.asked.clear()
    return tmp_path / "cache" / "adanat"


def test_the_first_use_downloads_and_the_next_finds_the_file(server: str, cache: Path) -> None:
    for _ in range(2):
        assert inception_weights(url=f"{server}/good/{NAME}") == cache / NAME
        assert (cache / NAME).read_bytes() == CONTENT
    assert len(Handler.asked) == 1
    assert [file.name for file in cache.iterdir()] == [NAME]


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("other", "another file than the published one"),
        ("broken", f"broke off after {len(CONTENT) // 2} of {len(CONTENT)} bytes"),
        ("missing", "HTTP 404"),
    ],
)
def test_a_failed_download_leaves_nothing_and_says_what_to_do(
    server: str, cache: Path, folder: str, reason: str
) -> None:
    with pytest.raises(AdaNATError, match=reason) as caught:
        inception_weights(url=f"{server}/{folder}/{NAME}")
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(cache / NAME), "--inception", "ADANAT_INCEPTION", "--protocol small"):
        assert part in message
    assert list(cache.iterdir()) == []
    # A later attempt is not hindered by it.
    assert inception_weights(url=f"{server}/good/{NAME}").read_bytes() == CONTENT


def test_without_a_connection_one_line_says_which_file_to_fetch(cache: Path) -> None:
    url = f"http://127.0.0.1:9/good/{NAME}"  # nobody listens
    with pytest.raises(AdaNATError, match=f"{url} cannot be fetched .*refused.*; fetch it elsewhere") as caught:
        inception_weights(url=url)
    assert "\n" not in str(caught.value)


def test_a_file_of_ones_own_is_taken_first(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, own, other = f"{server}/good/{NAME}", tmp_path / "own.safetensors", tmp_path / "folder" / NAME
    own.touch()
    other.parent.mkdir()
    other.touch()
    monkeypatch.setenv("ADANAT_INCEPTION", str(other.parent))
    assert inception_weights(url=url) == other
    assert inception_weights(own, url=url) == own
    assert Handler.asked == []
    with pytest.raises(AdaNATError, match=r"none\.pth, which --inception names, does not exist"):
        inception_weights(tmp_path / "none.pth", url=url)
    monkeypatch.setenv("ADANAT_INCEPTION", str(tmp_path / "gone.pth"))
    with pytest.raises(AdaNATError, match=r"gone\.pth, which ADANAT_INCEPTION names"):
        inception_weights(url=url)


def test_one_process_of_a_machine_downloads_and_nobody_is_left_waiting(server: str, cache: Path) -> None:
    class Processes:
        def __init__(self, first: bool) -> None:
            self.is_local_main_process, self.waited = first, 0

        def wait_for_everyone(self) -> None:
            self.waited += 1

    url, first, second = f"{server}/good/{NAME}", Processes(True), Processes(False)
    with pytest.raises(AdaNATError, match="first process of this machine, which says why"):
        inception_weights(state=second, url=url)
    assert Handler.asked == []
    for processes in (first, second):
        assert inception_weights(state=processes, url=url) == cache / NAME
    assert len(Handler.asked) == 1
    with pytest.raises(AdaNATError, match="HTTP 404"):
        inception_weights(state=first, url=f"{server}/missing/other-{NAME}")
    assert (first.waited, second.waited) == (2, 2)


def test_a_cache_that_cannot_be_written_is_told(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(AdaNATError, match=r"Cannot write .*in the way"):
        inception_weights(url=f"{server}/good/{NAME}")


def test_the_published_name_tells_its_hash_and_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    assert published_hash(INCEPTION_URL) == "6726825d"
    assert published_hash("inception-2015-12-05.pt") == ""
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert module.cache_folder() == Path.home() / ".cache" / "adanat"


def test_clean_fids_file_is_found_by_name_only(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AdaNATError, match="does not exist; fetch https://nvlabs") as caught:
        clean_weights()
    assert str(cache / "inception-2015-12-05.pt") in str(caught.value)
    cache.mkdir(parents=True)
    kept = cache / "inception-2015-12-05.pt"
    kept.touch()
    assert clean_weights() == kept
    # A variable that names the other file does not stand in the way; a folder may hold both.
    weights = tmp_path / NAME
    weights.touch()
    monkeypatch.setenv("ADANAT_INCEPTION", str(weights))
    assert clean_weights() == kept
    own = tmp_path / kept.name
    own.touch()
    monkeypatch.setenv("ADANAT_INCEPTION", str(tmp_path))
    assert clean_weights() == clean_weights(tmp_path) == clean_weights(own) == own
    with pytest.raises(AdaNATError, match="under that name"):
        clean_weights(weights)
