"""Pools without Dask: this thread, or threads of this process for the tasks of job arrays.

Owns a pool that runs in the caller's thread and one of threads with a budget of memory. There is no
scheduler, no socket and no other process, so an array works where compute nodes cannot reach each other.
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
from spbfast.sweep.pools.contract import BatchOutcome, Pool, Request
from spbfast.sweep.pools.limits import choose_workers, memory_for_runs


class SerialPool:
    """Runs batches in the calling thread, one per call of `wait`: for debuggers and tests."""

    threads = window = suspects = 1

    def __init__(self, request: Request) -> None:
        self._request = request
        self._waiting: deque[Batch] = deque()

    def submit(self, batch: Batch, need_bytes: int) -> None:
        """Queue a batch."""
        self._waiting.append(batch)

    def wait(self, timeout_s: float) -> list[BatchOutcome]:
        """Run the oldest batch."""
        if not self._waiting:
            return []
        batch = self._waiting.popleft()
        try:
            return [(batch, self._request.run(batch))]
        except Exception as error:
            return [(batch, error)]

    def stop(self) -> None:
        """Have the remaining batches return at once."""
        worker.request_stop(self._request.sweep)

    def check(self) -> None:
        """Nothing can be missing."""

    def settle(self, timeout_s: float) -> None:
        """Nothing starts."""


class ThreadsPool(SerialPool):
    """Runs batches in threads as far as memory allows.

    Parameters
    ----------
    request : Request
    threads : int
    budget : int
        Bytes that all runs may take together.
    """

    def __init__(self, request: Request, threads: int, budget: int) -> None:
        super().__init__(request)
        self.threads, self.window = threads, 2 * threads
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="spbfast")
        self._queue: deque[tuple[Batch, int]] = deque()
        self._done: queue.SimpleQueue[tuple[Batch, int, Future[dict[str, Any]]]] = queue.SimpleQueue()
        self._idle, self._free = threads, budget
        self._budget = budget

    def submit(self, batch: Batch, need_bytes: int) -> None:
        """Queue a batch."""
        self._queue.append((batch, min(need_bytes, self._budget)))
        self._dispatch()

    def _dispatch(self) -> None:
        while self._queue and self._idle and self._queue[0][1] <= self._free:
            batch, need = self._queue.popleft()
            self._idle -= 1
            self._free -= need
            future = self._executor.submit(self._request.run, batch)
            future.add_done_callback(lambda f, b=batch, n=need: self._done.put((b, n, f)))  # type: ignore[misc]

    def wait(self, timeout_s: float) -> list[BatchOutcome]:
        """Collect receipts."""
        found: list[BatchOutcome] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._take(*self._done.get(timeout=timeout_s)))
            while True:
                found.append(self._take(*self._done.get_nowait()))
        self._dispatch()
        return found

    def _take(self, batch: Batch, need: int, future: Future[dict[str, Any]]) -> BatchOutcome:
        self._idle += 1
        self._free += need
        return batch, future.exception() or future.result()

    def close(self) -> None:
        """Leave without waiting for runs that do not end."""
        self._executor.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def open_plain(request: Request) -> Iterator[Pool]:
    """A pool without Dask: one thread for `serial`, else as many as CPUs and memory allow."""
    if request.options.kind == "serial":
        yield SerialPool(request)
        return
    budget = memory_for_runs(request.options.memory)
    count, remark = choose_workers(request.options.workers, request.need_bytes, request.cells, budget)
    if remark:
        request.say(remark)
    with contextlib.closing(ThreadsPool(request, count, budget)) as pool:
        yield pool
