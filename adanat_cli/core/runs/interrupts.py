"""Ctrl-C between two updates instead of in the middle of one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.raised = False


@contextmanager
def deferred_interrupts() -> Iterator[Interrupt]:
    """Note the first Ctrl-C instead of raising, so that an update is never cut in half; the second raises.

    Off the main thread, where signals cannot be handled, nothing changes.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def note(_signal: int, _frame: FrameType | None) -> None:
        if interrupt.raised:
            raise KeyboardInterrupt
        interrupt.raised = True

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    except RuntimeError as error:
        if interrupt.raised and int(os.environ.get("RANK", "0")) > 0:
            raise KeyboardInterrupt from error  # the main process has saved and left, so the group is broken
        raise
    finally:
        signal.signal(signal.SIGINT, previous)
