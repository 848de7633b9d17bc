"""Python processes that tests start: one, or two that form a group."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def start(script: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Run a Python script on one thread, from the checkout."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def run_two(script: str, *arguments: object, timeout: float = 120) -> None:
    """Run a Python script as two gloo processes that find each other as under torchrun; both must succeed.

    They end as the command line ends them: threads of libraries would now and then abort Python's own end.
    """
    script += "\nimport atexit, os, sys\natexit._run_exitfuncs()\nsys.stderr.flush()\nos._exit(0)\n"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [start(script, *arguments, RANK=str(rank), LOCAL_RANK=str(rank), **place) for rank in range(2)]
    try:
        errors = [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
