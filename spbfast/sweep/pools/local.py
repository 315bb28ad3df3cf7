"""Dask clients for this machine, and for schedulers that somebody else has started.

Owns Dask's settings: nothing listens beyond the loopback address, sockets speak TLS, nothing is served over
HTTP unless a dashboard is asked for, nothing is spilled, retried or logged behind the driver's back. Batch
systems are in jobs.py.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import signal
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from spbfast.errors import ConfigError, SetupError
from spbfast.places import check_readable
from spbfast.sweep.pools.clock import install
from spbfast.sweep.pools.contract import Request
from spbfast.sweep.pools.deaths import NANNIES
from spbfast.sweep.pools.mainguard import GUARD, check_main_guard
from spbfast.sweep.pools.security import (
    INSECURE_WARNING,
    check_address,
    is_loopback,
    read_credentials,
    temporary_security,
)
from spbfast.sweep.pools.worker import fingerprint
from spbfast.sweep.store.atomic import hostname, read_json

LOOPBACK = "127.0.0.1"
CONNECT_S = 30.0
START_S = 300.0  # of a worker process
STARTS = 3
DASK_SETTINGS = {
    # The driver decides what happens to a batch whose worker died, so Dask itself tries nothing twice.
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.allowed-failures": 0,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.preload": ["spbfast.sweep.pools.clock"],
    # Nobody reads these; both grow with the tasks, and sampling stacks costs time.
    "distributed.admin.low-level-log-length": 100,
    "distributed.worker.profile.enabled": False,
    # A thousand workers start at once on a busy file system.
    "distributed.comm.timeouts.connect": "60s",
}
LOCAL_SETTINGS: dict[str, Any] = {
    # Here a worker that dies is noticed at once, and a wall clock that jumps must not look like silence.
    "distributed.scheduler.worker-ttl": None,
    # A worker that died is started again by its nanny, on a busy machine not within the 15 s after which Dask
    # would give up both, for good.
    "distributed.deploy.lost-worker-timeout": "365d",
}
# Dask's servers answer on HTTP whether or not there is a dashboard; without routes there is nothing to see.
NO_HTTP: dict[str, Any] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}

DASK_LOGGERS = ("distributed", "tornado", "asyncio")  # itself, and the event loop that it works in


@contextlib.contextmanager
def dask_settings(dashboard: bool, **more: Any) -> Iterator[None]:
    """Our settings for Dask, and silence: the driver says what goes wrong."""
    import dask
    import distributed  # noqa: F401  (its defaults have to be there before ours)

    install()
    with silence_dask(), dask.config.set(DASK_SETTINGS | ({} if dashboard else NO_HTTP) | more):
        yield


@contextlib.contextmanager
def silence_dask() -> Iterator[None]:
    """Let only critical messages of Dask through, also of its loggers with a level of their own.

    Its client has one, and so has the event loop below it, which writes the traceback of a callback that
    fails: such as that of a nanny whose worker died while the cluster closed. The nannies' words about memory
    have a hearer of their own.
    """
    below = tuple(f"{name}." for name in DASK_LOGGERS)
    loggers = {name: logging.getLogger(name) for name in DASK_LOGGERS}
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(below) and name != NANNIES and logging.getLogger(name).level:
            loggers[name] = logging.getLogger(name)
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        try:
            gc.collect()  # a task that failed and was never awaited is reported when it is collected
        finally:
            for name, logger in loggers.items():
                logger.setLevel(levels[name])


@contextlib.contextmanager
def local_client(threads: bool, workers: int, limit: int, room: int, request: Request) -> Iterator[Any]:
    """A client of threads in this process or of processes on this machine.

    Parameters
    ----------
    threads : bool
        Threads, else processes.
    workers : int
        How many.
    limit : int
        Bytes at which a worker process is killed.
    room : int
        Bytes that the runs of one worker may take together.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigError(
            "executor.kind: processes starts this script again in each worker; put the call of sweep() "
            f"under  {GUARD}  or use executor.kind: threads"
        )
    if not threads:
        check_main_guard()
    with dask_settings(request.dashboard, **LOCAL_SETTINGS):
        from distributed import Client, LocalCluster

        shape: dict[str, Any] = {"n_workers": 1, "threads_per_worker": workers, "protocol": "inproc://"}
        if not threads:
            # Other users of this machine reach the loopback address too, so it is TLS here as well.
            shape = {"n_workers": workers, "threads_per_worker": 1, "host": LOOPBACK, "protocol": "tls://"}
            shape |= {"security": temporary_security(), "memory_limit": limit, "death_timeout": START_S}
        with (
            tempfile.TemporaryDirectory(prefix="spbfast-") as scratch,
            _start(
                LocalCluster,
                **shape,
                processes=not threads,
                dashboard_address=f"{LOOPBACK}:0",
                worker_dashboard_address=f"{LOOPBACK}:0",
                local_directory=scratch,
                silence_logs=logging.CRITICAL,
                resources={"mem": room >> 20},
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            if request.dashboard:
                tell_dashboard(client, request)
            yield client


def tell_dashboard(client: Any, request: Request) -> None:
    """Say where the dashboard is, and how to reach it from elsewhere."""
    port = client.scheduler_info()["services"].get("dashboard")
    request.say(
        f"dashboard: http://{LOOPBACK}:{port}/status (from elsewhere: ssh -L {port}:{LOOPBACK}:{port} "
        f"{hostname()})"
    )


def _start(cluster: Callable[..., Any], **options: Any) -> Any:
    """Start a cluster whose processes do not hear Ctrl-C, which a terminal sends to all of them at once.

    Threads and processes inherit the mask. The resource tracker has to run before, because starting it
    clears the mask; a signal that arrives meanwhile is delivered afterwards.
    """
    resource_tracker.ensure_running()
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for _ in range(STARTS):
            try:
                return cluster(**options)
            except RuntimeError as error:
                # A worker that is killed before it has reported takes the whole cluster with it.
                reason = error
        raise SetupError(f"worker processes do not start: {reason}")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


@contextlib.contextmanager
def address_client(request: Request) -> Iterator[Any]:
    """A client of a scheduler that is already running.

    Raises
    ------
    ConfigError
        When it is beyond this machine and does not speak TLS.
    SetupError
        When it cannot be reached or its workers have another spbfast.
    """
    options = request.options
    security = read_credentials(Path(options.tls)) if options.tls else None
    address = options.address or _address_in(Path(options.scheduler_file))
    check_address(address, security, options.insecure)
    if options.insecure and not is_loopback(address) and not address.startswith("tls://"):
        request.say(INSECURE_WARNING)
    with dask_settings(request.dashboard):
        from distributed import Client

        try:
            client = Client(address, security=security, set_as_default=False, timeout=CONNECT_S)
        except (OSError, TimeoutError) as error:
            raise SetupError(f"no scheduler answers at {address}: {error}") from error
        with client:
            try:
                client.wait_for_workers(1, timeout=CONNECT_S)
            except TimeoutError:
                raise SetupError(f"the scheduler at {address} has no workers") from None
            same_version_everywhere(client)
            yield client


def _address_in(path: Path) -> str:
    """The address that a scheduler left in its file."""
    try:
        check_readable(path)
    except FileNotFoundError:
        raise SetupError(
            f"executor.scheduler_file: {path} does not exist; is the scheduler running?"
        ) from None
    except OSError as error:
        raise SetupError(f"executor.scheduler_file: {path}: {error.strerror}") from None
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("address"), str):
        raise ConfigError(f"executor.scheduler_file: {path} is not a Dask scheduler file")
    return str(found["address"])


def same_version_everywhere(client: Any) -> None:
    """Refuse workers whose spbfast is not ours: their results would not be comparable.

    Raises
    ------
    SetupError
        Naming the first worker that differs.
    """
    own = fingerprint()
    for address, theirs in client.run(fingerprint, on_error="return").items():
        if isinstance(theirs, BaseException):
            raise SetupError(f"the worker at {address} cannot load spbfast: {theirs}")
        if theirs != own:
            raise SetupError(f"the worker at {address} has spbfast {theirs}, this is {own}")
