"""End a command at random moments, start it again until it is done, and compare with an unbroken run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.commands import COMMANDS, Command, assert_same, make_toy
from tests.warm_adanat import Started

WRITE, MOMENT, TERM = "SIGKILL before a change", "SIGKILL at a moment", "SIGTERM at a moment"
WAYS = (WRITE, MOMENT, TERM)
SECONDS_TO_SAVE = 20
_LONGEST_PAUSE = 0.1
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"}
_IN_PARTS = [("tests.faults.commands:small_parts",)]


@dataclass(frozen=True)
class End:
    """How a process ends itself.

    Attributes:
        change: number of the change to its output, from 1; before it is made, or so long after it.
        number: the signal.
        pause: seconds after the change; 0 ends it before.
    """

    change: int
    number: int
    pause: float = 0.0


def watch(folder: str, tally: str, change: int = 0, number: int = 0, pause: float = 0.0) -> None:
    """Count what this process changes below a folder, in letters x of the file ``tally``, and end it as ``End`` says.

    Files that libraries open without Python are not seen.
    """
    count, seen = os.open(tally, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 0

    def end() -> None:
        os.write(count, str(time.monotonic()).encode())
        os.kill(os.getpid(), number)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in _CHANGES and not (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if not any(isinstance(path, str | Path) and os.path.abspath(path).startswith(folder) for path in arguments):
            return
        seen += 1
        os.write(count, b"x")
        if seen == change:
            threading.Timer(pause, end).start() if pause else end()

    sys.addaudithook(hook)


@dataclass
class Outcome:
    """What a command went through.

    Attributes:
        ended: how often it was ended, by way.
        num_compared: runs that were compared with the unbroken one, and were the same.
        slowest: longest time between SIGTERM and the end, in seconds.
    """

    ended: Counter[str] = field(default_factory=Counter)
    num_compared: int = 0
    slowest: float = 0.0


class Breaking:
    """Runs commands on a toy, and ends them."""

    def __init__(self, folder: Path, environment: Mapping[str, str], seed: int) -> None:
        """Make the toy."""
        self.folder, self._environment, self._seed = folder, environment, seed
        make_toy(folder, self.run)

    def run(self, command: Command, output: str, end: End | None = None) -> tuple[int, int, float]:
        """Run a command, and let it end itself.

        Returns:
            Exit code, the number of changes it made to files, and the seconds that it took to end.

        Raises:
            AssertionError: with what it said, if it ends in another way than it should, or too late.
        """
        log, tally = self.folder / "log", self.folder / "tally"
        tally.unlink(missing_ok=True)
        words = command.line.format(out=output).split()
        how = (end.change, end.number, end.pause) if end else ()
        before = [["tests.faults.kills:watch", str((self.folder / output).parent), str(tally), *how]]
        started = Started(
            self._environment,
            words,
            log,
            folder=str(self.folder),
            before=[*before, *(_IN_PARTS if command.in_parts else [])],
        )
        code = started.wait()
        said, changes = log.read_text(), tally.read_text()
        if code == -signal.SIGTERM and log.with_suffix(".out").read_text():
            code = 0  # it had its result, and only Python itself was still to end
        number = end.number if end else 0
        expected = (0, -number if number == signal.SIGKILL else 128 + number)
        assert code in expected and "Traceback" not in said, f"adanat {' '.join(words)} ended with {code}: {said}"  # noqa: PT018
        sent = changes.strip("x")
        seconds = time.monotonic() - float(sent) if code and number == signal.SIGTERM else 0.0
        assert seconds < SECONDS_TO_SAVE
        return code, changes.count("x"), seconds

    def survive(self, name: str, kills: int) -> Outcome:
        """End a command so often, in every way in turn; each run is begun anew when it is done.

        Raises:
            AssertionError: if a run ends with other files than an unbroken one.
        """
        self._random = random.Random(f"{self._seed} {name}")
        unbroken, changes = self._unbroken(name)
        outcome, attempt = Outcome(), 0
        while outcome.ended.total() < kills:
            broken = self._new_folder("broken", name) / unbroken.name
            while outcome.ended.total() < kills:
                attempt += 1
                if self._end(name, broken, outcome, WAYS[attempt % len(WAYS)], changes):
                    break
            assert self.run(COMMANDS[name], self._within(broken))[0] == 0
            assert_same(broken, unbroken)
            outcome.num_compared += 1
        return outcome

    def _unbroken(self, name: str) -> tuple[Path, int]:
        """Run a command without a fault; returns its output and the changes it made to files."""
        output = self._new_folder("unbroken", name) / COMMANDS[name].output
        code, changes, _ = self.run(COMMANDS[name], self._within(output))
        assert code == 0
        return output, changes

    def _end(self, name: str, output: Path, outcome: Outcome, way: str, changes: int) -> bool:
        """Start a command and end it in some way at random; returns whether it was done before."""
        number = signal.SIGTERM if way == TERM else signal.SIGKILL
        pause = 0.0 if way == WRITE else self._random.uniform(1e-4, _LONGEST_PAUSE)
        end = End(self._random.randint(1, changes), number, pause)
        code, made, seconds = self.run(COMMANDS[name], self._within(output), end)
        outcome.ended[way] += code != 0
        outcome.slowest = max(outcome.slowest, seconds)
        when = f"{1000 * pause:.0f} ms after" if pause else "before"
        print(f"{name}: {way}, {when} change {end.change}: {f'code {code}' if code else 'done before'}, {made} changes")
        return code == 0

    def _new_folder(self, kind: str, name: str) -> Path:
        folder = self.folder / f"{kind}-{name.replace(', ', '-')}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _within(self, output: Path) -> str:
        return str(output.relative_to(self.folder))
