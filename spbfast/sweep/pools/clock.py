"""A clock for Dask that never jumps.

Dask and Tornado measure intervals with the wall clock: when it is set back by an hour, their messages wait
for an hour. This gives Tornado's loop and Dask's message queues a clock that starts with the wall clock and
then follows the monotonic one alone. Workers load this module at their start.
"""

from __future__ import annotations

import time

_OFFSET = time.time() - time.monotonic()


def steady() -> float:
    """Seconds since the epoch as this process believed them to be at its start, never jumping."""
    return _OFFSET + time.monotonic()


def install() -> None:
    """Give it to this process's Dask, for good: clocks must not differ between two parts of a wait."""
    import distributed.batched
    from tornado.ioloop import IOLoop

    distributed.batched.time = steady
    IOLoop.time = lambda self: steady()  # type: ignore[method-assign]


def dask_setup(worker: object) -> None:
    """Dask calls this in each worker that preloads the module."""
    install()
