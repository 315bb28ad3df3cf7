"""How much of this machine, and for how long, a sweep may use.

Owns the reading of CPU affinity, control groups (versions 1 and 2), what batch systems grant, free memory,
the time a batch job has left, and the memory of a worker process. dask.system and distributed.system do not
serve: they miss quotas of parent groups, where batch systems set theirs, and grants, and give the memory that
a machine has instead of what is free. Starts nothing but `squeue`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_OF_SELF = Path("/proc/self/cgroup")
MEMORY_SHARE = 0.8
JOB_MARGIN_S = 120.0
MIB = 1 << 20
# What a worker process takes besides the states of its runs: Python, libraries, compiled kernels.
PROCESS_BYTES = 400 * MIB
# A batch system's variable for granted CPUs, and one that shows that its job is where we are.
_GRANTS = (
    ("SLURM_CPUS_PER_TASK", "SLURM_JOB_ID"),
    ("SLURM_CPUS_ON_NODE", "SLURM_JOB_ID"),
    ("NCPUS", "PBS_JOBID"),
    ("LSB_DJOB_NUMPROC", "LSB_JOBID"),
    ("NSLOTS", "SGE_TASK_ID"),
)


def _groups(controller: str) -> Iterator[Path]:
    """Directories of this process's control group and its parents, for one controller."""
    with contextlib.suppress(OSError):
        for line in CGROUP_OF_SELF.read_text().splitlines():
            number, names, inner = line.split(":", 2)
            if number == "0" and not names:
                roots = [CGROUP_ROOT, CGROUP_ROOT / "unified"]
            elif controller in names.split(","):
                roots = [CGROUP_ROOT / controller, CGROUP_ROOT / names]
            else:
                continue
            for root in roots:
                # In a container the group's own path may not be visible; its root then is the group.
                below = root / inner.lstrip("/")
                for group in (below, *below.parents):
                    if group == root or group.is_relative_to(root):
                        yield group


def _number(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def _quota(group: Path) -> float | None:
    """CPUs that a control group may use, None without a limit."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    limit, every = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
    return limit / every if limit and every and limit > 0 else None


def usable_cpus(environ: Mapping[str, str] | None = None) -> int:
    """CPUs this process may use: affinity, the control groups' quotas and the batch system's grant."""
    environ = os.environ if environ is None else environ
    limits: list[float] = [len(os.sched_getaffinity(0))]
    limits += [q for q in map(_quota, _groups("cpu")) if q is not None]
    for name, witness in _GRANTS:
        if witness in environ and environ.get(name, "").isdigit():
            limits.append(int(environ[name]))
            break
    return max(1, int(min(limits)))


def _room(group: Path) -> int | None:
    """Bytes left in a control group, counting file cache as free; None without a limit."""
    for limit_name, usage_name in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        limit, usage = _number(group / limit_name), _number(group / usage_name)
        if limit is None or usage is None or limit >= 1 << 60:
            continue
        cache = 0
        with contextlib.suppress(OSError, ValueError):
            facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            cache = int(facts.get("total_inactive_file", facts.get("inactive_file", 0)))
        return limit - usage + cache
    return None


def usable_memory(environ: Mapping[str, str] | None = None) -> int:
    """Bytes that may still be allocated: what the system has, within control groups and the job's grant."""
    environ = os.environ if environ is None else environ
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024 * int(next(x for x in lines if x.startswith("MemAvailable")).split()[1])
    limits = [free, *(r for r in map(_room, _groups("memory")) if r is not None)]
    if environ.get("SLURM_MEM_PER_NODE", "").isdigit() and int(environ["SLURM_MEM_PER_NODE"]) > 0:
        limits.append(int(environ["SLURM_MEM_PER_NODE"]) * MIB)
    elif environ.get("SLURM_MEM_PER_CPU", "").isdigit():
        limits.append(int(environ["SLURM_MEM_PER_CPU"]) * MIB * usable_cpus(environ))
    return max(0, min(limits))


def memory_for_runs(given: int | None) -> int:
    """Bytes that all runs on this machine may take together: what was given, or 80 % of what is free."""
    return given if given is not None else int(MEMORY_SHARE * usable_memory())


def worker_budget(executor: Any) -> int:
    """Bytes for runs in one worker process of a batch job."""
    return max(MIB, int(executor.memory) // int(executor.processes) - PROCESS_BYTES)


def choose_workers(wanted: Any, need_bytes: int, cells: int, budget: int) -> tuple[int, str]:
    """How many runs go at a time, and a remark when memory allows fewer than there are CPUs.

    Parameters
    ----------
    wanted : "auto" or int
    need_bytes : int
        Memory of the largest run, and of its process where it has one of its own.
    cells : int
        Runs to do.
    budget : int
        Bytes for all of them together.
    """
    cpus = usable_cpus() if wanted == "auto" else int(wanted)
    fitting = max(1, budget // max(1, need_bytes))
    count = max(1, min(cpus, cells))
    if wanted == "auto" and fitting < count:
        return fitting, f"memory for {fitting} runs of {need_bytes // MIB} MiB at a time ({cpus} CPUs)"
    return count, ""


def local_workers(executor: Any, need_bytes: int, cells: int) -> tuple[int, str, int]:
    """Threads or processes on this machine, a remark, and the bytes that all of them may take together."""
    budget = memory_for_runs(executor.memory)
    need = need_bytes + (PROCESS_BYTES if executor.kind == "processes" else 0)
    return *choose_workers(executor.workers, need, cells, budget), budget


def parse_slurm_time(text: str) -> float | None:
    """Seconds from SLURM's [days-]hours:minutes:seconds, None for UNLIMITED and the like."""
    days, _, clock = text.strip().rpartition("-")
    parts = [days or "0", *clock.split(":")]
    if not all(p.isdecimal() for p in parts):
        return None
    seconds = functools.reduce(lambda total, part: 60 * total + int(part), parts[1:], 0)
    return float(seconds + 86400 * int(parts[0]))


def _ask_squeue(job_id: str) -> float | None:
    command = ["squeue", "-h", "-j", job_id, "-o", "%L"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return parse_slurm_time(done.stdout)
    return None


def job_time_left(environ: Mapping[str, str] | None = None) -> float | None:
    """Seconds until the batch job around this process ends, None outside of one or without a limit."""
    environ = os.environ if environ is None else environ
    job = environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    with contextlib.suppress(KeyError, ValueError):
        return float(environ["SLURM_JOB_END_TIME"]) - time.time()
    return _ask_squeue(job)


def seconds_to_use(time_limit_s: float | None) -> tuple[float | None, str]:
    """How long a sweep may run from now, and where that comes from ("" without a limit).

    The time limit given is taken as it is; of a batch job's time, two minutes (a quarter of a very short
    job) are kept for writing down what is done.
    """
    limits = [] if time_limit_s is None else [(time_limit_s, "time limit")]
    left = job_time_left()
    if left is not None:
        limits.append((max(0.0, left - min(JOB_MARGIN_S, left / 4)), "time limit of the batch job"))
    return min(limits) if limits else (None, "")
