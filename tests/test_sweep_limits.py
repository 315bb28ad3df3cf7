"""What a sweep may use: CPUs, memory and time, as affinity, control groups and batch systems grant them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from spbfast.sweep.pools import limits

pytestmark = pytest.mark.shell


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up tree of control groups, with nothing in it yet."""
    root = tmp_path / "cgroup"
    root.mkdir()
    monkeypatch.setattr(limits, "CGROUP_ROOT", root)
    monkeypatch.setattr(limits, "CGROUP_OF_SELF", tmp_path / "self")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    (tmp_path / "self").write_text("")
    return root


def put(group: Path, **files: str) -> None:
    group.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (group / name.replace("_", ".", 1)).write_text(text)


def test_the_tightest_cpu_quota_of_all_parents_counts(groups: Path) -> None:
    assert limits.usable_cpus({}) == 16
    (groups.parent / "self").write_text("0::/slurm/job_7\n")
    put(groups / "slurm", cpu_max="300000 100000\n")
    put(groups / "slurm" / "job_7", cpu_max="max 100000\n")
    assert limits.usable_cpus({}) == 3
    put(groups / "slurm" / "job_7", cpu_max="50000 100000\n")
    assert limits.usable_cpus({}) == 1


def test_version_1_groups_and_groups_seen_from_a_container(groups: Path) -> None:
    (groups.parent / "self").write_text("4:cpu,cpuacct:/docker/abc\n0::/\n")
    put(groups / "cpu")
    (groups / "cpu" / "cpu.cfs_quota_us").write_text("400000\n")
    (groups / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert limits.usable_cpus({}) == 4
    (groups / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert limits.usable_cpus({}) == 16


@pytest.mark.parametrize(
    ("environ", "cpus"),
    [
        ({"SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "2", "SLURM_CPUS_ON_NODE": "8"}, 2),
        ({"SLURM_JOB_ID": "1", "SLURM_CPUS_ON_NODE": "8"}, 8),
        ({"SLURM_CPUS_PER_TASK": "2"}, 16),
        ({"PBS_JOBID": "1", "NCPUS": "5"}, 5),
        ({"NCPUS": "5"}, 16),
        ({"SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "64"}, 16),
    ],
    ids=str,
)
def test_the_grant_of_a_batch_system_counts(groups: Path, environ: dict[str, str], cpus: int) -> None:
    assert limits.usable_cpus(environ) == cpus


def test_memory_within_groups_and_jobs(groups: Path) -> None:
    (groups.parent / "self").write_text("0::/a\n")
    put(groups / "a", memory_max=str(1 << 30), memory_current=str(600 << 20))
    put(groups / "a", memory_stat=f"anon 1\ninactive_file {100 << 20}\n")
    assert limits.usable_memory({}) == (1 << 30) - (500 << 20)
    assert limits.usable_memory({"SLURM_MEM_PER_NODE": "64"}) == 64 << 20
    assert limits.usable_memory({"SLURM_MEM_PER_CPU": "2"}) == 32 << 20
    assert limits.memory_for_runs(123) == 123
    assert limits.memory_for_runs(None) == int(0.8 * ((1 << 30) - (500 << 20)))


def test_workers_follow_cpus_memory_and_work(groups: Path) -> None:
    assert limits.choose_workers("auto", 1 << 20, 1000, 1 << 30) == (16, "")
    assert limits.choose_workers("auto", 1 << 20, 1, 1 << 30)[0] == 1
    assert limits.choose_workers(3, 1 << 20, 1000, 1 << 30) == (3, "")
    assert limits.choose_workers("auto", 400 << 20, 1000, 1 << 30) == (
        2,
        "memory for 2 runs of 400 MiB at a time (16 CPUs)",
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1-02:03:04", 93784),
        ("59:30", 3570),
        ("2:00:00", 7200),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_times_of_slurm(text: str, seconds: float | None) -> None:
    assert limits.parse_slurm_time(text) == seconds


def test_a_job_keeps_time_for_writing_down(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_JOB_END_TIME"):
        monkeypatch.delenv(name, raising=False)
    assert limits.seconds_to_use(None) == (None, "")
    assert limits.seconds_to_use(5.0) == (5.0, "time limit")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 1000))
    seconds, origin = limits.seconds_to_use(None)
    assert (seconds, origin) == (pytest.approx(880, abs=2), "time limit of the batch job")
    assert limits.seconds_to_use(5.0) == (5.0, "time limit")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 40))
    assert limits.seconds_to_use(None)[0] == pytest.approx(30, abs=2)


def test_squeue_is_asked_where_the_job_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "squeue"
    fake.write_text("#!/bin/sh\necho 10:00\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    assert limits.job_time_left({"SLURM_JOB_ID": "7"}) == 600
    fake.write_text("#!/bin/sh\nexit 1\n")
    assert limits.job_time_left({"SLURM_JOB_ID": "7"}) is None
    assert limits.job_time_left({}) is None
