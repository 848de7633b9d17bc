"""Two processes of a group, which tests start."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.warm_adanat import Started


def run_two(warm: Mapping[str, str], script: str, *arguments: object, timeout: float = 120) -> None:
    """Run a Python script as two gloo processes that find each other as under torchrun; both must succeed.

    Args:
        warm: as the fixture of that name.
        script: its text.
        arguments: what it finds in ``sys.argv``.
        timeout: seconds until they are ended.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with tempfile.TemporaryDirectory() as folder:
        file, logs = Path(folder) / "script.py", [Path(folder) / f"{rank}.log" for rank in range(2)]
        file.write_text(script)
        words = list(map(str, (file, *arguments)))
        processes = [
            Started(warm, words, log, "warm-python", environ={**place, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank, log in enumerate(logs)
        ]
        try:
            codes = [process.wait(timeout) for process in processes]
        except TimeoutError:
            for process in processes:
                os.kill(process.pid, signal.SIGKILL)
            raise
        assert codes == [0, 0], [log.read_text() for log in logs]
