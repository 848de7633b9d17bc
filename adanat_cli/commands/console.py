"""Where commands speak: progress on stderr (rich on a terminal, plain lines otherwise), results on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from adanat_cli.core.errors import hide_secrets, printable
from adanat_cli.core.reading import json_text

if TYPE_CHECKING:
    from adanat_cli.jobs.runtime.reporter import Task

_PASSING = ("phase", "step")
"""Fields of what is done between two advances."""
_PLAIN_SECONDS = 15.0
"""Time between two progress lines where stderr is not a terminal."""


def _show(fields: dict[str, Any]) -> str:
    """Format what a run shows beside its bar."""
    shown = (f"{value:.4g}" if isinstance(value, float) else f"{value}" for value in fields.values())
    return printable("  ".join(f"{key} {value}" for key, value in zip(fields, shown, strict=True)))


def _duration(seconds: float) -> str:
    """Format seconds as h:mm:ss."""
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"


class _Meter:
    """Counts a task's progress and its rate since the task began."""

    def __init__(self, total: int | None, unit: str, done: int) -> None:
        self.total, self.unit, self.done, self.first = total, unit, done, done
        self.start = time.monotonic()
        self.fields: dict[str, Any] = {}

    def advance(self, amount: int, fields: dict[str, Any]) -> None:
        self.done += amount
        if amount:
            self.end_part()
        self.fields.update(fields)

    def end_part(self) -> None:
        """Show no longer what lasted a part of one advance: it is over."""
        for name in _PASSING:
            self.fields.pop(name, None)

    @property
    def rate(self) -> float:
        return (self.done - self.first) / max(time.monotonic() - self.start, 1e-9)

    @property
    def pace(self) -> str:
        """Units per second, or the seconds of one where it takes longer than that; "" before the first."""
        if self.done == self.first:
            return ""
        if 0 < self.rate < 1:
            return f"{1 / self.rate:.1f} s/{self.unit.removesuffix('s')}"
        return f"{self.rate:.1f} {self.unit}/s"


class _PlainTask:
    """Prints a line now and then, for logs."""

    def __init__(self, description: str, total: int | None, unit: str, done: int) -> None:
        self._description, self._meter = printable(description), _Meter(total, unit, done)
        self._printed, self._shown = time.monotonic(), done

    def advance(self, amount: int = 1, **fields: Any) -> None:
        self._meter.advance(amount, fields)
        if time.monotonic() - self._printed > _PLAIN_SECONDS:
            self._print()

    def _print(self) -> None:
        meter, self._printed, self._shown = self._meter, time.monotonic(), self._meter.done
        left = ""
        if meter.total is not None and meter.rate > 0:
            left = f", {_duration((meter.total - meter.done) / meter.rate)} left"
        count = f"{meter.done}/{meter.total}" if meter.total is not None else f"{meter.done}"
        pace = f", {meter.pace}" if meter.pace else ""
        line = f"{self._description}: {count} {meter.unit}{pace}{left}  {_show(meter.fields)}"
        print(line.rstrip(), file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._meter.end_part()
        if self._meter.done > self._shown:
            self._print()


class _RichTask:
    """Draws a live bar."""

    def __init__(self, console: Console, description: str, total: int | None, unit: str, done: int) -> None:
        self._meter = _Meter(total, unit, done)
        self._progress = Progress(
            SpinnerColumn("line" if console.options.ascii_only else "dots"),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}", style="dim", markup=False),
            console=console,
        )
        self._task = self._progress.add_task(printable(description), total=total, completed=done, rate="", shown="")

    def advance(self, amount: int = 1, **fields: Any) -> None:
        self._meter.advance(amount, fields)
        self._progress.update(self._task, advance=amount, rate=self._meter.pace, shown=_show(self._meter.fields))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()


class ConsoleReporter:
    """Tells a run's words and progress on stderr."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    def log(self, text: str) -> None:
        """Say one line."""
        self._console.print(printable(hide_secrets(text)), markup=False, emoji=False)

    def warn(self, text: str) -> None:
        """Say one line that the user should not miss."""
        self._console.print(f"Warning: {printable(hide_secrets(text))}", style="yellow", markup=False, emoji=False)

    def task(self, description: str, total: int | None, unit: str = "it", done: int = 0) -> Task:
        """Open a progress bar."""
        description = hide_secrets(description)
        if self._console.is_terminal:
            return _RichTask(self._console, description, total, unit, done)
        return _PlainTask(description, total, unit, done)


def result(values: dict[str, Any], as_json: bool, lines: Iterable[str]) -> None:
    """Print a command's result on stdout: one JSON object, or lines for people."""
    # Escapes of JSON's own are read back as what they stand for; those of the stream need not be.
    escape = not (sys.stdout.encoding or "").lower().startswith("utf")
    text = printable(json_text(values, ascii_only=escape)) if as_json else "\n".join(map(printable, lines))
    print(text, flush=True)


def settings(values: dict[str, Any], as_json: bool) -> None:
    """Print settings on stdout, as YAML or as one JSON object."""
    import yaml

    text = json_text(values, ascii_only=True) if as_json else yaml.safe_dump(values, sort_keys=False).rstrip("\n")
    print(text, flush=True)
