"""Threads without Dask, for the tasks of job arrays.

Owns a pool of threads with a budget of memory. There is no scheduler, no socket and no other process, so an
array works where compute nodes cannot reach each other.
"""

from __future__ import annotations

import contextlib
import queue
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from spbfast.sweep.points.plan import Batch
from spbfast.sweep.pools import worker
from spbfast.sweep.pools.limits import choose_workers, memory_for_runs
from spbfast.sweep.pools.pool import Outcome, Request, Run, SerialPool


class PlainPool:
    """Runs batches in threads as far as memory allows.

    Parameters
    ----------
    threads : int
    budget : int
        Bytes that all runs may take together.
    """

    def __init__(self, threads: int, budget: int, run: Run, sweep: str) -> None:
        self.threads, self.window, self.suspects = threads, 2 * threads, 1
        self._budget, self._run, self._sweep = budget, run, sweep
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="spbfast")
        self._waiting: deque[tuple[Batch, int]] = deque()
        self._done: queue.SimpleQueue[tuple[Batch, int, Future[dict[str, Any]]]] = queue.SimpleQueue()
        self._used = self._flying = 0

    def submit(self, batch: Batch, need_bytes: int) -> None:
        """Queue a batch."""
        self._waiting.append((batch, min(need_bytes, self._budget)))
        self._dispatch()

    def _dispatch(self) -> None:
        while self._waiting and self._flying < self.threads:
            batch, need = self._waiting[0]
            if self._used + need > self._budget:
                return
            self._waiting.popleft()
            self._used += need
            self._flying += 1
            future = self._executor.submit(self._run, batch)
            future.add_done_callback(lambda f, b=batch, n=need: self._done.put((b, n, f)))  # type: ignore[misc]

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Collect receipts."""
        found: list[Outcome] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._take(self._done.get(timeout=timeout_s)))
            while True:
                found.append(self._take(self._done.get_nowait()))
        self._dispatch()
        return found

    def _take(self, item: tuple[Batch, int, Future[dict[str, Any]]]) -> Outcome:
        batch, need, future = item
        self._used -= need
        self._flying -= 1
        return batch, future.exception() or future.result()

    def stop(self) -> None:
        """Have queued batches dropped and running ones end early."""
        worker.request_stop(self._sweep)

    def settle(self, timeout_s: float) -> None:
        """Nothing starts."""

    def check(self) -> None:
        """Threads are always there."""

    def close(self) -> None:
        """Leave without waiting for runs that do not end."""
        self._executor.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def open_plain(request: Request, run: Run, sweep: str) -> Iterator[PlainPool | SerialPool]:
    """A pool without Dask: one thread for `serial`, else as many as CPUs and memory allow."""
    if request.options.kind == "serial":
        yield SerialPool(run, sweep)
        return
    budget = memory_for_runs(request.options.memory)
    count, remark = choose_workers(request.options.workers, request.need_bytes, request.cells, budget)
    if remark:
        request.say(remark)
    pool = PlainPool(count, budget, run, sweep)
    try:
        yield pool
    finally:
        pool.close()
