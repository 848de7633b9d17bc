"""Tars as streams, from disk and over HTTP: a run that was interrupted goes on at the right image."""

from __future__ import annotations

import functools
import io
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from adanat_cli.core.config import data_config
from adanat_cli.core.config.requests import TokenizeOptions
from adanat_cli.core.data.addresses import expand_braces
from adanat_cli.core.data.sources import ImageSource, open_source
from adanat_cli.core.data.token_set import TokenSet
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.runtime.devices import start_processes
from adanat_cli.jobs.runtime.reporter import SilentReporter
from adanat_cli.jobs.tokenize.tokenize import tokenize
from tests.image_files import patch_tokenizer, png

NUM_IMAGES, BAD = 30, 11


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (the parent's name)
        pass


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tars of 15 captioned images; one image is no image."""
    folder = tmp_path_factory.mktemp("tars")
    for part in range(2):
        with tarfile.open(folder / f"train-{part:04d}.tar", "w") as tar:
            for n in range(15 * part, 15 * part + 15):
                image = b"no image" if n == BAD else png(n, 16)
                for suffix, content in {"png": image, "txt": f"picture {n}\n".encode()}.items():
                    entry = tarfile.TarInfo(f"{n:04d}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return folder


@pytest.fixture(scope="module")
def address(tars: Path) -> Iterator[str]:
    """The tars behind a server on the loopback interface."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tars)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/train-{{0000..0001}}.tar"
    server.shutdown()
    server.server_close()
    thread.join()


def opened(place: str) -> ImageSource:
    return open_source(data_config(place, image_size=16, max_bad=0.1))


def run(source: ImageSource, output: Path, stop_after: int = 0) -> None:
    """Tokenize in shards of 8; ``stop_after`` batches, as if by Ctrl-C."""
    tokenizer, left = patch_tokenizer(), [stop_after]
    encode = tokenizer.encode

    def counted(images: object) -> object:
        left[0] -= 1
        if left[0] == -1 and stop_after:
            raise KeyboardInterrupt
        return encode(images)

    tokenizer.encode = counted
    options = TokenizeOptions(batch_size=4, num_workers=1, shard_size=8)
    tokenize(source, tokenizer, "f00d", output, options, SilentReporter(), start_processes("cpu"))


@pytest.mark.parametrize("over_http", [True, False], ids=["over HTTP", "from disk"])
def test_an_interrupted_stream_goes_on_at_the_right_image(
    tars: Path, address: str, tmp_path: Path, over_http: bool
) -> None:
    if over_http:
        pytest.importorskip("aiohttp")
    source = opened(address if over_http else str(tars))
    assert source.num_images is None
    run(source, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "resumed", stop_after=10)
    assert 0 < len(list((tmp_path / "resumed").glob("*.parquet"))) < 4
    run(source, tmp_path / "resumed")
    whole, resumed = (sorted((tmp_path / name).glob("*.parquet")) for name in ("whole", "resumed"))
    assert [file.read_bytes() for file in whole] == [file.read_bytes() for file in resumed]
    tokens = TokenSet.open(tmp_path / "resumed")
    expected = [f"picture {n}" for n in range(NUM_IMAGES) if n != BAD]
    assert tokens.captions(np.arange(len(tokens))) == expected
    levels = [round(n / 255 * 63) for n in range(NUM_IMAGES) if n != BAD]
    assert tokens.tokens[:, 0].tolist() == levels


def test_an_address_that_does_not_answer_is_told_in_one_line(address: str) -> None:
    pytest.importorskip("aiohttp")
    with pytest.raises(AdaNATError, match=r"absent.*cannot be opened|broke off") as caught:
        list(opened(address.replace("train-{0000..0001}", "absent")).read())
    assert "\n" not in str(caught.value)


def test_nothing_that_is_written_or_raised_tells_the_signature(address: str, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    signed = address.replace("http://", "http://me:s3cr3t@") + "?X-Amz-Signature=s3cr3t#s3cr3t"
    source = opened(signed)
    run(source, tmp_path)
    told = repr(source.config) + "".join(file.read_bytes().decode("latin-1") for file in tmp_path.iterdir())
    assert "train-{0000..0001}.tar (train)" in told
    assert "s3cr3t" not in told
    with pytest.raises(AdaNATError, match=r"absent") as caught:
        list(opened(signed.replace("train-{0000..0001}", "absent")).read())
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("query", ["", "?signature=s3cr3t"])
def test_absent_shards_are_named_before_anything_is_read(address: str, query: str) -> None:
    pytest.importorskip("aiohttp")
    with pytest.raises(AdaNATError, match=r"1 of 3 files do not answer: train-0002\.tar \(404\)\. Check the URL\.$"):
        opened(address.replace("0001}", "0002}") + query)


@pytest.mark.parametrize("over_http", [True, False], ids=["over HTTP", "from disk"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda whole, cut: whole[:cut], "without the mark"),
        (lambda whole, cut: whole[: cut + 512], "damaged|cut off|end of data"),
        (lambda whole, cut: whole[:cut] + b"\xff" * 512 + whole[cut:], "damaged"),
        (lambda whole, _: whole + whole, "joined"),
    ],
    ids=["cut at a record", "cut after a header", "garbage", "joined"],
)
def test_a_tar_that_is_not_whole_is_no_complete_data_set(
    tars: Path, address: str, over_http: bool, change: Callable[[bytes, int], bytes], words: str
) -> None:
    whole = (tars / "train-0000.tar").read_bytes()
    cut = whole.index(b"0005.png")
    (tars / "part.tar").write_bytes(change(whole, cut))
    place = address.replace("train-{0000..0001}", "part") if over_http else str(tars / "part.tar")
    with pytest.raises(AdaNATError, match=f"Reading part.tar broke off.*{words}"):
        list(opened(place).read())
    (tars / "part.tar").unlink()


def test_a_transfer_that_breaks_goes_on_where_it_broke(tars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr("adanat_cli.core.data.addresses._WAITS", (0.0, 0.0, 0.0))
    content, asked = (tars / "train-0000.tar").read_bytes(), []

    class Breaks(_Quiet):
        def do_GET(self) -> None:
            start = int(self.headers.get("Range", "bytes=0-")[6:-1])
            asked.append(start)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : start + 9_000])
            self.wfile.flush()
            time.sleep(0.05)  # else the client sees no more than that it broke

    server = ThreadingHTTPServer(("127.0.0.1", 0), Breaks)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    source = opened(f"http://127.0.0.1:{server.server_port}/train.tar")
    assert [record.caption for record in source.read()] == [f"picture {n}" for n in range(15)]
    assert len(set(asked)) > 3
    server.shutdown()
    server.server_close()


def test_a_missing_http_client_is_told_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(AdaNATError, match=r"pip install 'adanat\[http\]'") as caught:
        opened("http://127.0.0.1:1/train.tar")
    assert "\n" not in str(caught.value)


def test_ranges_in_addresses_are_written_out() -> None:
    assert expand_braces("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expand_braces("{0..1}/{2..3}") == ["0/2", "0/3", "1/2", "1/3"]
    assert expand_braces("plain.tar") == ["plain.tar"]
