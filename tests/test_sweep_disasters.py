"""Bad nights: a message, the right exit code, a valid directory, and the same command completes the sweep."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import distributed
import pytest

from spbfast.errors import ResultsError, StorageError
from spbfast.sweep import results_digest, run_sweep
from spbfast.sweep.store.directory import Store
from tests.fake_spbfast import write_command
from tests.require import need
from tests.sweep_tools import ENGINE, make_job, write_job

pytestmark = pytest.mark.shell


def go(directory: Path, out: Path, *overrides: str, **options: Any) -> Any:
    settings = {k: options.pop(k) for k in ("sweep", "replicates") if k in options}
    job = make_job(directory, *overrides, **settings)
    return run_sweep(job, out, engine=ENGINE, quiet=True, **options)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("reference")
    return results_digest(go(directory, directory / "out").directory)


def command(tmp_path: Path, config: Path, out: Path, *options: str, **environ: str) -> tuple[int, str]:
    """Exit code and messages of the real command line with the fake engine."""
    program = write_command(tmp_path / "spbfast")
    done = subprocess.run(
        [str(program), "sweep", str(config), "-o", str(out), "--no-report", *options],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    need("mount", os.getuid() == 0, "mounting a small file system needs root")
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(path)])
    need("mount", done.returncode == 0, "this environment cannot mount a tmpfs")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk(tmp_path: Path, small_disk: Path, reference: str) -> None:
    config, out = write_job(tmp_path), small_disk / "out"
    options = ("--set", "executor={kind: threads, workers: 2, batch: 1}")
    code, err = command(tmp_path, config, out, *options)
    assert code == 5
    assert "no space left on the disk; free some and give the same command again" in err
    assert Store(out).manifest()["name"] == "demo"
    done = len(list(out.glob("shards/??/*.nc")))
    assert 0 < done < 15
    assert not list(out.rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    code, err = command(tmp_path, config, out, *options)
    assert code == 0, err
    assert "of them done before" in err
    assert results_digest(out) == reference


@pytest.fixture
def closed_disk(small_disk: Path) -> Path:
    """A file system that not even root can write to."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    return small_disk


def test_a_home_that_cannot_be_written(tmp_path: Path, closed_disk: Path) -> None:
    config, out = write_job(tmp_path), tmp_path / "out"
    environ = {"HOME": str(closed_disk), "XDG_CACHE_HOME": "", "SPBFAST_CACHE_DIR": ""}
    code, err = command(tmp_path, config, out, "--set", "executor.kind=threads", **environ)
    assert code == 0, err
    assert results_digest(out)
    assert list(closed_disk.iterdir()) == []


def test_a_directory_that_cannot_be_written(tmp_path: Path, closed_disk: Path) -> None:
    config, out = write_job(tmp_path), closed_disk / "out"
    code, err = command(tmp_path, config, out, "--set", "executor.kind=threads")
    assert code == 5
    assert "cannot create: Read-only file system; choose another place with -o" in err
    assert list(closed_disk.iterdir()) == []


def test_clock_jumps_change_nothing(tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock jumps ahead and back by days while the sweep has a time limit and a lock."""
    real, out = time.time, tmp_path / "out"

    def jumping() -> float:
        done = sum(1 for _ in out.glob("shards/??/*.nc"))
        return real() + {0: 0.0, 1: 3.0, 2: -3.0}[done // 3 % 3] * 86400

    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(distributed.metrics, "time", jumping)
    monkeypatch.setattr(distributed.scheduler, "time", jumping)
    monkeypatch.setenv("SPBFAST_FAKE_SLEEP", "0.3")
    overrides = ("executor.kind=threads", "executor.workers=2", "executor.batch=1")
    outcome = go(tmp_path, out, *overrides, time_limit_s=400.0)
    assert outcome.exit_code == 0
    assert outcome.wall_s < 400
    assert results_digest(outcome.directory) == reference


POISON = "sweep: {grid: {policy.slab_shrink_target_objs: [512, 667, 1024, 2048]}}\n"


@pytest.mark.slow
def test_a_poisoned_point_costs_only_itself(tmp_path: Path) -> None:
    config, out = write_job(tmp_path, sweep=POISON, replicates=1), tmp_path / "out"
    options = ("--set", "executor={kind: processes, workers: 2, batch: 3}")
    code, err = command(tmp_path, config, out, *options)
    assert code == 3
    assert "3 of 4 runs ok, 1 failed, 0 not done" in err
    assert err.count("gave up after 3 tries: 1 runs") == 1
    assert "spbfast rerun" in err
    accounts = [json.loads(p.read_text()) for p in sorted(Store(out).failures.glob("*.json"))]
    assert [a["error"] for a in accounts] == ["WorkerLostError"]
    assert {a["scenario"]["policy"]["slab_shrink_target_objs"] for a in accounts} == {667}
    assert not (out / "running").exists()
    # Losses are tried again by the same command, everything else is left alone.
    code, err = command(tmp_path, config, out, *options)
    assert code == 3
    assert "3 of them done before" in err


@pytest.mark.slow
def test_a_worker_that_starts_again_slowly_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy machine takes longer than the 15 s after which Dask gives a worker up, and did so for ever."""
    from spbfast.sweep.pools import local as clusters

    preload = ["spbfast.sweep.pools.clock", "tests.slow_start"]
    monkeypatch.setitem(clusters.LOCAL_SETTINGS, "distributed.worker.preload", preload)
    monkeypatch.setenv("SPBFAST_SLOW_START", str(tmp_path / "starts"))
    overrides = ("executor={kind: processes, workers: 1, batch: 1}",)
    outcome = go(tmp_path, tmp_path / "out", *overrides, sweep=POISON, replicates=1)
    assert (outcome.exit_code, outcome.n_ok, outcome.n_failed) == (3, 3, 1)
    assert len((tmp_path / "starts").read_text()) >= 3


def test_a_sweep_ends_when_no_worker_process_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spbfast.errors import SetupError
    from spbfast.sweep.pools import pool as executor
    from spbfast.sweep.pools.contract import Request

    class Client:
        status = "running"
        workers: dict[str, Any] = {}  # noqa: RUF012

        def scheduler_info(self, n_workers: int) -> dict[str, Any]:
            return {"workers": self.workers}

    now = [1000.0]
    monkeypatch.setattr(executor, "time", SimpleNamespace(monotonic=lambda: now[0]))
    request = Request(None, tmp_path, 1, 0, lambda batch: {}, "sweep")
    pool = executor.DaskPool(Client(), 2, request, separate=True)
    pool.check()
    now[0] += executor.NO_WORKER_S - 1
    pool.check()
    now[0] += executor.ROLL_CALL_S
    Client.workers = {"tls://127.0.0.1:1": {"nthreads": 1}}
    pool.check()
    Client.workers = {}
    # A driver that was stopped has looked at nothing meanwhile.
    now[0] += 2 * executor.NO_WORKER_S
    pool.check()
    now[0] += executor.NO_WORKER_S
    pool.check()
    assert pool.threads == 2
    now[0] += executor.ROLL_CALL_S
    with pytest.raises(SetupError, match="worker processes have been gone for 10 minutes"):
        pool.check()


@pytest.mark.slow
def test_a_run_that_takes_all_memory(tmp_path: Path) -> None:
    sweep = POISON.replace("667", "668")
    config, out = write_job(tmp_path, sweep=sweep, replicates=1), tmp_path / "out"
    options = ("--set", "executor={kind: processes, workers: 1, batch: 2, memory: 700MiB}")
    code, err = command(tmp_path, config, out, *options)
    assert code == 3, err
    assert "3 of 4 runs ok, 1 failed" in err
    assert "no memory left" in err


def test_a_run_without_memory_is_tried_alone_and_given_up(tmp_path: Path) -> None:
    sweep = POISON.replace("667", "669")
    config, out = write_job(tmp_path, sweep=sweep, replicates=1), tmp_path / "out"
    code, err = command(tmp_path, config, out, "--set", "executor={kind: threads, workers: 2}")
    assert code == 3
    assert "try 2 of 3 will be alone" in err
    assert "gave up after 3 tries: 1 runs, no memory for the pages" in err


def test_a_run_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPBFAST_FAKE_SLEEP", "0.5")
    sweep = "sweep: {grid: {policy.slab_shrink_target_objs: [512]}}\n"
    outcome = go(tmp_path, tmp_path / "out", "executor.timeout=100ms", sweep=sweep, replicates=1)
    assert (outcome.exit_code, outcome.n_failed) == (3, 1)
    (account,) = [json.loads(p.read_text()) for p in Store(outcome.directory).failures.glob("*.json")]
    assert account["error"] == "RunTimeoutError"
    assert "longer than executor.timeout (0.1 s)" in account["message"]
    monkeypatch.setenv("SPBFAST_FAKE_SLEEP", "0")
    again = go(tmp_path, tmp_path / "out", sweep=sweep, replicates=1, retry_failed=True)
    assert (again.exit_code, again.n_ok) == (0, 1)
    assert not list(Store(outcome.directory).failures.glob("*.json"))


def test_a_sweep_that_only_fails_is_stopped(tmp_path: Path) -> None:
    values = ", ".join(str(666_000_000 + i) for i in range(20))
    config = write_job(tmp_path, sweep=f"sweep: {{grid: {{policy.slab_shrink_target_objs: [{values}]}}}}\n")
    code, err = command(tmp_path, config, tmp_path / "out", "--set", "executor={kind: serial, batch: 1}")
    assert code == 3
    assert "stopped by the first 3 runs all failing with: no page left" in err
    assert "3 failed, 57 not done" in err


def test_failures_may_have_a_limit(tmp_path: Path) -> None:
    sweep = "sweep: {grid: {policy.slab_shrink_target_objs: [512, 666]}}\n"
    options = {"sweep": sweep, "replicates": 10}
    outcome = go(tmp_path, tmp_path / "a", "executor.batch=1", max_failures="20%", **options)
    assert (outcome.exit_code, outcome.n_failed) == (3, 5)
    assert outcome.stopped_by == "max_failures: 5 runs failed, 4 may"
    outcome = go(tmp_path, tmp_path / "b", "executor.batch=1", "executor.max_failures=2", **options)
    assert outcome.n_failed == 3


def test_sigusr1_means_continue_me(tmp_path: Path, reference: str) -> None:
    config, out = write_job(tmp_path), tmp_path / "out"
    program = write_command(tmp_path / "spbfast")
    words = [str(program), "sweep", str(config), "-o", str(out), "--no-report", "--set", "executor.batch=1"]
    environ = os.environ | {"SPBFAST_FAKE_SLEEP": "0.5"}
    driver = subprocess.Popen(words, env=environ, stderr=subprocess.PIPE, cwd=tmp_path)
    end = time.monotonic() + 60
    while not list(out.glob("shards/??/*.nc")):
        assert time.monotonic() < end
        time.sleep(0.05)
    driver.send_signal(signal.SIGUSR1)
    # A batch system may say it more than once.
    time.sleep(0.05)
    driver.send_signal(signal.SIGUSR1)
    _, err = driver.communicate(timeout=30)
    assert driver.returncode == 75, err.decode()
    # Runs that were under way may be among what is saved.
    assert re.search(
        rb"stopped by SIGUSR1; what is done is saved(, \d+ runs on their way among it)?\. Continue with:", err
    )
    assert json.loads((out / "status.json").read_text())["state"] == "stopped"
    assert command(tmp_path, config, out)[0] == 0
    assert results_digest(out) == reference


def test_a_stolen_directory_stops_its_first_driver(
    tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spbfast.sweep.store import lock

    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.1)
    monkeypatch.setenv("SPBFAST_FAKE_SLEEP", "0.3")
    out, errors = tmp_path / "out", []

    def first() -> None:
        try:
            go(tmp_path, out, "executor.kind=threads", "executor.batch=1", "executor.workers=1")
        except ResultsError as error:
            errors.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    end = time.monotonic() + 60
    while not list(out.glob("shards/??/*.nc")):
        assert time.monotonic() < end
        time.sleep(0.05)
    second = go(tmp_path, out, steal_lock=True)
    thread.join(30)
    assert "another driver has taken this directory" in str(errors[0])
    assert second.exit_code == 0
    assert results_digest(out) == reference


def test_incompatible_results_are_moved_aside_on_request(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = results_digest(go(tmp_path, out).directory)
    job = make_job(tmp_path, seed=8)
    with pytest.raises(ResultsError, match=r"(?s)root_seed: 7 there, 8 now.*--force-new"):
        run_sweep(job, out, engine=ENGINE, quiet=True)
    assert run_sweep(job, out, engine=ENGINE, quiet=True, force_new=True).n_new == 15
    assert results_digest(tmp_path / "out.old1") == first
    assert results_digest(out) != first


def test_a_results_directory_that_workers_do_not_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spbfast.sweep.pools import worker
    from spbfast.sweep.run import conduct

    monkeypatch.setattr(conduct, "VISIBLE_S", 0.3)
    real = worker.write_shard

    def elsewhere(path: Path, results: Any) -> None:
        real(path, results)
        path.unlink()

    monkeypatch.setattr(worker, "write_shard", elsewhere)
    with pytest.raises(StorageError, match="on a file system that all workers share"):
        go(tmp_path, tmp_path / "out")


def test_parts_without_dask_make_the_whole(tmp_path: Path, reference: str) -> None:
    from spbfast.sweep import consolidate

    config, out = write_job(tmp_path), tmp_path / "out"
    for i in range(3):
        code, err = command(tmp_path, config, out, "--shard-of", f"{i}/3")
        assert code == 0
        assert "5 of 5 runs ok" in err
        assert "spbfast consolidate" in err
    assert not (out / "results.nc").exists()
    consolidate(out)
    assert results_digest(out) == reference
    # A part that is started again finds its work done; the whole goes on from the parts.
    assert "5 of them done before" in command(tmp_path, config, out, "--shard-of", "1/3")[1]
    shutil.rmtree(out / "shards" / next((out / "shards").iterdir()).name)
    assert go(tmp_path, out).exit_code == 0
    assert results_digest(out) == reference


def test_a_part_uses_no_dask(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom spbfast.config import load_config\nfrom spbfast.sweep import run_sweep\n"
        "run_sweep(load_config(sys.argv[1]), sys.argv[2], shard_of=(0, 2), engine='tests.fake_engine')\n"
        "assert 'distributed' not in sys.modules\n"
    )
    words = [sys.executable, "-W", "error", "-c", code, str(write_job(tmp_path)), str(tmp_path / "out")]
    root = str(Path(__file__).resolve().parents[1])
    subprocess.run(words, check=True, env=os.environ | {"PYTHONPATH": root}, capture_output=True)
