"""Dask workers as jobs of SLURM, PBS, LSF or SGE: the only module that knows dask-jobqueue.

Owns the job scripts: what the `executor` section asks for, TLS with credentials in the results directory,
nothing served over HTTP. Further directives, prologues and network interfaces come from the user's own
~/.config/dask/jobqueue.yaml and never from a configuration, which may be a stranger's.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spbfast.errors import ConfigError, SetupError
from spbfast.sweep.pools.contract import Request
from spbfast.sweep.pools.limits import MIB, worker_budget
from spbfast.sweep.pools.local import LOOPBACK, dask_settings, tell_dashboard
from spbfast.sweep.pools.security import INSECURE_WARNING, shared_credentials


@dataclass(frozen=True)
class BatchSystem:
    """What tells one batch system from another.

    Attributes
    ----------
    cluster : str
        Its class in dask_jobqueue.
    pays : str
        That class's keyword for the account.
    clock : str
        Format of a time limit.
    resources : str
        Format of the class's `resource_spec`, "" where the class makes a good one itself.
    """

    cluster: str
    pays: str = "account"
    clock: str = "{hours:02d}:{minutes:02d}:{seconds:02d}"
    resources: str = ""


_SYSTEMS = {
    "slurm": BatchSystem("SLURMCluster"),
    "pbs": BatchSystem("PBSCluster", resources="select=1:ncpus={cores}:mem={mib}mb"),
    "lsf": BatchSystem("LSFCluster", "project", "{hours:02d}:{minutes:02d}"),
    "sge": BatchSystem("SGECluster", "project", resources="h_vmem={core_mib}M"),
}
_SAFE_PATH = re.compile(r"[A-Za-z0-9/._@:,+=-]+")
DEATH_TIMEOUT_S = 60


@contextlib.contextmanager
def job_client(request: Request) -> Iterator[tuple[Any, Callable[[], str]]]:
    """A client whose workers are jobs, and a function that says why no worker can come ("" while one can).

    Raises
    ------
    SetupError
        When dask-jobqueue or the batch system's commands are missing.
    ConfigError
        When the results directory's name is not safe in a job script.
    """
    options, kind = request.options, request.options.kind
    cluster_class = _cluster_class(kind)
    command = cluster_class.job_cls.submit_command
    if shutil.which(command) is None:
        raise SetupError(f"executor.kind: {kind} needs the command {command}, which is not here")
    directory = _safe_directory(request)
    with contextlib.ExitStack() as stack:
        security = None
        if options.insecure:
            request.say(INSECURE_WARNING)
        else:
            security = stack.enter_context(shared_credentials(directory))
        stack.enter_context(dask_settings(request.dashboard))
        refusals: list[str] = []
        cluster = stack.enter_context(
            cluster_class(
                **job_options(options, directory, security, request.dashboard),
                job_cls=_recording(cluster_class.job_cls, refusals),
                silence_logs=logging.CRITICAL,
            )
        )
        from distributed import Client

        client = stack.enter_context(Client(cluster, set_as_default=False))
        if request.dashboard:
            tell_dashboard(client, request)
        low, high = options.job_limits
        # Adaptive with equal limits keeps the number: jobs that reach their time limit are replaced.
        cluster.adapt(minimum_jobs=low, maximum_jobs=high)
        request.say(f"asked {kind} for {high} jobs of {options.cores} CPUs; logs in {directory / 'logs'}")
        yield client, lambda: refusals[-1] if refusals else ""


def _safe_directory(request: Request) -> Path:
    directory = request.directory.resolve()
    if not _SAFE_PATH.fullmatch(str(directory)):
        raise ConfigError(
            f"executor.kind: {request.options.kind} needs a results directory of plain letters, digits and "
            f". _ - / only, because its name goes into job scripts; got {directory}"
        )
    return directory


def _cluster_class(kind: str) -> Any:
    try:
        return getattr(importlib.import_module("dask_jobqueue"), _SYSTEMS[kind].cluster)
    except ImportError as error:
        raise SetupError(
            f"executor.kind: {kind} needs dask-jobqueue; install it with: pip install 'spbfast[hpc]'"
        ) from error


def _recording(job_class: Any, refusals: list[str]) -> Any:
    """The job class, keeping the batch system's answer when it takes no job."""

    class Job(job_class):  # type: ignore[misc]
        async def _submit_job(self, script_filename: str) -> Any:
            try:
                answer = await super()._submit_job(script_filename)
            except Exception as error:
                refusals.append(_shortened(str(error)))
                raise
            refusals.clear()
            return answer

    Job.__name__ = job_class.__name__
    return Job


def _shortened(text: str) -> str:
    """The batch system's own words, without the script that dask-jobqueue repeats."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if "error" in line.lower()] or lines
    return "the batch system refuses the job: " + "; ".join(told[-3:])[:500]


def job_options(options: Any, directory: Path, security: Any, dashboard: bool = False) -> dict[str, Any]:
    """Keywords for dask-jobqueue's cluster classes."""
    import dask

    system = _SYSTEMS[options.kind]

    def own(key: str) -> Any:
        return dask.config.get(f"jobqueue.{options.kind}.{key}", None)

    found: dict[str, Any] = {
        "cores": options.cores,
        "processes": options.processes,
        "memory": f"{options.memory // MIB}MiB",
        "walltime": _clock(system, options.walltime // 1_000_000_000),
        "queue": options.queue,
        system.pays: options.account,
        "job_name": "spbfast",
        "log_directory": str(directory.resolve() / "logs"),
        "death_timeout": DEATH_TIMEOUT_S,
        "worker_extra_args": list(own("worker-extra-args") or []) + _worker_arguments(options),
        "job_script_prologue": list(own("job-script-prologue") or []) + _environment(),
        "scheduler_options": {
            **(own("scheduler-options") or {}),
            "dashboard": dashboard,
            "dashboard_address": f"{LOOPBACK}:0",
        },
        "protocol": "tls://" if security is not None else "tcp://",
        "security": security,
    }
    if system.resources and own("resource-spec") is None:
        mib = options.memory // MIB
        core_mib = options.memory // options.cores // MIB
        found["resource_spec"] = system.resources.format(cores=options.cores, mib=mib, core_mib=core_mib)
    return {k: v for k, v in found.items() if v is not None}


def _worker_arguments(options: Any) -> list[str]:
    lifetime = int(options.lifetime_s)
    return [
        *("--lifetime", f"{lifetime}s", "--lifetime-stagger", f"{lifetime // 12}s"),
        *("--resources", f"mem={worker_budget(options) // MIB}"),
        *("--preload", "spbfast.sweep.pools.clock"),
        *("--dashboard-address", f"{LOOPBACK}:0", "--no-dashboard"),
    ]


def _environment() -> list[str]:
    """Settings that workers in jobs need as this process has them."""
    names = ("SPBFAST_CACHE_DIR", "NUMBA_NUM_THREADS", "PYTHONPATH")
    lines = [f"export {n}={shlex.quote(os.environ[n])}" for n in names if os.environ.get(n)]
    # A terminal's DASK_ settings or a slow disk must not make workers spill, pause or serve pages.
    return [
        *lines,
        "export DASK_DISTRIBUTED__WORKER__MEMORY__SPILL=False",
        "export DASK_DISTRIBUTED__WORKER__MEMORY__TARGET=False",
        "export DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=False",
        "export DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='[]'",
    ]


def _clock(system: BatchSystem, seconds: int) -> str:
    return system.clock.format(hours=seconds // 3600, minutes=seconds // 60 % 60, seconds=seconds % 60)


def job_script(executor: Any, directory: Path) -> str:
    """The script of one of a sweep's jobs, with the place where its credentials would be.

    Raises
    ------
    ConfigError
        When the executor is no batch system.
    """
    from distributed.security import Security

    if executor.kind not in _SYSTEMS:
        raise ConfigError(
            f"--print-job-script: executor.kind {executor.kind} has no job script; "
            f"those have: {', '.join(_SYSTEMS)}"
        )
    cluster_class = _cluster_class(executor.kind)
    credentials = directory.resolve() / ".tls"
    security = None
    if not executor.insecure:
        paths = {"ca_file": "ca.pem", "worker_cert": "cert.pem", "worker_key": "key.pem"}
        security = Security(
            require_encryption=True, **{f"tls_{k}": str(credentials / v) for k, v in paths.items()}
        )
    options = job_options(executor, directory, security)
    del options["scheduler_options"]
    # dask-jobqueue makes the directory of logs as soon as it hears of it; printing must leave nothing.
    logs = options.pop("log_directory")
    with tempfile.TemporaryDirectory() as stand_in:
        address = f"{options['protocol']}<scheduler>:0"
        job = cluster_class.job_cls(address, name="worker", log_directory=stand_in, **options)
        return str(job.job_script()).replace(stand_in, logs)
