"""How a sweep shows its progress.

Owns the bar on a terminal and the whole lines elsewhere (logs and batch systems turn carriage returns into
garbage). Knows only counts and times.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from spbfast.text import format_seconds, format_share

LINE_EVERY_S = 30.0
LINE_EVERY_SHARE = 0.05
LINE_PAUSE_S = 1.0


class Progress:
    """Shows nothing, and is what every display of progress derives from.

    The driver calls `update` after every change and at least four times a second.
    """

    def message(self, text: str) -> None:
        """Show a line for people."""

    def update(self, done: int, total: int, failed: int, eta_s: float | None, events_per_s: float) -> None:
        """Show the counts of runs; `eta_s` is None while it is unknown."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def _rate(events_per_s: float) -> list[str]:
    return [f"{events_per_s / 1e6:.1f} M page events/s"] if events_per_s > 0 else []


class Lines(Progress):
    """One whole line every 30 s or 5 %, whichever comes first (one a second at most), and one at the end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._start = self._last_time = time.monotonic()
        self._last_done = -1

    def message(self, text: str) -> None:
        """Print a line."""
        print(text, file=self._stream, flush=True)

    def update(self, done: int, total: int, failed: int, eta_s: float | None, events_per_s: float) -> None:
        """Print the counts if enough has changed."""
        now = time.monotonic()
        if self._last_done < 0:
            self._last_done = done
        waited = now - self._last_time
        moved = done - self._last_done >= max(1, int(total * LINE_EVERY_SHARE)) and waited >= LINE_PAUSE_S
        ended = done == total and done != self._last_done
        if not moved and not ended and waited < LINE_EVERY_S:
            return
        self._last_time, self._last_done = now, done
        parts = [f"{done} of {total} runs ({format_share(done, total)})", f"{failed} failed"]
        parts.append(f"{format_seconds(now - self._start)} elapsed")
        if eta_s is not None and done < total:
            parts.append(f"about {format_seconds(eta_s)} left")
        self.message(", ".join(parts + _rate(events_per_s)))


class Bar(Progress):
    """A rich progress bar for terminals."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._console = Console(file=stream, highlight=False)
        note = TextColumn("{task.fields[note]}")
        columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), note, TimeElapsedColumn())
        self._bar = RichProgress(*columns, console=self._console)
        self._task: Any = None

    def message(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False, soft_wrap=True)

    def update(self, done: int, total: int, failed: int, eta_s: float | None, events_per_s: float) -> None:
        """Move the bar."""
        notes = [f"{failed} failed"] if failed else []
        notes += [f"{format_seconds(eta_s)} left"] if eta_s is not None and done < total else []
        if self._task is None:
            self._task = self._bar.add_task("runs", total=total, note="")
        self._bar.update(self._task, completed=done, total=total, note=", ".join(notes + _rate(events_per_s)))

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


class JsonLines(Progress):
    """One JSON object per line: messages as they come, counts once a second at most."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last_done, self._last_time = -1, 0.0

    def _put(self, **facts: Any) -> None:
        print(json.dumps({"time": round(time.time(), 3), **facts}), file=self._stream, flush=True)

    def message(self, text: str) -> None:
        """Print a message."""
        self._put(message=text)

    def update(self, done: int, total: int, failed: int, eta_s: float | None, events_per_s: float) -> None:
        """Print the counts if they have changed."""
        now = time.monotonic()
        if done == self._last_done or (done < total and now - self._last_time < LINE_PAUSE_S):
            return
        self._last_done, self._last_time = done, now
        eta = None if eta_s is None else round(eta_s, 1)
        self._put(done=done, total=total, failed=failed, eta_s=eta, events_per_s=round(events_per_s))


@dataclass
class Logged(Progress):
    """Another display, its messages kept in a file with their time as well.

    A display or a log that cannot be written is no reason to stop: a terminal that is gone, a dead `tee`.
    """

    inner: Progress
    path: Path

    def message(self, text: str) -> None:
        """Show a line and keep it."""
        self._show(lambda display: display.message(text))
        self._keep(text)

    def _keep(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8", errors="surrogateescape") as f:
                f.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n")

    def update(self, done: int, total: int, failed: int, eta_s: float | None, events_per_s: float) -> None:
        """Show the counts."""
        self._show(lambda display: display.update(done, total, failed, eta_s, events_per_s))

    def _show(self, call: Callable[[Progress], object]) -> None:
        try:
            call(self.inner)
        except (OSError, ValueError) as error:  # ValueError: the stream was closed, or lacks a character
            self.inner = Progress()
            self._keep(f"progress cannot be shown any more: {error}")

    def __enter__(self) -> Progress:
        self._show(lambda display: display.__enter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show(lambda display: display.__exit__(kind, error, trace))


def make_progress(quiet: bool, stream: TextIO | None = None, *, json_lines: bool = False) -> Progress:
    """The display that suits the stream (standard error by default)."""
    stream = stream or sys.stderr
    if quiet or stream is None:
        return Progress()
    if json_lines:
        return JsonLines(stream)
    return Bar(stream) if stream.isatty() else Lines(stream)
