"""Signals that end a run: between two updates instead of within one, and in time."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from adanat_cli.core.errors import AdaNATError

PATIENCE = 12.0
"""Seconds after an outside signal until a run is ended that has not reached a point to save. Schedulers kill 10 to 30
seconds after the signal."""
_KEPT = {
    **dict.fromkeys(
        ("train-tokenizer", "pretrain-nat", "train-policy", "tokenize", "evaluate", "stats", "reproduce"),
        "What was saved is kept; the same command resumes.",
    ),
    **dict.fromkeys(("sample", "edit"), "PNGs written so far are kept; the same command draws all of them again."),
    "studio": "Images that were not downloaded from the page are not kept.",
    "pull": "Parts that are complete are kept; the same command fetches the others.",
    "import": "The model is as it was; run the same command again.",
    "push": "A push is one commit, which the Hub has whole or not at all; run the same command again.",
}
"""Command -> what an interrupt leaves; nothing to be said of the others."""
_LONGEST_SAVE = 120.0
_GONE = 1.0
"""Seconds between two checks whether the launcher is still there."""
_busy = threading.Event()
"""Set while a state is being saved."""


def kept(arguments: Iterable[str]) -> str:
    """What is left after the end of the command of these arguments; only numbers and options come before its name.

    Returns:
        A sentence; "" where there is nothing to be said.
    """
    command = next((word for word in arguments if not word.startswith("-") and not word.isdecimal()), "")
    return _KEPT.get(command, "")


def ending(number: int) -> BaseException:
    """The exception of a signal: Ctrl-C as usual; others exit with the code that makes schedulers requeue."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


def _outside() -> list[signal.Signals]:
    """Signals that schedulers, container engines and closed terminals send; not those that ``nohup`` has disabled."""
    known = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    return [number for number in known if signal.getsignal(number) != signal.SIG_IGN]


class Interrupt:
    """The signal that asked the run to end, if any."""

    def __init__(self) -> None:
        self.number = 0
        self._at_once = False

    @property
    def raised(self) -> bool:
        """Whether there was a signal."""
        return self.number != 0

    def end(self) -> BaseException:
        """The exception to raise then."""
        return ending(self.number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let signals raise at once inside the block, which must not change weights."""
        if self.raised:
            raise self.end()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Let nothing but SIGKILL end the block."""
        _busy.set()
        try:
            yield
        finally:
            _busy.clear()

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        impatient = self.raised and number == signal.SIGINT
        self.number = self.number or number
        if not _busy.is_set() and (impatient or self._at_once):
            raise self.end()


@contextmanager
def deferred_interrupts() -> Iterator[Interrupt]:
    """Record the first signal instead of raising, so that updates are never interrupted; a second Ctrl-C raises.

    Outside the main thread, where signals cannot be handled, nothing changes.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    previous = {number: signal.signal(number, interrupt.note) for number in (signal.SIGINT, *_outside())}
    try:
        yield interrupt
    except AdaNATError:
        raise
    except Exception as error:
        if interrupt.raised:  # a library has swallowed the end, or another process has left and the group is broken
            raise interrupt.end() from error
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Leave the block in an orderly way on SIGTERM and SIGHUP, and end this process if that takes too long.

    In a group of processes, also leave as on SIGTERM once the launcher is gone.
    """
    asked: list[int] = []

    def leave(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        raise ending(number)

    heard, over = _outside(), threading.Event()
    previous = {number: signal.signal(number, leave) for number in heard}
    # A byte comes out of the pipe even while the main thread is inside a library, where Python's handlers have to wait.
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    threading.Thread(target=_end_late, args=(read, {int(number) for number in heard}, over), daemon=True).start()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=_end_with, args=(os.getppid(), over), daemon=True).start()
    try:
        yield
    except Exception as error:
        if asked:  # libraries that are not written in Python turn the end into errors of their own
            raise ending(asked[0]) from error
        raise
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        os.close(write)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end_late(read: int, heard: set[int], over: threading.Event) -> None:
    """Wait for a signal, then end this process if it does not end by itself."""
    with open(read, "rb", buffering=0) as pipe:
        while (number := pipe.read(1)) and number[0] not in heard:
            pass
    if not number or over.wait(PATIENCE):
        return
    deadline = time.monotonic() + _LONGEST_SAVE
    while _busy.is_set() and time.monotonic() < deadline:
        time.sleep(0.1)
    if over.wait(1.0):  # after a save the rest is quick
        return
    name = signal.Signals(number[0]).name
    print(f"Ended by {name} in the middle of its work; what was saved before is kept.", file=sys.stderr, flush=True)
    os._exit(128 + number[0])


def _end_with(launcher: int, over: threading.Event) -> None:
    """Ask this process to end when its launcher has died, which shows as another parent process."""
    while not over.wait(_GONE):
        if os.getppid() != launcher:
            os.kill(os.getpid(), signal.SIGTERM)
            return
