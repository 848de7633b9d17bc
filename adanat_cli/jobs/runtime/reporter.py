"""How a run reports to its caller: an interface, and a silent form for tests and library use."""

from __future__ import annotations

from typing import Any, Protocol, Self


class Task(Protocol):
    """One progress bar."""

    def advance(self, amount: int = 1, **fields: Any) -> None:
        """Move on; ``fields`` (loss=…, psnr=…) are shown beside the bar."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


class Reporter(Protocol):
    """Receives the messages and the progress of a run; commands pass one that draws with rich on stderr."""

    def log(self, text: str) -> None:
        """Report one line."""

    def warn(self, text: str) -> None:
        """Report one line that the user should not miss."""

    def task(self, description: str, total: int | None, unit: str = "it", done: int = 0) -> Task:
        """Open a progress bar with rate and ETA; ``total`` is None where it is not known."""


class _SilentTask:
    def advance(self, amount: int = 1, **fields: Any) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Do nothing."""


class SilentReporter:
    """Reports nothing."""

    def log(self, text: str) -> None:
        """Do nothing."""

    def warn(self, text: str) -> None:
        """Do nothing."""

    def task(self, description: str, total: int | None, unit: str = "it", done: int = 0) -> Task:
        """Return a progress bar that draws nothing."""
        return _SilentTask()
