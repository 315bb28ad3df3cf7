"""Where batches run, behind one small interface: this thread, threads, processes, or machines of a cluster.

Owns the pools and the choice among them. Everything but `serial` is one distributed.Client, whose making is
in clusters.py (this machine, a running scheduler) and jobqueue.py (batch systems). Ships nothing but batches
and receipts, and knows nothing of results.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from spbfast.errors import SetupError
from spbfast.sweep.points.plan import Batch
from spbfast.sweep.pools import worker
from spbfast.sweep.pools.limits import choose_workers, memory_for_runs

MIB = 1 << 20
# What a worker process takes besides the states of its runs: Python, libraries, compiled kernels.
PROCESS_BYTES = 400 * MIB
ROLL_CALL_S = 5.0
FIRST_WORD_S, NEXT_WORD_S = 20.0, 600.0
NO_WORKER_S = 600.0  # how long all worker processes of this machine may be missing

Run = Callable[[Batch], dict[str, Any]]
Outcome = tuple[Batch, dict[str, Any] | BaseException]


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
    dashboard : bool
        Serve Dask's dashboard on the loopback address.
    say : callable
        Tells the user something.
    """

    options: Any
    directory: Path
    cells: int
    need_bytes: int
    dashboard: bool = False
    say: Callable[[str], None] = lambda text: None


class Pool(Protocol):
    """What the driver needs from an executor.

    Attributes
    ----------
    threads : int
        Runs at a time, as far as known now.
    window : int
        Batches that should be on their way at a time.
    suspects : int
        How many of them may be runs that are suspected of killing their worker.
    """

    threads: int
    window: int
    suspects: int

    def submit(self, batch: Batch, need_bytes: int) -> None:
        """Queue a batch of which each run takes `need_bytes` of memory."""

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Batches that ended since the last call, waiting for at most `timeout_s` if there are none."""

    def stop(self) -> None:
        """Have queued batches dropped and running ones end early."""

    def check(self) -> None:
        """Raise SetupError when no batch will ever run."""

    def settle(self, timeout_s: float) -> None:
        """Let workers that are just starting get there: closed halfway, they write tracebacks."""


class SerialPool:
    """Runs batches in the calling thread, one per call of `wait`: for debuggers and tests."""

    threads = window = suspects = 1

    def __init__(self, run: Run, sweep: str) -> None:
        self._run, self._sweep = run, sweep
        self._waiting: list[Batch] = []

    def submit(self, batch: Batch, need_bytes: int) -> None:
        """Queue a batch."""
        self._waiting.append(batch)

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Run the oldest batch."""
        del timeout_s
        if not self._waiting:
            return []
        batch = self._waiting.pop(0)
        try:
            return [(batch, self._run(batch))]
        except Exception as error:
            return [(batch, error)]

    def stop(self) -> None:
        """Have the remaining batches return at once."""
        worker.request_stop(self._sweep)

    def check(self) -> None:
        """Nothing can be missing."""

    def settle(self, timeout_s: float) -> None:
        """Nothing starts."""


class DaskPool:
    """Runs batches on the workers of a distributed.Client.

    Parameters
    ----------
    client : distributed.Client
    threads : int
        Most runs at a time.
    run : callable
        Batch -> receipt; importable by name on the workers.
    sweep : str
        Key of the stop flag.
    budget : int, optional
        Bytes that one worker may spend on runs, if its workers declare the resource "mem" (MiB).
    trouble : callable, optional
        Says why no worker can come, "" while all is well.
    local : bool
        The workers are threads or children of this process.
    separate : bool
        Every worker process does one run at a time.
    say : callable
        Tells the user something.
    """

    def __init__(
        self,
        client: Any,
        threads: int,
        run: Run,
        sweep: str,
        *,
        budget: int | None = None,
        trouble: Callable[[], str] = str,
        local: bool = True,
        separate: bool = False,
        say: Callable[[str], None] = print,
    ) -> None:
        self.threads, self.window = threads, 2 * threads
        # Where a process does one run at a time, its death says which one it was.
        self.suspects = self.window if separate else 1
        self._client, self._run, self._sweep = client, run, sweep
        self._budget, self._trouble = budget, trouble
        self._local, self._separate = local, separate
        self._done: queue.SimpleQueue[tuple[Batch, Any]] = queue.SimpleQueue()
        self._running: dict[int, Any] = {}
        self._say = say
        self._sent = 0
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
            self._run,
            worker.pack(batch),
            pure=False,
            key=f"batch-{batch.batch_id}-{self._sent}",
            resources=resources,
        )
        self._running[id(future)] = future
        future.add_done_callback(lambda f, b=batch: self._done.put((b, f)))

    def wait(self, timeout_s: float) -> list[Outcome]:
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
            return receipt
        except Exception as error:
            if type(error).__name__ in ("KilledWorker", "FutureCancelledError", "CancelledError"):
                return worker.WorkerLostError("the worker process died: a crash, a kill, or no memory left")
            return error

    def stop(self) -> None:
        """Set the stop flag in every worker process, not waiting for those that do not answer."""
        call = functools.partial(self._client.run, worker.request_stop, self._sweep, on_error="ignore")
        threading.Thread(target=_quietly, args=(call,), name="spbfast-stop", daemon=True).start()

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
            self._say("no worker yet; its job may be waiting in the queue")

    def _check_local(self, nr_workers: int) -> None:
        if nr_workers:
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = time.monotonic()
        elif time.monotonic() - self._missing_since > NO_WORKER_S:
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

        thread = threading.Thread(target=_quietly, args=(wait,), name="spbfast-settle", daemon=True)
        thread.start()
        thread.join(timeout_s)


def _quietly(call: Callable[[], Any]) -> None:
    with contextlib.suppress(Exception):
        call()


@contextlib.contextmanager
def open_pool(request: Request, run: Run, sweep: str) -> Iterator[Pool]:
    """Start an executor and close it afterwards.

    Parameters
    ----------
    request : Request
    run : callable
        Batch -> receipt; importable by name for everything but `serial` and `threads`.
    sweep : str
        Key of the stop flag.

    Raises
    ------
    ConfigError
        When the options cannot work, or `processes` is used from a script without a main guard.
    SetupError
        When something outside is missing: a package, a command, a scheduler.
    """
    kind = request.options.kind
    if kind == "serial":
        yield SerialPool(run, sweep)
    elif kind in ("threads", "processes"):
        with _local_pool(request, run, sweep) as pool:
            yield pool
    elif kind == "address":
        from spbfast.sweep.pools.local import address_client

        with address_client(request) as client:
            yield _pool_of(client, request, run, sweep)
    else:
        from spbfast.sweep.pools.jobs import job_client

        options = request.options
        jobs = options.adapt.max if options.adapt else options.jobs
        with job_client(request) as (client, trouble):
            yield DaskPool(
                client,
                jobs * options.cores,
                run,
                sweep,
                budget=worker_budget(options),
                trouble=trouble,
                local=False,
                separate=options.cores == options.processes,
                say=request.say,
            )


def _pool_of(client: Any, request: Request, run: Run, sweep: str) -> DaskPool:
    """A pool of workers that others have started; memory counts if all of them declare "mem" (MiB)."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    budgets = [int(w["resources"].get("mem", 0)) * MIB for w in workers]
    return DaskPool(
        client,
        max(1, sum(w["nthreads"] for w in workers)),
        run,
        sweep,
        budget=min(budgets) if budgets and min(budgets) > 0 else None,
        local=False,
        separate=all(w["nthreads"] == 1 for w in workers),
        say=request.say,
    )


def worker_budget(options: Any) -> int:
    """Bytes for runs in one worker process of a batch job."""
    return max(MIB, options.memory // options.processes - PROCESS_BYTES)


@contextlib.contextmanager
def _local_pool(request: Request, run: Run, sweep: str) -> Iterator[Pool]:
    from spbfast.sweep.pools.local import local_client

    options = request.options
    threads = options.kind == "threads"
    budget = memory_for_runs(options.memory)
    need = request.need_bytes + (0 if threads else PROCESS_BYTES)
    count, remark = choose_workers(options.workers, need, request.cells, budget)
    if remark:
        request.say(remark)
    share = budget if threads else budget // count
    room = share if threads else max(MIB, share - PROCESS_BYTES)
    if request.need_bytes > room:
        request.say(
            f"warning: the largest run needs {request.need_bytes // MIB} MiB, but there are only "
            f"{room // MIB} MiB for it; it may run out of memory"
        )
    with local_client(threads, count, share, room, request) as client:
        yield DaskPool(client, count, run, sweep, budget=room, separate=not threads)
