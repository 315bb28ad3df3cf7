"""Rounds in which drivers and workers are killed at random times, and what must be true afterwards.

`python -m tests.kill_tools [ROUNDS [SEED [VICTIM ..]]]` runs many rounds of every mode, or of those with
these victims, and prints a table. Do not edit the package meanwhile: workers refuse other sources.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from spbfast.sweep import results_digest
from tests.sweep_tools import GRID, ROOT, driver_command, write_job

VICTIMS = ("driver", "worker", "both")
MODES = [("threads", "driver")] + [("processes", victim) for victim in VICTIMS]
SLEEP_S = {"driver": 0.05, "worker": 0.2, "both": 0.1}
MOST_STARTS = 12


@dataclass
class Round:
    """What happened in one round."""

    digest: str
    kills: int
    starts: int


def _stat(process: Path) -> list[str]:
    """Fields of a process's stat from the state on; empty if it is gone."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def worker_of(driver: int, rng: random.Random) -> int | None:
    """One process that runs batches: one that Python's multiprocessing spawned in the driver's session."""
    workers = []
    for process in Path("/proc").glob("[0-9]*"):
        fields = _stat(process)
        if len(fields) > 3 and int(fields[3]) == driver and fields[0] != "Z":
            with contextlib.suppress(OSError):
                if b"spawn_main" in (process / "cmdline").read_bytes():
                    workers.append(int(process.name))
    return rng.choice(workers) if workers else None


def kill(pid: int | None) -> bool:
    """SIGKILL; False if there was nobody any more."""
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def start(directory: Path, kind: str, sleep: float) -> subprocess.Popen[bytes]:
    """A driver with two workers and small batches."""
    config = directory / "job.yaml"
    options = (f"executor.kind={kind}", "executor.workers=2", "executor.batch=2")
    environ = os.environ | {"SPBFAST_FAKE_SLEEP": str(sleep), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        driver_command(config, directory / "out", *options),
        env=environ,
        stderr=subprocess.PIPE,
        cwd=directory,
        start_new_session=True,
    )


def one_round(
    directory: Path, kind: str, victim: str, rng: random.Random, most_kills: int = 3, sweep: str = GRID
) -> Round:
    """Start the sweep until it ends by itself, killing `victim` at random moments; `most_kills` at most."""
    write_job(directory, replicates=8, sweep=sweep)
    kills = 0
    for starts in range(1, MOST_STARTS + 1):
        driver = start(directory, kind, SLEEP_S[victim])
        session = driver.pid
        if kills < most_kills:
            kills += _strike(driver, victim, rng)
        _, err = driver.communicate(timeout=120)
        if driver.returncode == 0:
            return Round(results_digest(directory / "out"), kills, starts)
        assert driver.returncode == -signal.SIGKILL, err.decode()
        _wait_for_orphans(session)
    raise AssertionError(f"not finished after {MOST_STARTS} starts")


def _strike(driver: subprocess.Popen[bytes], victim: str, rng: random.Random) -> int:
    """Kill at a random moment, for drivers also while they start; how many were killed."""
    if victim == "driver":
        time.sleep(rng.uniform(0, 4.0))
        return kill(driver.pid) if driver.poll() is None else 0
    while driver.poll() is None and worker_of(driver.pid, rng) is None:
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 4.0))
    kills = kill(worker_of(driver.pid, rng))
    if victim == "both":
        time.sleep(rng.choice([0, rng.uniform(0, 2.0)]))
        kills += driver.poll() is None and kill(driver.pid)
    return kills


def _wait_for_orphans(session: int) -> None:
    """A killed driver's workers notice and end by themselves."""
    end = time.monotonic() + 20
    while any(_session(p) == session for p in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < end, "a process of a killed driver is left behind"
        time.sleep(0.05)


def _session(process: Path) -> int:
    fields = _stat(process)
    return int(fields[3]) if len(fields) > 3 and fields[0] != "Z" else -1


def reference(directory: Path, sweep: str = GRID) -> str:
    """Digest of the uninterrupted sweep."""
    write_job(directory, replicates=8, sweep=sweep)
    driver = start(directory, "serial", 0.0)
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 0, err.decode()
    return results_digest(directory / "out")


def main(rounds: int = 100, seed: int = 0, *victims: str) -> int:
    """Many rounds of every mode; the exit code says whether all of them ended with the same data."""
    with tempfile.TemporaryDirectory() as root:
        expected = reference(Path(tempfile.mkdtemp(dir=root)))
        bad = 0
        for kind, victim in MODES:
            if victims and victim not in victims:
                continue
            begin, kills, starts, equal = time.monotonic(), 0, 0, 0
            for number in range(rounds):
                rng = random.Random(f"{seed} {kind} {victim} {number}")
                found = one_round(Path(tempfile.mkdtemp(dir=root)), kind, victim, rng)
                kills, starts = kills + found.kills, starts + found.starts
                equal += found.digest == expected
            bad += rounds - equal
            print(
                f"{kind:<10} {victim:<7} {equal} of {rounds} rounds equal; {kills} kills, {starts} starts, "
                f"{time.monotonic() - begin:.0f} s",
                flush=True,
            )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3]), *sys.argv[3:]))
