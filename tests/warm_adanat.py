"""``adanat`` for scripts under test: a process that has imported everything forks itself for every command.

Starting Python and importing PyTorch takes longer than most of the tiny commands of a script.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
_CLIENT = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    asked = json.dumps({{"words": sys.argv, "folder": os.getcwd()}}).encode()
    socket.send_fds(server, [asked], [0, 1, 2])
    ended = server.recv(1)
sys.exit(ended[0] if ended else 1)
"""


@contextmanager
def warm_adanat() -> Iterator[dict[str, str]]:
    """Start the process, and yield an environment in which ``adanat`` asks it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:  # of a short name, as addresses of sockets have to be
        address, script = f"{folder}/socket", Path(folder) / "adanat"
        script.write_text(_CLIENT.format(python=sys.executable, address=address))
        script.chmod(0o755)
        command = [sys.executable, "-c", "from tests.warm_adanat import serve; serve()", address]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == "ready\n"
                yield {**environment, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
            finally:
                server.kill()


def serve() -> None:
    """Run each command that is asked for in a fork, on the caller's streams, and answer with its exit code."""
    import accelerate  # noqa: F401 — what nearly every command imports
    import datasets  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import timm  # noqa: F401

    from adanat_cli.cli import main

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(sys.argv[1])
        server.listen()
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                asked, streams, *_ = socket.recv_fds(connection, 2**16, 3)
                if not (child := os.fork()):
                    for number, stream in enumerate(streams):
                        os.dup2(stream, number)
                    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 — of another kind than the server's
                    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
                    request = json.loads(asked)
                    os.chdir(request["folder"])
                    sys.argv = request["words"]
                    main()
                    sys.exit()
                _, status = os.waitpid(child, 0)
                connection.sendall(bytes([os.waitstatus_to_exitcode(status) & 255]))
                for stream in streams:
                    os.close(stream)
