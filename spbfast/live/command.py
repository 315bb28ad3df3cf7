"""A command that runs while something is recorded, and signals that end a recording in good order.

Owns the child's life: it is started in a group of its own and ended with the recording. The first SIGINT asks
for the end, a second one, SIGTERM and SIGHUP become exceptions, so that every `finally` runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

from spbfast.errors import LiveError

GRACE_SECONDS = 5.0


class Child:
    """A command, or none: then it is never over."""

    def __init__(self, command: Sequence[str]) -> None:
        self.exit_code: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        if command:
            try:
                self._process = subprocess.Popen(command, start_new_session=True)
            except OSError as error:
                raise LiveError(f"{command[0]} can't be run: {error.strerror}") from None

    def is_over(self) -> bool:
        """Whether the command has ended."""
        return self._process is not None and self._process.poll() is not None

    def end(self) -> None:
        """End the command and all that it started, if it still runs; keep its exit code."""
        process = self._process
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
        self.exit_code = process.wait()


class EndAsked:
    """What signals asked for: SIGINT the end of the recording, SIGTERM and SIGHUP the end at once."""

    def __init__(self) -> None:
        self.is_set = False
        self._is_held = False
        self._held_back = 0

    def note(self, _number: int, _frame: FrameType | None) -> None:
        """Handle SIGINT."""
        if self.is_set:
            raise KeyboardInterrupt
        self.is_set = True

    def end(self, number: int, _frame: FrameType | None) -> None:
        """Handle SIGTERM and SIGHUP.

        Raises
        ------
        SystemExit
            At once, or where `held` ends.
        """
        if self._is_held:
            self._held_back = number
        else:
            raise SystemExit(128 + number)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold SIGTERM and SIGHUP back, while something is made that only its maker could take away."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._held_back:
            raise SystemExit(128 + self._held_back)


@contextlib.contextmanager
def child_of(command: Sequence[str], asked: EndAsked) -> Iterator[Child]:
    """Run a command until the block ends.

    Raises
    ------
    LiveError
        When it cannot be started.
    """
    child: Child | None = None
    try:
        with asked.held():
            child = Child(command)
        yield child
    finally:
        if child is not None:
            child.end()


@contextlib.contextmanager
def ends_by_signal() -> Iterator[EndAsked]:
    """Let SIGINT ask for the end, and SIGTERM and SIGHUP end the block by an exception."""
    asked = EndAsked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    handlers = {signal.SIGINT: asked.note, signal.SIGTERM: asked.end, signal.SIGHUP: asked.end}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
