"""Where batches run: in this thread, in threads or in processes of this machine.

Owns the pools behind one small interface, and all use of Dask. Every pool binds to the loopback address
only, shows no dashboard, and ships nothing but batches and receipts. Knows nothing of results. A new kind of
executor is one more function in `open_pool`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import multiprocessing
import os
import queue
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Protocol

from spbfast.errors import ConfigError, SpbfastError
from spbfast.sweep import worker
from spbfast.sweep.plan import Batch

LOOPBACK = "127.0.0.1"
_DASK_SETTINGS = {
    # Only a task that was running when its worker died may be blamed for it; the driver decides what
    # happens next, so Dask itself tries nothing twice.
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.allowed-failures": 0,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}

Run = Callable[[Batch], dict[str, Any]]
Outcome = tuple[Batch, dict[str, Any] | BaseException]


class WorkerLostError(SpbfastError):
    """A worker process died under a batch: a crash, a kill, no memory left."""


class Pool(Protocol):
    """What the driver needs from an executor."""

    threads: int

    def submit(self, batch: Batch) -> None:
        """Queue a batch."""

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Batches that ended since the last call, waiting for at most `timeout_s` if there are none."""

    def stop(self) -> None:
        """Have queued batches dropped and running ones end early."""


class SerialPool:
    """Runs batches in the calling thread, one per call of `wait`: for debuggers and tests."""

    threads = 1

    def __init__(self, run: Run, sweep: str) -> None:
        self._run, self._sweep = run, sweep
        self._waiting: list[Batch] = []

    def submit(self, batch: Batch) -> None:
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


class DaskPool:
    """Runs batches on the workers of a distributed.Client."""

    def __init__(self, client: Any, threads: int, run: Run, sweep: str) -> None:
        self.threads = threads
        self._client, self._run, self._sweep = client, run, sweep
        self._done: queue.SimpleQueue[tuple[Batch, Any]] = queue.SimpleQueue()
        self._running: dict[int, Any] = {}

    def submit(self, batch: Batch) -> None:
        """Send a batch to a worker."""
        future = self._client.submit(self._run, batch, pure=False, key=f"batch-{batch.batch_id}")
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
        if future.status == "finished":
            receipt: dict[str, Any] = future.result()
            return receipt
        error = None if future.status == "cancelled" else future.exception()
        if error is None or type(error).__name__ == "KilledWorker":
            return WorkerLostError("the worker process died: a crash, a kill, or no memory left")
        known: BaseException = error
        return known

    def stop(self) -> None:
        """Set the stop flag in every worker process, not waiting for those that do not answer."""
        call = functools.partial(self._client.run, worker.request_stop, self._sweep, on_error="ignore")
        threading.Thread(target=call, name="spbfast-stop", daemon=True).start()


@contextlib.contextmanager
def open_pool(kind: str, workers: int, run: Run, sweep: str) -> Iterator[Pool]:
    """Start an executor and close it afterwards.

    Parameters
    ----------
    kind : {"serial", "threads", "processes"}
    workers : int
        Threads or processes.
    run : callable
        Batch -> receipt; importable by name for `processes`.
    sweep : str
        Key of the stop flag.

    Raises
    ------
    ConfigError
        For an unknown kind, or when `processes` is used from a script without a main guard.
    """
    if kind == "serial":
        yield SerialPool(run, sweep)
    elif kind in ("threads", "processes"):
        with _local_client(kind == "threads", workers) as client:
            yield DaskPool(client, workers, run, sweep)
    else:
        raise ConfigError(f"executor.kind: {kind!r} is unknown; choose serial, threads or processes")


@contextlib.contextmanager
def _local_client(threads: bool, workers: int) -> Iterator[Any]:
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigError(
            "executor.kind: processes starts this script again in each worker; put the call of sweep() "
            'under  if __name__ == "__main__":  or use executor.kind: threads'
        )
    import dask
    from distributed import Client, LocalCluster

    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    # distributed serves HTTP whether or not there is a dashboard, and on all interfaces unless told.
    address = f"{LOOPBACK}:0"
    shape: dict[str, Any] = {"n_workers": 1, "threads_per_worker": workers}
    if not threads:
        shape = {"n_workers": workers, "threads_per_worker": 1, "host": LOOPBACK}
    try:
        with (
            tempfile.TemporaryDirectory(prefix="spbfast-") as scratch,
            dask.config.set(_DASK_SETTINGS),
            _start(
                LocalCluster,
                **shape,
                processes=not threads,
                protocol="inproc://" if threads else "tcp://",
                dashboard_address=address,
                worker_dashboard_address=address,
                local_directory=scratch,
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client
    finally:
        logger.setLevel(level)


def _start(cluster: Callable[..., Any], **options: Any) -> Any:
    """Start a cluster whose processes do not hear Ctrl-C, which a terminal sends to all of them at once.

    Threads and processes inherit the mask. The resource tracker has to run before, because starting it
    clears the mask; a signal that arrives meanwhile is delivered afterwards.
    """
    resource_tracker.ensure_running()
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return cluster(**options)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def usable_cpus() -> int:
    """CPUs this process may use: affinity, the control group's quota and SLURM's grant."""
    count = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    with contextlib.suppress(KeyError, ValueError):
        count = min(count, max(1, int(os.environ["SLURM_CPUS_PER_TASK"])))
    return max(1, count)


def usable_memory() -> int:
    """Bytes that may still be allocated: what the system has available, within the control group."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024 * int(next(x for x in lines if x.startswith("MemAvailable")).split()[1])
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            free = min(free, int(limit) - int((group / "memory.current").read_text()))
    return max(0, free)


def choose_workers(wanted: Any, state_bytes: int, cells: int) -> tuple[int, str]:
    """How many runs go at a time, and a remark when memory allows fewer than there are CPUs."""
    cpus = usable_cpus() if wanted == "auto" else int(wanted)
    fitting = max(1, int(0.8 * usable_memory()) // max(1, state_bytes))
    count = max(1, min(cpus, cells))
    if wanted == "auto" and fitting < count:
        return fitting, f"memory for {fitting} runs of {state_bytes >> 20} MiB at a time ({cpus} CPUs)"
    return count, ""
