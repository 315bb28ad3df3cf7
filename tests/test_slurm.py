"""Sweeps on a real SLURM of one node: jobs as workers, arrays, an allocation, requeueing; nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spbfast.sweep import consolidate, results_digest, run_sweep
from tests.fake_spbfast import write_command
from tests.require import need
from tests.slurm_tools import jobs, missing_programs, slurm, start_again, submit, wait_for_jobs, wait_until
from tests.sweep_tools import ENGINE, ROOT, driver_command, make_job, write_job

pytestmark = [pytest.mark.slow, pytest.mark.shell]
SCRIPTS = ROOT / "scripts"
SMALL = ("--ntasks=1", "--cpus-per-task=1", "--mem=900M")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    missing = missing_programs()
    need("slurm", not missing, f"no SLURM here (Debian packages slurm-wlm, munge): {', '.join(missing)}")
    need("slurm", os.getuid() == 0, "a private SLURM needs root to start jobs")
    with slurm(tmp_path_factory.mktemp("slurm")) as environ:
        yield {**environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the uninterrupted serial sweep."""
    directory = tmp_path_factory.mktemp("reference")
    run_sweep(make_job(directory), directory / "out", engine=ENGINE, quiet=True)
    return results_digest(directory / "out")


def shards(out: Path) -> int:
    return len(list(out.glob("shards/??/*.nc")))


def environ_of(cluster: dict[str, str], tmp_path: Path, sleep: float) -> dict[str, str]:
    command = write_command(tmp_path / "spbfast")
    return {
        **cluster,
        "SPBFAST": str(command),
        "SPBFAST_PYTHON": sys.executable,
        "SPBFAST_FAKE_SLEEP": str(sleep),
    }


JOBS = "executor={kind: slurm, jobs: 2, cores: 1, memory: 900MiB, walltime: 10min}"


def test_two_jobs_with_tls_one_of_them_cancelled(
    cluster: dict[str, str], tmp_path: Path, reference: str
) -> None:
    config, out = write_job(tmp_path), tmp_path / "out"
    command = driver_command(config, out, JOBS, "executor.batch=1")
    environ = {**cluster, "SPBFAST_FAKE_SLEEP": "1.0"}
    driver = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, cwd=tmp_path)
    try:
        wait_until(lambda: shards(out) >= 2, 60, "shards")
        assert len(jobs(cluster)) == 2
        (private,) = out.glob(".tls-*")
        assert private.stat().st_mode & 0o777 == 0o700
        assert {p.stat().st_mode & 0o777 for p in private.iterdir()} == {0o600}
        address = _scheduler_address(driver.pid)
        _assert_strangers_are_refused(address, private)
        victim = jobs(cluster)[0].split()[0]
        subprocess.run(["scancel", victim], env=cluster, check=True)
        _, err = driver.communicate(timeout=90)
    finally:
        driver.kill()
    assert driver.returncode == 0, err.decode()
    assert results_digest(out) == reference
    assert not list(out.glob(".tls-*"))
    wait_until(lambda: not jobs(cluster), 20, "end of the workers")
    hosts = {json.loads(line)["pid"] for line in (out / "journal.jsonl").read_text().splitlines()}
    assert driver.pid not in hosts


def _scheduler_address(pid: int) -> str:
    """Where the driver listens beyond loopback; there is one such socket, and it is the scheduler's."""
    found = subprocess.run(["ss", "-ltnpH4"], capture_output=True, text=True, check=True).stdout
    ports = {
        line.split()[3].rpartition(":")[2]
        for line in found.splitlines()
        if f"pid={pid}," in line and not line.split()[3].startswith("127.")
    }
    assert len(ports) == 1
    return f"127.0.0.1:{ports.pop()}"


def _assert_strangers_are_refused(address: str, private: Path) -> None:
    from distributed import Client

    from spbfast.sweep.pools.security import read_credentials, temporary_security

    for protocol, security in (("tcp", None), ("tls", temporary_security())):
        with pytest.raises((OSError, TimeoutError)):
            Client(f"{protocol}://{address}", security=security, timeout=3, set_as_default=False)
    with Client(f"tls://{address}", security=read_credentials(private), set_as_default=False) as client:
        assert client.scheduler_info()["workers"]


def test_a_job_that_slurm_refuses_is_an_error_with_its_words(cluster: dict[str, str], tmp_path: Path) -> None:
    config, out = write_job(tmp_path), tmp_path / "out"
    command = driver_command(config, out, JOBS.replace("}", ", queue: nosuch}"))
    done = subprocess.run(command, env=cluster, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert "the batch system refuses the job" in done.stderr
    assert "invalid partition specified: nosuch" in done.stderr
    assert "SetupError" in done.stderr
    assert not list(out.glob(".tls-*"))


def test_the_script_is_signalled_requeued_and_finishes(
    cluster: dict[str, str], tmp_path: Path, reference: str
) -> None:
    config, out = write_job(tmp_path), tmp_path / "out"
    environ = environ_of(cluster, tmp_path, 1.0)
    options = ["--set", "executor={kind: threads, workers: 1, batch: 1}", "--no-report"]
    script = str(SCRIPTS / "sweep_single_node.sbatch")
    log = tmp_path / "job.log"
    job = submit(environ, *SMALL, "-o", str(log), script, str(config), str(out), *options, cwd=tmp_path)
    wait_until(lambda: shards(out) >= 2, 60, "shards")
    # What SLURM does itself 180 s before the time limit: a signal to the batch shell alone.
    subprocess.run(["scancel", "--batch", "--signal=USR1", job], env=environ, check=True)
    wait_until(lambda: log.exists() and "requeueing job" in log.read_text(), 30, "requeueing")
    done = shards(out)
    assert 2 <= done < 15
    assert not (out / "lock").exists()
    assert "stopped by SIGUSR1" in log.read_text()
    start_again(environ, job)
    wait_for_jobs(environ, [job], 90)
    text = log.read_text()
    assert f"{done} of them done before" in text
    assert text.count("requeueing job") == 1
    assert results_digest(out) == reference


@pytest.mark.heavy
def test_slurm_itself_sends_the_signal(cluster: dict[str, str], tmp_path: Path, reference: str) -> None:
    config, out = write_job(tmp_path), tmp_path / "out"
    environ = environ_of(cluster, tmp_path, 4.0)
    options = ["--set", "executor={kind: threads, workers: 1, batch: 1}", "--no-report"]
    script, log = str(SCRIPTS / "sweep_single_node.sbatch"), tmp_path / "job.log"
    # SLURM looks at limits every 30 s and may be 30 s early: the signal comes 15 to 45 s after the start.
    limits = ("--time=1", "--signal=B:USR1@15", "-o", str(log))
    job = submit(environ, *SMALL, *limits, script, str(config), str(out), *options, cwd=tmp_path)
    wait_until(lambda: log.exists() and "requeueing job" in log.read_text(), 150, "requeueing")
    subprocess.run(["scontrol", "update", f"JobId={job}", "TimeLimit=10"], env=environ, check=True)
    start_again(environ, job)
    wait_for_jobs(environ, [job], 200)
    assert "stopped by SIGUSR1" in log.read_text()
    assert results_digest(out) == reference


@pytest.mark.parametrize("script", ["single_node", "array", "allocation"])
def test_a_script_listens_before_it_starts_anything(script: str) -> None:
    lines = (SCRIPTS / f"sweep_{script}.sbatch").read_text().splitlines()
    (heard,) = (i for i, line in enumerate(lines) if line.startswith("    trap "))
    (started,) = (i for i, line in enumerate(lines) if line.startswith("pid=$!"))
    assert heard < started
    assert not any(line.endswith(" &") for line in lines[:heard])


def test_an_array_does_disjoint_parts(cluster: dict[str, str], tmp_path: Path, reference: str) -> None:
    config, out = write_job(tmp_path), tmp_path / "out"
    environ = environ_of(cluster, tmp_path, 0.2)
    options = ["--set", "executor={kind: threads, workers: 1}"]
    script = str(SCRIPTS / "sweep_array.sbatch")
    arguments = (*SMALL, "--array=1-3", "-o", str(tmp_path / "part-%a.log"))
    job = submit(environ, *arguments, script, str(config), str(out), *options, cwd=tmp_path)
    wait_for_jobs(environ, [job], 60)
    logs = "".join(p.read_text() for p in sorted(tmp_path.glob("part-*.log")))
    assert logs.count("5 of 5 runs ok") == 3, logs
    assert sorted(p.name for p in out.glob("journal*")) == [f"journal.{i}-of-3.jsonl" for i in range(3)]
    assert not (out / "results.nc").exists()
    consolidate(out)
    assert results_digest(out) == reference


def test_an_allocation_with_a_scheduler_of_its_own(
    cluster: dict[str, str], tmp_path: Path, reference: str
) -> None:
    config, out = write_job(tmp_path), tmp_path / "out"
    environ = environ_of(cluster, tmp_path, 0.4)
    log = tmp_path / "job.log"
    arguments = ("--nodes=1", "--ntasks=2", "--ntasks-per-node=2", "--cpus-per-task=1", "--mem=1800M")
    script = str(SCRIPTS / "sweep_allocation.sbatch")
    options = ("--no-report", "--set", "executor.batch=1")
    job = submit(environ, *arguments, "-o", str(log), script, str(config), str(out), *options, cwd=tmp_path)
    wait_for_jobs(environ, [job], 90)
    text = log.read_text()
    assert "15 of 15 runs ok" in text, text
    receipts = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    assert len({receipt["pid"] for receipt in receipts}) == 2
    assert results_digest(out) == reference
    assert not (tmp_path / f".spbfast-{job}").exists()


@pytest.mark.parametrize(
    "path", sorted(SCRIPTS.glob("*.sbatch")) + sorted(SCRIPTS.glob("*.pbs")), ids=lambda p: p.name
)
def test_scripts_are_valid_bash(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    done = subprocess.run(["bash", str(path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_the_shell_passes_on_every_signal(tmp_path: Path) -> None:
    """Without SLURM: the script as bash runs it, and `scontrol` written down."""
    config, out = write_job(tmp_path), tmp_path / "out"
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/scontrol.log\n')
    (fake / "scontrol").chmod(0o755)
    environ: dict[str, Any] = environ_of(dict(os.environ), tmp_path, 1.0)
    environ |= {
        "PATH": f"{fake}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_END_TIME": "9999999999",
    }
    script = str(SCRIPTS / "sweep_single_node.sbatch")
    for number, code in ((signal.SIGUSR1, 75), (signal.SIGTERM, 143)):
        command = ["bash", script, str(config), str(out), "--set", "executor.batch=1", "--no-report"]
        shell = subprocess.Popen(command, env=environ, cwd=tmp_path, stderr=subprocess.PIPE)
        before = shards(out)
        wait_until(lambda n=before: shards(out) > n, 30, "shard")
        shell.send_signal(number)
        begin = time.monotonic()
        _, err = shell.communicate(timeout=20)
        assert shell.returncode == code, err.decode()
        assert time.monotonic() - begin < 10
    assert (tmp_path / "scontrol.log").read_text() == "requeue 77\n"
