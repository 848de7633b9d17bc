"""The command line's manners: exit codes, streams and one-line errors."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

import pytest
import typer
from rich.console import Console

from adanat_cli import __version__, cli
from adanat_cli.commands import console, streams
from adanat_cli.commands.processes import ProcessesLeft
from adanat_cli.core.errors import AdaNATError
from adanat_cli.jobs.runtime import interrupts
from adanat_cli.jobs.runtime.interrupts import ended_by_signals

PACKAGE = Path(cli.__file__).parent


def adanat(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "adanat_cli", *arguments], capture_output=True, text=True, check=False)


def test_version_goes_to_stdout() -> None:
    done = adanat("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"adanat {__version__}")


def test_help_names_every_command() -> None:
    done = adanat("--help")
    assert done.returncode == 0
    training = ("tokenize", "pretrain-nat", "train-policy", "train-tokenizer")
    for name in ("sample", "edit", *training, "evaluate", "stats", "import", "info", "pull", "push"):
        assert name in done.stdout


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["no-such-command"], ["sample", "--steps", "many"]])
def test_usage_errors_exit_with_two(arguments: list[str]) -> None:
    assert adanat(*arguments).returncode == 2


def test_a_word_that_is_no_choice_is_named_without_the_type_of_pythons_error() -> None:
    done = adanat("sample", "--format", "bmp")
    assert done.returncode == 2
    assert "'--format': 'bmp' is not one of 'png', 'npz'." in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "no/such/folder"], "no/such/folder"),
        (["sample", "--model", "no/such/folder", "--steps", "4"], "no/such/folder"),
        (["train-tokenizer", "--dataset", "no/such/data", "--image-size", "8"], "no/such/data"),
        (["train-tokenizer", "--dataset", "digits", "--downsampling", "3"], "--downsampling is 3"),
        (["train-tokenizer", "--dataset", "digits", "--image-size", "15"], "15"),
        (["train-policy", "--dataset", "imagenet256"], "adanat pull imagenet256"),
        (["train-policy", "--dataset", "imagenet64", "--steps", "1"], "--steps is 1"),
        (["train-policy", "--dataset", "imagenet64", "--trajectories", "0"], "trajectories is 0"),
        (["train-policy", "--dataset", "imagenet64", "--data-dir", "no/such/data"], "no/such/data"),
        (["train-policy", "--dataset", "imagenet64", "--seed", "-1"], "seed is -1; expected at least 0"),
        (["train-tokenizer", "--dataset", "digits", "--seed", str(2**63)], "expected a whole number between"),
    ],
)
def test_mistakes_are_one_line_on_stderr_and_exit_with_one(
    arguments: list[str], words: str, warm: dict[str, str]
) -> None:
    done = subprocess.run(["adanat", *arguments], env=warm, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sample", "-n", "9"], "draws all of them again"),
        (["--nproc", "2", "edit", "a.png"], "draws all of them again"),
        (["studio"], "not downloaded"),
        (["tokenize", "--dataset", "sample"], "the same command resumes"),
        (["--nproc", "8", "train-policy"], "the same command resumes"),
        (["pull", "imagenet256"], "fetches the others"),
        (["push", "a", "b/c"], "whole or not at all"),
        (["import", "a.pth"], "as it was"),
    ],
)
def test_an_interrupted_command_says_what_it_leaves(arguments: list[str], words: str) -> None:
    assert words in interrupts.kept(arguments)


@pytest.mark.parametrize("arguments", [["bench"], ["info", "imagenet64"], []])
def test_an_interrupted_command_that_leaves_nothing_says_no_more(arguments: list[str]) -> None:
    assert interrupts.kept(arguments) == ""


@pytest.mark.parametrize(("name", "word"), [("SIGINT", "Interrupted."), ("SIGTERM", "Ended by SIGTERM.")])
def test_a_signal_is_one_line_and_exits_with_its_code(name: str, word: str) -> None:
    code = (
        "import os, signal, sys, time\n"
        # A parent in the background may have left Ctrl-C switched off.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import adanat_cli.cli as cli\n"
        f"cli.app.command('hang')(lambda: [os.kill(os.getpid(), signal.{name}), time.sleep(60)])\n"
        "sys.argv = ['adanat', 'hang']\n"
        "cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.Signals[name]
    assert done.stderr.strip().splitlines()[-1].startswith(word)


def test_a_second_interrupt_while_python_ends_changes_no_exit_code() -> None:
    code = (
        "import atexit, os, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import adanat_cli.cli as cli\n"
        "atexit.register(lambda: [os.kill(os.getpid(), signal.SIGINT), time.sleep(0.1)])\n"
        "cli.app.command('hang')(lambda: [os.kill(os.getpid(), signal.SIGINT), time.sleep(60)])\n"
        "sys.argv = ['adanat', 'hang']\n"
        "cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


def test_work_that_does_not_end_is_ended_in_time() -> None:
    code = (
        "import signal, sys\n"
        "import adanat_cli.jobs.runtime.interrupts as interrupts\n"
        "import threading, os\n"
        "interrupts.PATIENCE = 0.1\n"
        "with interrupts.ended_by_signals():\n"
        "    signal.signal(signal.SIGTERM, lambda *_: None)  # as if inside a library that does not come back\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    threading.Event().wait(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 143
    assert done.stderr == "Ended by SIGTERM in the middle of its work; what was saved before is kept.\n"


def test_after_a_command_signals_are_as_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, ended_by_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_process_of_a_group_ends_with_its_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    parents = iter([os.getppid()])  # and from the second question on, another
    monkeypatch.setattr(os, "getppid", lambda: next(parents, 1))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    monkeypatch.setattr(interrupts, "_GONE", 0.01)
    with pytest.raises(SystemExit) as caught, ended_by_signals():
        time.sleep(10)
    assert caught.value.code == 143


@pytest.mark.parametrize(
    ("words", "kind"), [("Connection closed by peer", ProcessesLeft), ("Out of memory", RuntimeError)]
)
def test_a_process_that_another_left_says_nothing(
    monkeypatch: pytest.MonkeyPatch, words: str, kind: type[BaseException]
) -> None:
    def fail() -> None:
        raise RuntimeError(f"[tcp/pair.cc:561] {words} [127.0.0.1]")

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(cli, "_PATIENCE", 0.0)
    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(kind):
        cli._run()


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


HOSTILE = "[red]a[/red]\x1b]0;b\x07\x1b[2J\x9b1m\r\u202e\udcff\nError: c"
SHOWN = r"[red]a[/red]\u001b]0;b\u0007\u001b[2J\u009b1m\u000d\u202e\udcff\u000aError: c"


def test_names_of_strangers_neither_act_on_a_terminal_nor_are_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout, stderr = io.BytesIO(), io.BytesIO()
    streams_to(monkeypatch, io.TextIOWrapper(stdout, "utf-8"), io.TextIOWrapper(stderr, "utf-8"))
    told = console.ConsoleReporter()
    told.log(HOSTILE)
    told.warn(HOSTILE)
    with told.task(HOSTILE, 2) as task:
        task.advance(2, name=HOSTILE)
    console.result({}, False, [HOSTILE])
    console.result({HOSTILE: HOSTILE}, True, [])
    sys.stderr.flush()
    lines = stderr.getvalue().decode().splitlines()
    assert lines[:2] == [SHOWN, f"Warning: {SHOWN}"]
    assert (len(lines), lines[2].startswith(SHOWN), lines[2].endswith(f"name {SHOWN}")) == (3, True, True)
    plain, as_json = stdout.getvalue().decode().splitlines()
    assert plain == SHOWN
    assert json.loads(as_json) == {HOSTILE: HOSTILE}
    assert as_json.isprintable()


def test_a_live_bar_takes_no_markup_from_names() -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=200)
    with console._RichTask(terminal, "[red]a[/red]", 2, "it", 0) as task:
        task.advance(2, name="[blue]b")
    assert "[red]a[/red]" in terminal.file.getvalue()
    assert "name [blue]b" in terminal.file.getvalue()


def test_what_libraries_print_does_not_act_on_a_terminal_either(monkeypatch: pytest.MonkeyPatch) -> None:
    there = io.BytesIO()
    streams_to(monkeypatch, io.TextIOWrapper(there, "utf-8"))
    print("\x1b[31mcolours\x1b[0m\tstay\x1b]0;titles\x07\x08go", flush=True)
    assert there.getvalue() == b"\x1b[31mcolours\x1b[0m\tstay\\u001b]0;titles\\u0007\\u0008go\n"


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_numbers_that_are_not_finite_are_null_in_json(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    there = io.BytesIO()
    streams_to(monkeypatch, io.TextIOWrapper(there, "utf-8"))
    console.result({"fid": value, "more": [{"kid": value}]}, True, [])
    assert there.getvalue() == b'{"fid": null, "more": [{"kid": null}]}\n'


def test_a_long_error_is_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cli._print_line("x" * 10**6)
    assert len(capsys.readouterr().err) < 3000


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
        told = console.ConsoleReporter()
        told.log("a line")
        with told.task("Working", 2) as task:
            task.advance(2)
        print("another", file=sys.stderr, flush=True)


def test_a_closed_standard_output_is_an_error_and_no_file_takes_its_place() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m adanat_cli --version >&-"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "Error: Cannot write to standard output: Bad file descriptor.\n")


def options_of(command: str) -> set[str]:
    """Every option of a command, as it is typed."""
    return {name for parameter in cli.loaded(command).params for name in [*parameter.opts, *parameter.secondary_opts]}


def options_named(folder: Path) -> set[str]:
    """Every option that is named in the messages of a room's files, whose docstrings name the same."""
    words = (re.findall(r"(?<![\w-])--[a-z][a-z-]+", file.read_text()) for file in folder.rglob("*.py"))
    return {word for found in words for word in found}


def test_every_option_that_a_message_advises_exists() -> None:
    everywhere = {"--nproc", "--help", "--version", "--force-reinstall"}  # the last one is pip's
    for command in typer.main.get_command(cli.app).commands:
        everywhere |= options_of(command)
    assert options_named(PACKAGE / "core") - everywhere == set()


@pytest.mark.parametrize("command", ["train-tokenizer", "tokenize", "train-policy", "stats"])
def test_what_messages_on_images_advise_can_be_done_where_images_are_opened(command: str) -> None:
    others = {"--encode-captions", "--tokens", "--output", "--model"}  # on token sets
    assert options_named(PACKAGE / "core" / "data") - others - options_of(command) == set()
