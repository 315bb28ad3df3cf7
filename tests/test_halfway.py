"""Runs longer than a start of their sweep: saved where they are stopped, continued to the same bits."""

from __future__ import annotations

import io
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from spbfast.cli import app
from spbfast.cli.repair import check_directory, repair_directory
from spbfast.errors import ResultsError
from spbfast.model import engine
from spbfast.sweep import results_digest, run_sweep
from spbfast.sweep.points.plan import make_plan
from spbfast.sweep.pools import going_on
from spbfast.sweep.pools.going_on import is_worth_saving
from spbfast.sweep.run.estimate import estimate, estimate_lines
from spbfast.sweep.run.headway import EXIT_FRUITLESS
from spbfast.sweep.store import origins
from spbfast.sweep.store.halfway import halfway_files, halfway_path, halfway_runs, read_halfway
from spbfast.sweep.store.shards import VOLATILE_FACTS
from tests import fake_engine
from tests.sweep_tools import ENGINE, make_job
from tests.test_branch import real_job

pytestmark = pytest.mark.shell

TWO = "sweep: {grid: {policy.slab_shrink_target_objs: [512, 4096]}}\n"
REAL = """\
extends: tiny.yaml
name: long
duration: 900ms
replicates: 1
output: {{every: 10ms, level: {level}}}
sweep: {{{branch}grid: {{policy: [v1@30, v2]}}}}
"""


def go(job: Any, out: Path, **options: Any) -> tuple[Any, str]:
    """A start of a sweep, and what it says."""
    stream = io.StringIO()
    return run_sweep(job, out, stream=stream, **options), stream.getvalue()


# -- the same bits -------------------------------------------------------------------------------------


def end_early(monkeypatch: pytest.MonkeyPatch, ticks: int = 437) -> None:
    """Every run asks for a stop after some hundred ticks, as a batch system would, and is worth saving."""
    monkeypatch.setattr(going_on, "WORTH_SHARE", 0.0)  # a fifth of a busy machine's time hangs on the machine
    whole = engine.simulate_ticks

    def simulate(run: Any, samples: Any, until: int, seed: int, stop: Any = None) -> bool:
        target = min(until, int(run.world.node.now[engine.Now.TICK]) + ticks)
        done = whole(run, samples, target, seed, stop)
        if stop is None or target == until:
            return done
        os.kill(os.getpid(), signal.SIGUSR1)
        while not stop():
            time.sleep(0.01)
        return False

    monkeypatch.setattr(engine, "simulate_ticks", simulate)


def assert_same(one: Path, other: Path) -> None:
    assert results_digest(one) == results_digest(other)
    with (
        xr.open_dataset(one / "results.nc", decode_timedelta=False) as a,
        xr.open_dataset(other / "results.nc", decode_timedelta=False) as b,
    ):
        assert set(a.variables) == set(b.variables)
        for name in set(a.variables) - set(VOLATILE_FACTS):
            np.testing.assert_array_equal(a[name].values, b[name].values, name)


def start_until_done(job: Any, out: Path, **options: Any) -> int:
    """Starts of a sweep until it is complete; only the last may end otherwise than by its time."""
    for starts in range(1, 20):
        outcome, said = go(job, out, **options)
        if not outcome.n_missing:
            assert outcome.exit_code == 0
            return starts
        if outcome.n_halfway or outcome.n_new or list(out.glob("*/*.state")):
            assert outcome.exit_code == 75, said
        else:  # a busy machine took all that time to begin
            options["time_limit_s"] *= 2
    raise AssertionError("it makes no progress")


@pytest.mark.parametrize(
    ("kind", "level", "branch", "ticks", "starts"),
    [
        ("serial", "series", "", 437, 5),
        ("threads", "spb", "", 437, 3),
        ("serial", "series", "branch_at: 517ms, ", 300, 4),
    ],
    ids=["serial", "threads", "branched"],
)
def test_a_sweep_of_short_starts_is_the_uninterrupted_one(
    kind: str,
    level: str,
    branch: str,
    ticks: int,
    starts: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    baseline = "baseline: {policy: v1@45}, " if branch else ""
    text = REAL.format(level=level, branch=branch + baseline)
    job = real_job(tmp_path, f"executor.kind={kind}", "executor.workers=2", "executor.batch=1", text=text)
    assert go(job, tmp_path / "whole")[0].exit_code == 0
    end_early(monkeypatch, ticks)
    assert start_until_done(job, tmp_path / "out") >= starts
    assert_same(tmp_path / "whole", tmp_path / "out")
    assert not (tmp_path / "out" / "halfway").exists()


def test_damage_inside_a_state_is_noticed(tmp_path: Path) -> None:
    job = real_job(tmp_path, "executor.kind=serial", text=REAL.format(level="series", branch=""))
    with pytest.MonkeyPatch.context() as patch:
        end_early(patch)
        assert go(job, tmp_path / "out")[0].n_halfway == 1
    (path,) = halfway_files(tmp_path / "out")
    damage(path)
    assert read_halfway(path), "its head is whole"
    outcome, said = go(job, tmp_path / "out")
    assert outcome.exit_code == 0
    assert said.count("which is a damaged state file") == 1


@pytest.mark.slow
def test_a_process_saves_its_run_and_a_thread_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPBFAST_FAKE_SLEEP", "60")
    job = make_job(tmp_path, "executor.kind=processes", "executor.workers=1", sweep=TWO, replicates=1)
    for limit_s in (6.0, 12.0, 24.0, 48.0):  # a process takes a while to start
        outcome, said = go(job, tmp_path / "out", engine=ENGINE, time_limit_s=limit_s)
        if outcome.n_halfway:
            break
    assert (outcome.exit_code, outcome.n_halfway) == (75, 1), said
    monkeypatch.setenv("SPBFAST_FAKE_SLEEP", "0.1")
    serial = make_job(tmp_path, sweep=TWO, replicates=1)
    assert "go on from where they were stopped: 1" in go(serial, tmp_path / "out", engine=ENGINE)[1]
    go(serial, tmp_path / "whole", engine=ENGINE)
    assert_same(tmp_path / "whole", tmp_path / "out")
    assert not (tmp_path / "out" / "halfway").exists()


# -- a limit shorter than one run ----------------------------------------------------------------------


def stop_on_the_way(job: Any, out: Path, words: str) -> str:
    """Start a sweep of very long runs, with more and more time, until it says these words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPBFAST_FAKE_SLEEP", "600")
        for limit_s in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0):
            outcome, said = go(job, out, engine=ENGINE, time_limit_s=limit_s)
            assert outcome.n_new == 0
            if words in said:
                assert outcome.exit_code in (75, EXIT_FRUITLESS)
                return said
    raise AssertionError(said)


@pytest.fixture
def stopped(tmp_path: Path) -> tuple[Any, Path]:
    """A sweep of two runs with the first one on its way."""
    job, out = make_job(tmp_path, sweep=TWO, replicates=1), tmp_path / "out"
    stop_on_the_way(job, out, "1 runs on their way among it")
    return job, out


def test_a_loop_of_starts_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPBFAST_FAKE_SLEEP", "1.0")
    job = make_job(tmp_path, sweep=TWO, replicates=1)
    assert 2 <= start_until_done(job, tmp_path / "out", engine=ENGINE, time_limit_s=0.6) <= 12
    assert go(job, tmp_path / "whole", engine=ENGINE)[0].exit_code == 0
    assert_same(tmp_path / "whole", tmp_path / "out")


def test_the_time_of_all_starts_counts(stopped: tuple[Any, Path]) -> None:
    job, out = stopped
    before = halfway_runs(out)[0].wall_s
    go(job, out, engine=ENGINE)
    with xr.open_dataset(out / "results.nc", decode_timedelta=False) as ds:
        assert ds.wall_time.values.max() > before > 0.0
        assert np.isnan(ds.boot_time.values).sum() == 1


def test_short_runs_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPBFAST_FAKE_SLEEP", "0.1")
    outcome, _ = go(
        make_job(tmp_path, "executor.batch=1"), tmp_path / "out", engine=ENGINE, time_limit_s=1.05
    )
    assert not outcome.n_new or not outcome.n_halfway  # a busy machine may have begun late
    assert [is_worth_saving(spent, 3600.0) for spent in (1.0, 59.0, 61.0)] == [False, False, True]
    assert [is_worth_saving(spent, 10.0) for spent in (1.0, 2.5)] == [False, True]


def test_starts_that_gain_nothing_end_the_requeueing(tmp_path: Path, stopped: tuple[Any, Path]) -> None:
    job, out = stopped
    found = [go(job, out, engine=ENGINE, time_limit_s=1e-6) for _ in range(3)]
    assert [outcome.exit_code for outcome, _ in found] == [75, EXIT_FRUITLESS, EXIT_FRUITLESS]
    assert "gained nothing" in found[0][1]
    assert "Give it more time" in found[1][1]
    assert go(job, out, engine=ENGINE)[0].exit_code == 0


# -- states that cannot be continued -------------------------------------------------------------------


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def test_a_damaged_state_is_set_aside(stopped: tuple[Any, Path]) -> None:
    job, out = stopped
    (path,) = halfway_files(out)
    damage(path)
    assert [f.level for f in check_directory(out) if f.what == "halfway"] == ["warning"]
    outcome, said = go(job, out, engine=ENGINE)
    assert said.count("set aside halfway/") == 1, said
    assert (outcome.exit_code, outcome.n_ok) == (0, 2)
    assert [p.suffix for p in (out / "halfway").iterdir()] == [".unreadable"]


def test_doctor_sets_a_damaged_state_aside(stopped: tuple[Any, Path]) -> None:
    _, out = stopped
    assert [f.level for f in check_directory(out) if f.what == "halfway"] == ["ok"]
    damage(halfway_files(out)[0])
    assert any("halfway/" in line for line in repair_directory(out, ENGINE))
    assert halfway_files(out) == []


def test_another_runs_state_is_set_aside(stopped: tuple[Any, Path]) -> None:
    job, out = stopped
    (path,) = halfway_files(out)
    cells = make_plan(job, fake_engine.MODEL_VERSION).cells()
    other = next(p for p in (halfway_path(out, cell) for cell in cells) if p != path)
    elsewhere = path.with_name("0123456789abcdef-r0.state")
    for copy in (other, elsewhere):
        shutil.copy(path, copy)
    outcome, said = go(job, out, engine=ENGINE)
    assert f"set aside halfway/{other.name}, which is the state of another run" in said
    assert (outcome.exit_code, outcome.n_ok) == (0, 2)
    assert elsewhere.exists(), "another job may have its point"


def test_a_state_of_another_seed_is_set_aside(stopped: tuple[Any, Path]) -> None:
    job, out = stopped
    other = make_job(out.parent, "seed=8", sweep=TWO, replicates=1)
    stop_on_the_way(other, out.with_name("other"), "on their way")
    (path,), (foreign,) = halfway_files(out), halfway_files(out.with_name("other"))
    foreign.rename(path)
    outcome, said = go(job, out, engine=ENGINE)
    assert (outcome.exit_code, outcome.n_ok) == (0, 2), said
    assert said.count("set aside halfway/") == 1


def test_a_state_of_other_sources_is_refused_as_shards_are(
    stopped: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, out = stopped
    monkeypatch.setattr(origins, "kernel_hash", lambda: 7)
    with pytest.raises(ResultsError, match="other sources"):
        go(job, out, engine=ENGINE)
    outcome, said = go(job, out, engine=ENGINE, allow_changed_sources=True)
    assert "was made by other sources of the kernels; its run begins anew" in said
    assert outcome.n_ok == 2


def test_a_state_that_cannot_be_written_costs_only_itself(tmp_path: Path) -> None:
    job, out = make_job(tmp_path, sweep=TWO, replicates=1), tmp_path / "out"
    go(job, out, engine=ENGINE, time_limit_s=1e-6)
    (out / "halfway").write_text("in the way")
    assert "on their way" not in stop_on_the_way(job, out, "could not be saved")
    assert go(job, out, engine=ENGINE)[0].n_ok == 2


# -- what is shown -------------------------------------------------------------------------------------


def test_status_and_dry_run_know_of_runs_on_their_way(stopped: tuple[Any, Path]) -> None:
    job, out = stopped
    said = CliRunner().invoke(app, ["status", str(out)]).output
    assert "halfway  1 runs were stopped and go on from" in said
    found = estimate(job, out, engine=ENGINE, measure=False)
    assert found.halfway == 1
    assert any("halfway     1 runs go on" in line for line in estimate_lines(found))
