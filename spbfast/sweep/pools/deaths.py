"""Worker processes that cannot live: too little memory, seen before they start and when they die of it.

Owns the least memory of a worker process, and the ear for Dask's nannies, whose words nobody else hears: a
nanny that kills its worker at the limit starts another, which may die the same way for ever.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

from spbfast.errors import SetupError
from spbfast.sweep.pools.limits import MIB, PROCESS_BYTES

TOLD = 3
HOPELESS = 6  # deaths without one finished batch
NANNIES = "distributed.nanny.memory"


def check_worker_memory(share: int, need_bytes: int, workers: int) -> None:
    """Refuse worker processes that are killed before they can run anything.

    Raises
    ------
    SetupError
        With the memory that would do.
    """
    if share >= PROCESS_BYTES:
        return
    enough = workers * (PROCESS_BYTES + need_bytes) // MIB + 1
    raise SetupError(
        f"executor.memory: {share // MIB} MiB for each of {workers} worker processes is less than the "
        f"{PROCESS_BYTES // MIB} MiB that one takes before its first run; give {enough}MiB, fewer "
        "executor.workers, or executor.kind: threads"
    )


class MemoryDeaths(logging.Handler):
    """Counts workers killed at their limit, and says so in words that help.

    Parameters
    ----------
    limit : int
        Bytes at which a worker is killed.
    say : callable
        Takes a line for the user.
    """

    def __init__(self, limit: int, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self.seen = 0
        self._limit, self._say = limit, say

    def emit(self, record: logging.LogRecord) -> None:
        """Take a nanny's word."""
        if "memory budget" not in record.getMessage():
            return
        self.seen += 1
        if self.seen <= TOLD:
            self._say(f"a worker process was killed at its limit of {self._limit // MIB} MiB of memory")

    def verdict(self) -> str:
        """Why going on is hopeless if nothing has been done yet; empty while it may not be."""
        if self.seen < HOPELESS:
            return ""
        return (
            f"{self.seen} worker processes were killed at their limit of {self._limit // MIB} MiB of memory "
            "and no run has ended; give more executor.memory or fewer executor.workers"
        )

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the nannies of this process, whatever the level of Dask's other loggers."""
        logger = logging.getLogger(NANNIES)
        before = logger.level, logger.propagate
        logger.setLevel(logging.WARNING)
        logger.propagate = False
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.setLevel(before[0])
            logger.propagate = before[1]
