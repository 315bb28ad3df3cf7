"""A line for who waits: what a command does where nothing else is said for a while.

Owns the time after which it is said. A cold start compiles the kernels, which takes a minute or more.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import typer

SOON_S = 2.0
COLD_START = "working; the first use of a version also compiles its kernels, a minute or two ..."


@contextlib.contextmanager
def explained_wait(text: str = COLD_START) -> Iterator[Callable[[], None]]:
    """Say `text` on standard error if what is inside takes longer than `SOON_S`, or until told to stop."""
    timer = threading.Timer(SOON_S, lambda: typer.echo(text, err=True))
    timer.daemon = True
    timer.start()
    try:
        yield timer.cancel
    finally:
        timer.cancel()
