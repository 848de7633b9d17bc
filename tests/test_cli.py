"""The command line's manners: exit codes, streams and one-line errors."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from typing import TextIO

import pytest

from adanat_cli import __version__, cli
from adanat_cli.commands import console, streams
from adanat_cli.core.errors import AdaNATError


def adanat(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "adanat_cli", *arguments], capture_output=True, text=True, check=False)


def test_version_goes_to_stdout() -> None:
    done = adanat("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"adanat {__version__}")


def test_help_names_every_command() -> None:
    done = adanat("--help")
    assert done.returncode == 0
    training = ("tokenize", "pretrain-nat", "train-policy", "train-tokenizer")
    for name in ("sample", *training, "evaluate", "stats", "import", "info", "pull", "push"):
        assert name in done.stdout


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["no-such-command"], ["sample", "--steps", "many"]])
def test_usage_errors_exit_with_two(arguments: list[str]) -> None:
    assert adanat(*arguments).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "no/such/folder"], "no/such/folder"),
        (["sample", "--model", "no/such/folder", "--steps", "4"], "no/such/folder"),
        (["train-tokenizer", "--dataset", "no/such/data", "--image-size", "8"], "no/such/data"),
        (["train-tokenizer", "--dataset", "no/such/data"], "--image-size"),
        (["train-tokenizer", "--dataset", "digits", "--downsampling", "3"], "--downsampling is 3"),
        (["train-tokenizer", "--dataset", "digits", "--image-size", "15"], "15"),
        (["train-policy", "--dataset", "imagenet256"], "models/imagenet256"),
        (["train-policy", "--dataset", "imagenet64", "--steps", "1"], "--steps is 1"),
        (["train-policy", "--dataset", "imagenet64", "--trajectories", "0"], "trajectories is 0"),
        (["train-policy", "--dataset", "imagenet64", "--data-dir", "no/such/data"], "no/such/data"),
    ],
)
def test_mistakes_are_one_line_on_stderr_and_exit_with_one(arguments: list[str], words: str) -> None:
    done = adanat(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


def test_ctrl_c_says_one_line_and_exits_with_130() -> None:
    code = (
        "import os, signal, sys\n"
        # A parent in the background may have left Ctrl-C switched off.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import adanat_cli.cli as cli\n"
        "cli.app.command('hang')(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "sys.argv = ['adanat', 'hang']\n"
        "cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.strip().splitlines()[-1].startswith("Interrupted.")


def streams_to(monkeypatch: pytest.MonkeyPatch, stdout: TextIO, stderr: TextIO | None = None) -> None:
    """Start the program with these streams."""
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stderr", stderr or io.TextIOWrapper(io.BytesIO(), "utf-8"))
    streams.prepare()


@pytest.mark.parametrize(("encoding", "kept"), [("ascii", b"K\\xe4fer ..."), ("latin-1", b"K\xe4fer ...")])
def test_what_an_encoding_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch, encoding: str, kept: bytes) -> None:
    there = io.BytesIO()
    streams_to(monkeypatch, io.TextIOWrapper(there, encoding, errors="strict"))
    print("Käfer … 日本 \udcff", flush=True)
    assert there.getvalue() == kept + b" \\u65e5\\u672c \\udcff\n"


def test_help_can_be_read_on_an_ascii_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    there = io.BytesIO()
    monkeypatch.setattr(sys, "argv", ["adanat", "--help"])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(there, "ascii"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), "ascii"))
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 0
    sys.stdout.flush()
    assert b"train-policy" in there.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_read_back_whatever_the_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    there = io.BytesIO()
    streams_to(monkeypatch, io.TextIOWrapper(there, encoding, errors="strict"))
    values = {"name": "Käfer … 日本 😀"}
    console.result(values, True, [])
    assert json.loads(there.getvalue().decode(encoding)) == values


def test_a_reader_that_leaves_ends_the_program_as_sigpipe_would(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stdout:
        streams_to(monkeypatch, stdout)
        with pytest.raises(SystemExit) as leaving:
            console.result({}, False, ["a line"])
        sys.stdout.flush()  # as Python does at its end: nothing is left over
    assert leaving.value.code == 128 + signal.SIGPIPE


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize("line_buffering", [False, True])
def test_output_that_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch, line_buffering: bool) -> None:
    with open("/dev/full", "w", encoding="utf-8", buffering=1 if line_buffering else -1) as stdout:
        streams_to(monkeypatch, stdout)
        with pytest.raises(AdaNATError, match="standard output: No space left"):
            console.result({}, False, ["a line"])


def test_work_goes_on_where_nobody_reads_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stderr:
        streams_to(monkeypatch, io.TextIOWrapper(io.BytesIO(), "utf-8"), stderr)
        told = console.reporter()
        told.log("a line")
        with told.task("Working", 2) as task:
            task.advance(2)
        print("another", file=sys.stderr, flush=True)


def test_a_closed_standard_output_is_an_error_and_no_file_takes_its_place() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m adanat_cli --version >&-"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "Error: Cannot write to standard output: Bad file descriptor.\n")
