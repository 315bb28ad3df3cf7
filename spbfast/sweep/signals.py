"""Stopping on request.

Owns the handlers of SIGINT and SIGTERM while a sweep runs. The first signal asks for an orderly end, the
second one interrupts. Knows nothing of what is being stopped.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Remembers the first signal; the second one interrupts at once."""

    def __init__(self, on_stop: Callable[[], None]) -> None:
        self.signum = 0
        self._on_stop = on_stop

    @property
    def name(self) -> str:
        """Name of the signal, "" while there was none."""
        return signal.Signals(self.signum).name if self.signum else ""

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if self.signum:
            raise KeyboardInterrupt
        self.signum = signum
        self._on_stop()

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Handle SIGINT and SIGTERM, if this is the main thread; a shell may have set SIGINT to ignored."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        old = {s: signal.signal(s, self) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for signum, handler in old.items():
                signal.signal(signum, handler)
