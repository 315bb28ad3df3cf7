"""Stopping on request.

Owns the handlers of SIGINT, SIGTERM, SIGHUP and SIGUSR1 while a sweep runs. The first signal asks for an
orderly end, the second one interrupts; SIGUSR1 is how batch systems announce the end of a job, so it never
interrupts. Knows nothing of what is being stopped.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


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
            if signum == signal.SIGUSR1:
                return
            raise KeyboardInterrupt
        self.signum = signum
        self._on_stop()

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Handle the signals, if this is the main thread.

        A shell starts background commands with SIGINT ignored, so it is handled all the same; SIGHUP that
        `nohup` ignores stays ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        wanted = [s for s in HANDLED if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN]
        old = {s: signal.signal(s, self) for s in wanted}
        try:
            yield self
        finally:
            for signum, handler in old.items():
                signal.signal(signum, handler)
