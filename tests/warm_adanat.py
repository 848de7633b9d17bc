"""``adanat`` for scripts and faults under test: a process that has imported everything forks itself for every command.

Starting Python and importing PyTorch takes longer than most of the tiny commands of a script. The fixture ``warm`` is
such a process for all tests.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import pkgutil
import runpy
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PYTHON = "WARM_PYTHON"
"""Variable with the path of a program that runs a Python script with its arguments, as ``adanat`` runs a command."""
_ADDRESS, _STARTED, _ENDED = "WARM_ADANAT", struct.Struct("<i"), struct.Struct("<id")
_CLIENT = """#!{python} -SE
import json, os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    asked = json.dumps({{"words": sys.argv, "folder": os.getcwd(), "environ": dict(os.environ)}}).encode()
    socket.send_fds(server, [asked], [0, 1, 2])
    pid = int.from_bytes(server.recv(4), "little")
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(pid, number))
    ended = server.recv(12)[:4]
code = int.from_bytes(ended, "little", signed=True) if ended else 1
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextmanager
def warm_adanat(**variables: str) -> Iterator[dict[str, str]]:
    """Start the process with variables in its environment, and yield an environment in which ``adanat`` asks it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    with tempfile.TemporaryDirectory() as folder:  # of a short name, as addresses of sockets have to be
        address, python = f"{folder}/socket", Path(folder) / "warm-python"
        for script in (Path(folder) / "adanat", python):
            script.write_text(_CLIENT.format(python=sys.executable, address=address))
            script.chmod(0o755)
        command = [sys.executable, "-c", "from tests.warm_adanat import serve; serve()", address]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == "ready\n"
                path = f"{folder}{os.pathsep}{os.environ['PATH']}"
                yield {**environment, "PATH": path, _ADDRESS: address, PYTHON: str(python)}
            finally:
                server.kill()


class Started:
    """A command that runs in a fork of its own.

    Attributes:
        pid: its process, to be sent signals.
        cpu_seconds: what it took, once it has ended.
    """

    def __init__(
        self, environment: Mapping[str, str], words: list[str], log: Path, program: str = "adanat", **asked: Any
    ) -> None:
        """Start a program with these words.

        Args:
            environment: as ``warm_adanat`` yields it.
            words: the command line, without the program.
            log: file that gets what it says; its results go to the file of the same name with ".out".
            program: ``adanat``, or ``warm-python``, which runs a script.
            asked: ``folder`` to work in; ``environ``, variables to set; ``before``, the names "module:function" of
                functions to call first, each with its arguments.
        """
        self.cpu_seconds = 0.0
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(environment[_ADDRESS])
        request = {"words": [program, *words], "folder": str(ROOT), **asked}
        with log.open("wb") as said, log.with_suffix(".out").open("wb") as results, open(os.devnull, "rb") as nothing:
            streams = [nothing.fileno(), results.fileno(), said.fileno()]
            socket.send_fds(self._server, [json.dumps(request).encode()], streams)
        (self.pid,) = _STARTED.unpack(self._server.recv(_STARTED.size))

    def wait(self, timeout: float = 300) -> int:
        """Return the exit code, negative for a signal that ended it.

        Raises:
            TimeoutError: if it does not end in time.
        """
        self._server.settimeout(timeout)
        with self._server:
            code, self.cpu_seconds = _ENDED.unpack(self._server.recv(_ENDED.size))
        return int(code)


def serve() -> None:
    """Run each command that is asked for in a fork, on the caller's streams, and answer with its exit code."""
    import accelerate  # noqa: F401 — what nearly every command imports
    import datasets  # noqa: F401
    import matplotlib.backends.backend_agg  # noqa: F401
    import timm  # noqa: F401

    import adanat_cli

    with suppress(ImportError):  # what trainings and the digits import where it is installed
        import sklearn.datasets  # noqa: F401
        import torch.utils.tensorboard  # noqa: F401

    for module in pkgutil.walk_packages(adanat_cli.__path__, "adanat_cli."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    import_module("typer._adapters")
    gc.freeze()  # pages that the collector does not touch are not copied
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(sys.argv[1])
        server.listen()
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                if not os.fork():
                    server.close()
                    _answer(connection)
                    os._exit(0)


def _answer(connection: socket.socket) -> None:
    """Run one command in a fork; answer with its process number and, once it has ended, its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asked, streams, *_ = socket.recv_fds(connection, 2**16, 3)
    if not (child := os.fork()):
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        _run(json.loads(asked))
    connection.sendall(_STARTED.pack(child))
    for stream in streams:
        os.close(stream)
    _, status, used = os.wait4(child, 0)
    connection.sendall(_ENDED.pack(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime))


def _run(asked: dict[str, Any]) -> None:
    from adanat_cli.cli import main

    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 — of another kind than the server's
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
    os.chdir(asked["folder"])
    os.environ.update(asked.get("environ", {}))
    program, *words = asked["words"]
    script = Path(program).name == "warm-python"
    sys.argv = words if script else [program, *words]
    for name, *arguments in asked.get("before", ()):
        module, function = name.split(":")
        getattr(import_module(module), function)(*arguments)
    try:
        runpy.run_path(words[0], run_name="__main__") if script else main()
        code: object = 0
    except SystemExit as left:
        code = left.code
    except BaseException:
        traceback.print_exc()
        code = 1
    # Python's own end would touch, and so copy, everything that is imported.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
