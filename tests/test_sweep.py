"""Sweeps end to end with a fake engine: same bits whatever runs them, nothing lost, failures recorded."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray as xr

import spbfast
import spbfast.sweep
from spbfast.errors import ResultsError
from spbfast.sweep import results_digest, run_sweep
from spbfast.sweep.store.directory import Store
from tests.sweep_tools import ENGINE, ROOT, driver_command, make_job, write_job

pytestmark = pytest.mark.shell


def go(directory: Path, name: str = "out", *overrides: str, **options: Any) -> Any:
    settings = {k: options.pop(k) for k in ("sweep", "seed", "replicates", "duration") if k in options}
    job = make_job(directory, *overrides, **settings)
    return run_sweep(job, directory / name, engine=ENGINE, quiet=True, **options)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the uninterrupted serial sweep."""
    outcome = go(tmp_path_factory.mktemp("reference"))
    assert (outcome.exit_code, outcome.n_ok, outcome.n_failed) == (0, 15, 0)
    return results_digest(outcome.directory)


@pytest.mark.parametrize(
    "overrides",
    [
        ("executor.batch=1",),
        ("executor.batch=7",),
        ("executor.kind=threads", "executor.workers=1", "executor.batch=7"),
        ("executor.kind=threads", "executor.workers=2", "executor.batch=1"),
        ("executor.kind=threads", "executor.workers=2"),
    ],
    ids="/".join,
)
def test_digest_does_not_depend_on_execution(
    tmp_path: Path, reference: str, overrides: tuple[str, ...]
) -> None:
    outcome = go(tmp_path, "out", *overrides)
    assert outcome.exit_code == 0
    assert results_digest(outcome.directory) == reference


@pytest.mark.slow
def test_processes_give_the_same_digest(tmp_path: Path, reference: str) -> None:
    outcome = go(tmp_path, "out", "executor.kind=processes", "executor.workers=2", "executor.batch=4")
    assert outcome.n_ok == 15
    assert results_digest(outcome.directory) == reference
    lines = Store(outcome.directory).journal_path.read_text().splitlines()
    assert os.getpid() not in {json.loads(line)["pid"] for line in lines}


def test_results_differ_with_the_seed(tmp_path: Path, reference: str) -> None:
    assert results_digest(go(tmp_path, seed=8).directory) != reference


def start(config: Path, outdir: Path, *overrides: str, sleep: float = 0.1) -> subprocess.Popen[bytes]:
    env = os.environ | {"SPBFAST_FAKE_SLEEP": str(sleep), "PYTHONPATH": str(ROOT)}
    command = driver_command(config, outdir, *overrides)
    return subprocess.Popen(
        command, env=env, stderr=subprocess.PIPE, cwd=config.parent, start_new_session=True
    )


def wait_for_shards(outdir: Path, n: int) -> None:
    deadline = time.monotonic() + 30
    while len(list(outdir.glob("shards/??/*.nc"))) < n:
        assert time.monotonic() < deadline, "the sweep makes no progress"
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["threads", "serial"])
def test_sigkill_loses_nothing_that_was_finished(tmp_path: Path, reference: str, kind: str) -> None:
    config, out = write_job(tmp_path), tmp_path / "out"
    driver = start(config, out, f"executor.kind={kind}", "executor.workers=2", "executor.batch=1")
    wait_for_shards(out, 4)
    driver.kill()
    driver.communicate()
    done = len(list(out.glob("shards/??/*.nc")))
    assert 4 <= done < 15
    (out / "shards" / f".x.nc.host.1.{'0' * 32}.tmp").write_text("half a shard")
    outcome = go(tmp_path)
    assert outcome.n_new == 15 - done
    assert results_digest(out) == reference
    assert not list(out.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_signals_end_in_a_valid_directory(tmp_path: Path, reference: str, number: int, code: int) -> None:
    config, out = write_job(tmp_path), tmp_path / "out"
    driver = start(config, out, "executor.kind=threads", "executor.workers=2", sleep=0.3)
    wait_for_shards(out, 2)
    driver.send_signal(number)
    begin = time.monotonic()
    _, err = driver.communicate(timeout=20)
    assert time.monotonic() - begin < 5
    assert driver.returncode == code, err.decode()
    assert b"Continue with:\n  spbfast resume" in err
    assert not (out / "lock").exists()
    ds = xr.open_dataset(out / "results.nc")
    states = ds.status.values
    ds.close()
    assert set(np.unique(states)) == {0, 5}
    assert go(tmp_path).n_ok == 15
    assert results_digest(out) == reference


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_reaches_only_the_driver(tmp_path: Path) -> None:
    config, out = write_job(tmp_path), tmp_path / "out"
    driver = start(config, out, "executor.kind=processes", "executor.batch=1", sleep=1.0)
    wait_for_shards(out, 1)
    begin = time.monotonic()
    os.killpg(driver.pid, signal.SIGINT)
    _, err = driver.communicate(timeout=30)
    assert driver.returncode == 130, err.decode()
    assert time.monotonic() - begin < 10
    assert b"Traceback" not in err
    assert b"Continue with:" in err
    assert b" 0 not done" not in err
    for _ in range(100):
        try:
            os.killpg(driver.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("a process of the sweep is left behind")


def test_a_time_limit_stops_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPBFAST_FAKE_SLEEP", "0.2")
    outcome = go(tmp_path, "out", "executor.batch=1", time_limit_s=0.5)
    assert (outcome.exit_code, outcome.stopped_by) == (75, "time limit")
    assert 0 < outcome.n_ok < 15
    assert outcome.n_missing == 15 - outcome.n_ok


POISON = "sweep: {grid: {policy.slab_shrink_target_objs: [512, 666]}}\n"


def test_a_failing_point_is_recorded_and_not_fatal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job(tmp_path, sweep=POISON)
    stream = io.StringIO()
    outcome = run_sweep(job, tmp_path / "out", engine=ENGINE, stream=stream)
    assert (outcome.exit_code, outcome.n_ok, outcome.n_failed) == (3, 3, 3)
    accounts = [json.loads(p.read_text()) for p in sorted(Store(outcome.directory).failures.glob("*.json"))]
    assert [a["replicate"] for a in accounts] == [0, 1, 2]
    first = accounts[0]
    assert (first["error"], first["code"], first["step"], first["seed"]) == ("SimulationError", 5, 42, 7)
    assert "run_replicate" in first["traceback"]
    assert first["scenario"]["policy"]["slab_shrink_target_objs"] == 666
    assert "no page left for <kernel> & co" in stream.getvalue()
    with pytest.warns(UserWarning, match="3 runs failed"):
        ds = spbfast.open_results(outcome.directory)
    assert ds.status.values.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert np.isnan(ds.spb_tainted.values[1]).all()
    assert not np.isnan(ds.spb_tainted.values[0]).any()
    again = go(tmp_path, sweep=POISON)
    assert (again.n_new, again.exit_code) == (0, 3)
    retried = go(tmp_path, sweep=POISON, retry_failed=True)
    assert (retried.n_new, retried.n_failed) == (3, 3)


@pytest.mark.slow
def test_a_point_that_kills_its_worker_costs_only_itself(tmp_path: Path) -> None:
    sweep = "sweep: {grid: {policy.slab_shrink_target_objs: [512, 667, 1024]}}\n"
    overrides = ("executor.kind=processes", "executor.workers=2", "executor.batch=3")
    outcome = go(tmp_path, "out", *overrides, sweep=sweep, replicates=1)
    assert (outcome.exit_code, outcome.n_ok, outcome.n_failed) == (3, 2, 1)
    (account,) = [json.loads(p.read_text()) for p in Store(outcome.directory).failures.glob("*.json")]
    assert account["error"] == "WorkerLostError"
    assert "no memory left" in account["message"]
    with pytest.warns(UserWarning, match="1 runs failed"):
        assert spbfast.open_results(outcome.directory).status.values.tolist() == [[0], [3], [0]]


def test_fail_fast_stops(tmp_path: Path) -> None:
    sweep = "sweep: {grid: {policy.slab_shrink_target_objs: [666, 512, 513, 514, 515, 516]}}\n"
    outcome = go(tmp_path, "out", "executor.batch=1", sweep=sweep, fail_fast=True)
    assert (outcome.exit_code, outcome.n_failed) == (3, 1)
    assert outcome.n_missing > 0


def test_the_same_command_does_nothing_more(tmp_path: Path) -> None:
    assert go(tmp_path).n_new == 15
    assert go(tmp_path).n_new == 0


def test_a_larger_grid_runs_only_new_points_and_keeps_old_values(tmp_path: Path) -> None:
    small = "sweep: {grid: {policy.slab_shrink_target_objs: [512, 1024]}}\n"
    large = "sweep: {grid: {policy.slab_shrink_target_objs: [256, 512, 1024]}}\n"
    before = spbfast.open_results(go(tmp_path, sweep=small).directory)
    assert go(tmp_path, sweep=large).n_new == 3
    after = spbfast.open_results(tmp_path / "out")
    assert after.policy_slab_shrink_target_objs.values.tolist() == [256, 512, 1024]
    np.testing.assert_array_equal(after.spb_tainted.values[1:], before.spb_tainted.values)
    assert go(tmp_path, sweep=large, replicates=4).n_new == 3
    assert go(tmp_path, sweep=small).n_new == 0
    again = spbfast.open_results(tmp_path / "out").spb_tainted
    assert again.sizes["replicate"] == 4  # of the fourth, which stays, this job has nothing to say
    np.testing.assert_array_equal(again[:, :3], before.spb_tainted)


def test_points_with_other_durations_share_one_time_axis(tmp_path: Path) -> None:
    sweep = "sweep: {baseline: {duration: 4s}, grid: {policy.slab_shrink_target_objs: [512]}}\n"
    ds = spbfast.open_results(go(tmp_path, sweep=sweep, duration="6s").directory)
    assert ds.time.values.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert np.isfinite(ds.spb_tainted.values[0]).sum(axis=1).tolist() == [5, 5, 5]
    assert np.isfinite(ds.spb_tainted.values[1]).all()
    assert ds.tainted_end.values[0].tolist() == ds.spb_tainted.values[0, :, 4].tolist()
    assert ds.duration.values.tolist() == [4.0, 6.0]
    table = spbfast.compare(ds)
    assert table.control.values[0] == pytest.approx(ds.spb_tainted.values[0, :, 4].mean())


def test_another_seed_is_refused_with_a_difference(tmp_path: Path) -> None:
    go(tmp_path)
    with pytest.raises(ResultsError, match=r"(?s)root_seed: 7 there, 8 now.*-o"):
        go(tmp_path, seed=8)
    with pytest.raises(ResultsError, match="output_level: series there, summary now"):
        go(tmp_path, "out", "output.level=summary")


def test_another_job_is_refused_with_a_difference(tmp_path: Path) -> None:
    go(tmp_path)
    with pytest.raises(ResultsError, match=r"(?s)different job.*duration: 12s there, 13s now"):
        go(tmp_path, duration="13s")


def test_a_directory_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in ("thesis.tex", ".mine.tmp"):
        (tmp_path / "out" / name).write_text("x")
    with pytest.raises(ResultsError, match="holds other files"):
        go(tmp_path)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".mine.tmp", "thesis.tex"]


def test_a_driver_killed_at_its_first_step_can_be_continued(tmp_path: Path, reference: str) -> None:
    go(tmp_path)
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file() and path.name != "manifest.json":
            path.unlink()
    assert go(tmp_path).n_new == 15
    assert results_digest(tmp_path / "out") == reference


def test_a_torn_journal_and_a_lost_line_cost_nothing(tmp_path: Path, reference: str) -> None:
    go(tmp_path, "out", "executor.batch=1")
    journal = tmp_path / "out" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    assert go(tmp_path).n_new == 0
    assert results_digest(tmp_path / "out") == reference
    journal.unlink()
    assert go(tmp_path).n_new == 0


def test_an_unreadable_shard_is_set_aside_and_run_again(tmp_path: Path, reference: str) -> None:
    go(tmp_path, "out", "executor.batch=5")
    victim = min((tmp_path / "out" / "shards").rglob("*.nc"))
    victim.write_bytes(b"not netCDF")
    (tmp_path / "out" / "journal.jsonl").unlink()
    assert go(tmp_path).n_new == 5
    assert victim.with_suffix(".unreadable").exists()
    assert results_digest(tmp_path / "out") == reference


def test_an_engine_is_the_module_that_its_name_means_now(monkeypatch: pytest.MonkeyPatch) -> None:
    from spbfast.sweep.pools.worker import prepare

    class Warmed(ModuleType):
        count = 0

        def warmup(self) -> None:
            self.count += 1

    engines = [Warmed("spbfast_engine"), Warmed("spbfast_engine")]
    for engine in engines:
        monkeypatch.setitem(sys.modules, "spbfast_engine", engine)
        assert prepare("spbfast_engine") is prepare("spbfast_engine") is engine
    assert [engine.count for engine in engines] == [1, 1]


def test_receipts_are_short(tmp_path: Path) -> None:
    from spbfast.sweep.points.plan import Batch, make_plan
    from spbfast.sweep.pools.worker import run_batch

    plan = make_plan(make_job(tmp_path, replicates=60), 1)
    batch = Batch(tuple(plan.task(c) for c in plan.cells()[:256]))
    receipt = run_batch(batch, str(tmp_path / "out"), ENGINE, "summary", "x")
    assert len(json.dumps(receipt)) < 1000
    assert receipt["statuses"] == "0" * 256
    again = run_batch(batch, str(tmp_path / "out"), ENGINE, "summary", "x")
    assert (again["batch"], again["statuses"], again["events"]) == (receipt["batch"], "0" * 256, 0)


def test_results_open_without_this_package(tmp_path: Path) -> None:
    outcome = go(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xr.open_dataset(outcome.results_path) as ds:
            ds = ds.load()
    assert dict(ds.sizes) == {
        "point": 5,
        "replicate": 3,
        "time": 13,
        "counter": 3,
        "migratetype": 3,
    }
    assert ds.policy_slab_shrink_throttle.attrs["units"] == "s"
    assert ds.policy_slab_shrink_throttle.attrs["config_path"] == "policy.slab_shrink_throttle"
    assert ds.policy_slab_shrink_throttle.values.tolist() == [0.1, 0.05, 0.05, 0.5, 0.5]
    assert ds.is_baseline.values.tolist() == [True, False, False, False, False]
    assert ds.policy_slab_shrink.values.tolist() == [False, True, True, True, True]
    assert ds.time.attrs["units"] == "s"
    assert ds.status.attrs["flag_meanings"].split()[5] == "missing"
    assert ds.point_id.dtype == np.uint64
    assert ds.seed.values.tolist() == [[7] * 3] * 5
    assert ds.demand_digest.values.tolist() == [[7000, 7001, 7002]] * 5
    assert ds.vmstat.sel(counter="spb_slab_shrink_ran").isel(time=-1).values[0].tolist() == [0, 0, 0]
    assert "name: demo" in ds.attrs["config_yaml"]
    assert ds.attrs["root_seed"] == "7"
    for name in ds.data_vars:
        assert {"units", "long_name"} <= set(ds[name].attrs), name


def test_summary_level_keeps_scalars(tmp_path: Path) -> None:
    ds = spbfast.open_results(go(tmp_path, "out", "output.level=summary").directory)
    assert "time" not in ds.dims
    assert ds.tainted_end.dims == ("point", "replicate")


def test_one_driver_per_directory(tmp_path: Path) -> None:
    config, out = write_job(tmp_path), tmp_path / "out"
    driver = start(config, out, "executor.kind=serial", "executor.batch=1", sleep=0.3)
    try:
        wait_for_shards(out, 1)
        with pytest.raises(ResultsError, match=rf"in use by process {driver.pid}"):
            go(tmp_path)
        with pytest.warns(UserWarning, match="missing"):
            ds = spbfast.open_results(out)
        assert int((ds.status == 0).sum()) >= 1
    finally:
        driver.kill()
        driver.communicate()


def test_threads_leave_no_socket_beyond_loopback(tmp_path: Path) -> None:
    config, out = write_job(tmp_path), tmp_path / "out"
    driver = start(config, out, "executor.kind=threads", "executor.workers=2", sleep=0.3)
    try:
        wait_for_shards(out, 1)
        inodes = set()
        for fd in Path(f"/proc/{driver.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                inodes.add(os.readlink(fd).removeprefix("socket:[").rstrip("]"))
        listening = [
            row.split()[1].split(":")[0]
            for table in ("tcp", "tcp6")
            for row in Path(f"/proc/{driver.pid}/net/{table}").read_text().splitlines()[1:]
            if row.split()[3] == "0A" and row.split()[9] in inodes
        ]
        assert set(listening) <= {"0100007F"}
    finally:
        driver.kill()
        driver.communicate()


def test_the_package_is_callable(tmp_path: Path) -> None:
    outcome = spbfast.sweep(make_job(tmp_path), tmp_path / "out", engine=ENGINE, quiet=True)
    assert outcome.n_ok == 15


def test_lines_off_the_terminal_are_whole(tmp_path: Path) -> None:
    stream = io.StringIO()
    run_sweep(make_job(tmp_path), tmp_path / "out", engine=ENGINE, stream=stream)
    text = stream.getvalue()
    assert "\r" not in text
    assert "\x1b" not in text
    assert "5 points x 3 replicates = 15 runs" in text
    assert "15 of 15 runs ok, 0 failed" in text
