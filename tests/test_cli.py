"""The command line's manners: exit codes, streams and one-line errors."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from adanat_cli import __version__


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
