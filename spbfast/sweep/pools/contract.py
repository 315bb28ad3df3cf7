"""What a sweep asks of an executor, and what it gets: the types that the driver and all pools share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from spbfast.sweep.points.plan import Batch

RunBatch = Callable[[Batch], dict[str, Any]]
BatchOutcome = tuple[Batch, dict[str, Any] | BaseException]


@dataclass(frozen=True)
class Request:
    """What a sweep asks of an executor.

    Attributes
    ----------
    options : Executor
        The `executor` section.
    directory : Path
        The results directory, where credentials and logs of jobs go.
    cells : int
        Runs to do.
    need_bytes : int
        Memory of the largest run.
    run : callable
        Batch -> receipt; importable by name where other processes call it.
    sweep : str
        Key of the stop flag.
    dashboard : bool
        Serve Dask's dashboard on the loopback address.
    say : callable
        Tells the user something.
    """

    options: Any
    directory: Path
    cells: int
    need_bytes: int
    run: RunBatch
    sweep: str
    dashboard: bool = False
    say: Callable[[str], None] = lambda text: None


class Pool(Protocol):
    """What the driver needs from an executor.

    Attributes
    ----------
    threads : int
        Runs at a time, as far as known now.
    window : int
        Batches that should be queued or running at a time.
    suspects : int
        How many of them may be runs that are suspected of killing their worker.
    """

    threads: int
    window: int
    suspects: int

    def submit(self, batch: Batch, need_bytes: int) -> None:
        """Queue a batch of which each run takes `need_bytes` of memory."""

    def wait(self, timeout_s: float) -> list[BatchOutcome]:
        """Batches that ended since the last call, waiting for at most `timeout_s` if there are none."""

    def stop(self) -> None:
        """Drop queued batches and end running ones early."""

    def check(self) -> None:
        """Raise SetupError when no batch will ever run."""

    def settle(self, timeout_s: float) -> None:
        """Let workers that are starting finish doing so; closed halfway, they write tracebacks."""
