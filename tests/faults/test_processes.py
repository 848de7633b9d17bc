"""Signals end a command whatever a library makes of them, and a dead process of a group ends the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adanat_cli.core.checkpoints.trees import load_tree
from adanat_cli.jobs.runtime.interrupts import deferred_interrupts, ended_by_signals
from tests.nat_toy import make_request

ROOT = Path(__file__).parents[2]
SECONDS = 20
"""The launcher looks every few hundred milliseconds, on a busy machine less often."""


def ranks_of(launcher: int) -> dict[int, int]:
    """Rank -> process of a launcher's children."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            variables = dict(part.split("=", 1) for part in (folder / "environ").read_text().split("\0") if "=" in part)
        except OSError:
            continue  # it has ended
        if parent == launcher and "RANK" in variables:
            found[int(variables["RANK"])] = int(folder.name)
    return found


def swallow_the_end() -> None:
    """Act as a library in C++ does, which makes an error of its own of whatever its callbacks raise."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on")
    except SystemExit:
        raise ValueError("could not determine the shape") from None


def test_a_signal_ends_a_command_with_its_code_even_if_a_library_swallows_it() -> None:
    with pytest.raises(SystemExit) as left, ended_by_signals():
        swallow_the_end()
    assert left.value.code == 143
    with pytest.raises(SystemExit) as left, deferred_interrupts() as interrupt, interrupt.at_once():
        swallow_the_end()
    assert left.value.code == 143


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_a_process_that_is_killed_ends_the_group_with_a_line_and_leaves_whole_states(tmp_path: Path) -> None:
    make_request(tmp_path)
    words = ["pretrain-nat", "-d", "toy", "--tokens", "tokens", "-m", "model", "-o", "run", "--size", "nano"]
    words += ["--batch-size", "8", "--save-every", "5", "--precision", "fp32", "--device", "cpu", "--updates"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "adanat_cli", "--nproc", "2", *words, "1000000"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as group:
        states = tmp_path / "run" / "checkpoints"
        deadline = time.monotonic() + 240
        while not list(states.glob("step-*.safetensors")) and group.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        processes = ranks_of(group.pid)
        killed = time.monotonic()
        os.kill(processes[1], signal.SIGKILL)
        _, said = group.communicate(timeout=120)
        took = time.monotonic() - killed
    assert group.returncode == 137, said
    assert took < SECONDS, said
    assert "Process 1 of 2 was ended by SIGKILL" in said
    assert "Traceback" not in said
    assert not any(Path(f"/proc/{process}").exists() for process in processes.values())
    assert all(load_tree(file)["step"] for file in states.glob("step-*.safetensors"))
