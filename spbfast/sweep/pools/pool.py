"""Batches on the workers of a Dask client, and the choice of the pool that an executor section asks for.

Owns the traffic with the workers: batches out, receipts back, and the roll call that notices when none is
left. The clients are made in local.py (this machine, a running scheduler) and jobs.py (batch systems); pools
without Dask are in plain.py. Knows nothing of results.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from spbfast.errors import SetupError
from spbfast.sweep.points.plan import Batch
from spbfast.sweep.pools import worker
from spbfast.sweep.pools.contract import BatchOutcome, Pool, Request
from spbfast.sweep.pools.deaths import MemoryDeaths, check_worker_memory
from spbfast.sweep.pools.jobs import job_client
from spbfast.sweep.pools.limits import MIB, PROCESS_BYTES, local_workers, worker_budget
from spbfast.sweep.pools.local import address_client, local_client
from spbfast.sweep.pools.plain import SerialPool

ROLL_CALL_S = 5.0
FIRST_WORD_S, NEXT_WORD_S = 20.0, 600.0
NO_WORKER_S = 600.0  # how long all worker processes of this machine may be missing


class DaskPool:
    """Runs batches on the workers of a distributed.Client.

    Parameters
    ----------
    client : distributed.Client
    threads : int
        Most runs at a time.
    request : Request
    budget : int, optional
        Bytes that one worker may spend on runs, if its workers declare the resource "mem" (MiB).
    trouble : callable, optional
        Says why no worker can come, or none can live, "" while all is well.
    local : bool
        The workers are threads or children of this process.
    separate : bool
        Every worker process does one run at a time.
    """

    def __init__(
        self,
        client: Any,
        threads: int,
        request: Request,
        *,
        budget: int | None = None,
        trouble: Callable[[], str] = str,
        local: bool = True,
        separate: bool = False,
    ) -> None:
        self.threads, self.window = threads, 2 * threads
        # Where a process does one run at a time, its death says which one it was.
        self.suspects = self.window if separate else 1
        self._client, self._request = client, request
        self._budget, self._trouble = budget, trouble
        self._local, self._separate = local, separate
        self._done: queue.SimpleQueue[tuple[Batch, Any]] = queue.SimpleQueue()
        self._running: dict[int, Any] = {}
        self._sent = self._nr_receipts = 0
        self._last_call = 0.0
        self._missing_since: float | None = None
        self._next_word = time.monotonic() + FIRST_WORD_S

    def submit(self, batch: Batch, need_bytes: int) -> None:
        """Send a batch to a worker that has the memory for it."""
        self._sent += 1
        resources = None
        if self._budget is not None:
            # A run larger than any worker goes to one that does nothing else.
            resources = {"mem": min(-(-need_bytes // MIB), self._budget // MIB)}
        # Dask's scheduler keeps what it has read for a while; packed, that is a hundredth of the memory.
        future = self._client.submit(
            worker.run_packed,
            self._request.run,
            worker.pack(batch),
            pure=False,
            key=f"batch-{batch.batch_id}-{self._sent}",
            resources=resources,
        )
        self._running[id(future)] = future
        future.add_done_callback(lambda f, b=batch: self._done.put((b, f)))

    def wait(self, timeout_s: float) -> list[BatchOutcome]:
        """Collect receipts."""
        found: list[tuple[Batch, Any]] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._done.get(timeout=timeout_s))
            while True:
                found.append(self._done.get_nowait())
        return [(batch, self._result(future)) for batch, future in found]

    def _result(self, future: Any) -> dict[str, Any] | BaseException:
        self._running.pop(id(future), None)
        try:
            # A worker can die between writing its shard and handing over the receipt.
            receipt: dict[str, Any] = future.result()
            self._nr_receipts += 1
            return receipt
        except Exception as error:
            if type(error).__name__ in ("KilledWorker", "FutureCancelledError", "CancelledError"):
                return worker.WorkerLostError("the worker process died: a crash, a kill, or no memory left")
            return error

    def stop(self) -> None:
        """Set the stop flag in every worker process, not waiting for those that do not answer."""
        sweep = self._request.sweep
        call = functools.partial(self._client.run, worker.request_stop, sweep, on_error="ignore")
        _in_background("spbfast-stop", call)

    def check(self) -> None:
        """Count the workers that are other processes now and then; complain when none can come."""
        if time.monotonic() - self._last_call < ROLL_CALL_S or (self._local and not self._separate):
            return
        self._last_call = time.monotonic()
        if self._client.status not in ("running", "connecting"):
            raise SetupError("the scheduler cannot be reached any more; what is done is saved")
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        if self._local:
            self._check_local(len(workers))
            return
        self.threads = sum(w["nthreads"] for w in workers.values())
        if not workers and (trouble := self._trouble()):
            raise SetupError(trouble)
        if not workers and time.monotonic() >= self._next_word:
            self._next_word = time.monotonic() + NEXT_WORD_S
            self._request.say("no worker yet; its job may be waiting in the queue")

    def _check_local(self, nr_workers: int) -> None:
        if not self._nr_receipts and (trouble := self._trouble()):
            raise SetupError(trouble)
        if nr_workers:
            self._missing_since = None
            return
        self._missing_since = self._missing_since or time.monotonic()
        if time.monotonic() - self._missing_since > NO_WORKER_S:
            raise SetupError(
                f"all worker processes have been gone for {NO_WORKER_S / 60:.0f} minutes; what is done is "
                "saved. Is there memory for another process? executor.kind: threads needs none"
            )

    def settle(self, timeout_s: float) -> None:
        """Wait until as many worker processes as there were have started, for at most `timeout_s`."""
        if not (self._local and self._separate):
            return

        def wait() -> None:
            self._client.wait_for_workers(self.threads, timeout=timeout_s)
            self._client.run(os.getpid, on_error="ignore")  # a worker answers once it has started

        _in_background("spbfast-settle", wait).join(timeout_s)


def _in_background(name: str, call: Callable[[], Any]) -> threading.Thread:
    def work() -> None:
        with contextlib.suppress(Exception):
            call()

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


@contextlib.contextmanager
def open_pool(request: Request) -> Iterator[Pool]:
    """Start an executor and close it afterwards.

    Raises
    ------
    ConfigError
        When the options cannot work, or `processes` is used from a script without a main guard.
    SetupError
        When something outside is missing: a package, a command, a scheduler.
    """
    kind = request.options.kind
    if kind == "serial":
        yield SerialPool(request)
    elif kind in ("threads", "processes"):
        with _local_pool(request) as pool:
            yield pool
    elif kind == "address":
        with address_client(request) as client:
            yield _pool_of_running_workers(client, request)
    else:
        with job_client(request) as (client, trouble):
            yield _pool_of_jobs(client, request, trouble)


def _pool_of_jobs(client: Any, request: Request, trouble: Callable[[], str]) -> DaskPool:
    options = request.options
    return DaskPool(
        client,
        options.job_limits[1] * options.cores,
        request,
        budget=worker_budget(options),
        trouble=trouble,
        local=False,
        separate=options.cores == options.processes,
    )


def _pool_of_running_workers(client: Any, request: Request) -> DaskPool:
    """A pool of workers that others have started; memory counts if all of them declare "mem" (MiB)."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    budgets = [int(w["resources"].get("mem", 0)) * MIB for w in workers]
    return DaskPool(
        client,
        max(1, sum(w["nthreads"] for w in workers)),
        request,
        budget=min(budgets) if budgets and min(budgets) > 0 else None,
        local=False,
        separate=all(w["nthreads"] == 1 for w in workers),
    )


@contextlib.contextmanager
def _local_pool(request: Request) -> Iterator[Pool]:
    threads = request.options.kind == "threads"
    count, remark, budget = local_workers(request.options, request.need_bytes, request.cells)
    if remark:
        request.say(remark)
    share = budget if threads else budget // count
    room = share if threads else max(MIB, share - PROCESS_BYTES)
    if request.need_bytes > room:
        request.say(
            f"warning: the largest run needs {request.need_bytes // MIB} MiB, but there are only "
            f"{room // MIB} MiB for it; it may run out of memory"
        )
    if not threads:
        check_worker_memory(share, request.need_bytes, count)
    deaths = MemoryDeaths(share, request.say)
    with deaths.listening(), local_client(threads, count, share, room, request) as client:
        yield DaskPool(client, count, request, budget=room, trouble=deaths.verdict, separate=not threads)
