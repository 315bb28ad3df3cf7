"""Branched sweeps: each replicate is aged once, and every point is what it would be if it were run alone."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from spbfast.cli import app
from spbfast.config import load_config
from spbfast.config.branch import SHAPING_SWITCHES
from spbfast.errors import ConfigError, SimulationError
from spbfast.jit.decorators import INTERPRETED
from spbfast.model import engine
from spbfast.results.report.exhibits import provenance, read_exhibit
from spbfast.sweep import results_digest, run_sweep
from spbfast.sweep.points.branching import validate_branch
from spbfast.sweep.points.plan import Cell, make_plan
from spbfast.sweep.run.branched import ageing_order
from spbfast.sweep.run.estimate import estimate, estimate_lines
from spbfast.sweep.run.rerun import rerun
from spbfast.sweep.store.directory import Store
from spbfast.sweep.store.states import make_once
from tests import fake_engine
from tests.kill_tools import one_round, reference
from tests.sweep_tools import ENGINE, make_job

# Sweeps as a user runs them; that a branch is exact holds of kernels, which other files interpret.
pytestmark = pytest.mark.shell

CONFIGS = Path(__file__).parent.parent / "configs"
DOCS = Path(__file__).parent.parent / "docs"
SPAN, AT = ("30ms", "17ms") if INTERPRETED else ("900ms", "517ms")
JOB = """\
extends: tiny.yaml
name: branched
duration: {span}
output: {{every: 10ms}}
sweep:
  branch_at: {at}
  baseline: {{policy: v1@30}}
  grid: {{policy: [v1@15, v1@45, v2]}}
"""
GRID = """\
sweep:
  branch_at: 5s
  baseline: {policy: v1@30}
  grid:
    policy.slab_shrink_throttle: [50ms, 500ms]
    policy.slab_shrink_target_objs: [512, 4096]
"""


def real_job(directory: Path, *overrides: str, text: str = "") -> Any:
    """A small machine in the real engine."""
    tiny = (CONFIGS / "tiny.yaml").read_text(encoding="utf-8")
    (directory / "tiny.yaml").write_text(re.sub(r"(?ms)^sweep:.*?^(?=output)", "", tiny))
    path = directory / "job.yaml"
    path.write_text(text or JOB.format(span=SPAN, at=AT))
    return load_config(path, overrides)


def states(directory: Path) -> list[Path]:
    return sorted((directory / "states").glob("*.state"))


# -- exact ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[Cell, engine.ReplicateResult]:
    """Each point run by itself, with the switch made in memory at the same time; no file is involved."""
    plan = make_plan(real_job(tmp_path_factory.mktemp("alone")), engine.MODEL_VERSION)
    return {
        cell: engine.run_replicate(plan.scenario(plan.index_of(cell.point_id)), plan.seed, cell.replicate)
        for cell in plan.cells()
    }


def compare(directory: Path, alone: dict[Cell, engine.ReplicateResult]) -> None:
    with xr.open_dataset(directory / "results.nc", decode_timedelta=False) as ds:
        assert ds.sizes["point"] * ds.sizes["replicate"] == len(alone)
        for i, point in enumerate(ds.point_id.values.tolist()):
            for replicate in range(ds.sizes["replicate"]):
                want = alone[Cell(point, replicate)]
                assert f"{int(ds.digest[i, replicate]):016x}" == want.digest
                assert f"{int(ds.demand_digest[i, replicate]):016x}" == want.demand_digest
                assert int(ds.events[i, replicate]) == want.events
                np.testing.assert_array_equal(ds.slab_pages[i, replicate], want.data["slab_pages"])


@pytest.mark.parametrize("kind", ["serial", "threads", "processes"])
def test_every_point_equals_the_one_that_is_run_alone(kind: str, alone: Any, tmp_path: Path) -> None:
    job = real_job(tmp_path, f"executor.kind={kind}", "executor.workers=2")
    assert run_sweep(job, tmp_path / "out", quiet=True).exit_code == 0
    compare(tmp_path / "out", alone)
    assert not (tmp_path / "out" / "states").exists()


def test_tasks_of_an_array_share_the_machines(alone: Any, tmp_path: Path) -> None:
    job, out = real_job(tmp_path), tmp_path / "out"
    tasks = [
        threading.Thread(target=run_sweep, args=(job, out), kwargs={"shard_of": (i, 3), "quiet": True})
        for i in range(3)
    ]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    assert len(states(out)) == 2
    assert CliRunner().invoke(app, ["consolidate", str(out)]).exit_code == 0
    compare(out, alone)
    assert not (out / "states").exists()


def test_up_to_the_branch_points_are_alike_and_the_files_own_policy_stays_as_it_was(
    alone: Any, tmp_path: Path
) -> None:
    job = real_job(tmp_path)
    plan = make_plan(job, engine.MODEL_VERSION)
    plain = load_config(job.path, one_point=True).scenario
    assert plain.branch is None
    whole = engine.run_replicate(plain, plan.seed, 1)
    own = [alone[Cell(p.point_id, 1)] for p in plan.points]
    assert own[0].digest == whole.digest
    assert len({run.digest for run in own}) > 1
    before = whole.coords["time"] <= int(AT.removesuffix("ms")) / 1000
    for run in own:
        np.testing.assert_array_equal(run.data["slab_pages"][before], whole.data["slab_pages"][before])


def test_a_run_alone_is_the_exchange_of_the_policy_in_memory(alone: Any, tmp_path: Path) -> None:
    """By the parts of the engine, so that the engine's own way to a branch is tested too."""
    plan = make_plan(real_job(tmp_path), engine.MODEL_VERSION)
    last = plan.scenario(len(plan.points) - 1)
    base = load_config(tmp_path / "job.yaml", one_point=True).scenario
    run = engine.lower_scenario(base, plan.seed, 0)
    engine.boot(run, base, plan.seed)
    samples = engine.room_for_samples(run, base)
    engine.simulate_ticks(run, samples, last.branch.at // 10**6, plan.seed)
    run.policy[:] = engine.lower_scenario(last, plan.seed, 0).policy
    engine.simulate_ticks(run, samples, last.duration // 10**6, plan.seed)
    engine.finish(run, samples)
    data, _ = engine.collect_samples(run, samples, last)
    assert engine.digest_of(data) == alone[Cell(plan.points[-1].point_id, 0)].digest


def test_rerun_gives_the_same_bits_without_the_state(tmp_path: Path) -> None:
    run_sweep(real_job(tmp_path), tmp_path / "out", quiet=True)
    plan = make_plan(real_job(tmp_path), engine.MODEL_VERSION)
    assert rerun(tmp_path / "out", f"{plan.points[-1].point_id:016x}", 1).same is True


def test_a_branch_can_follow_a_saved_state(tmp_path: Path) -> None:
    job = real_job(tmp_path)
    whole = engine.run_replicate(make_plan(job, 3).scenario(2), job.seed, 0)
    early = load_config(job.path, one_point=True).scenario
    engine.run_replicate(
        early, job.seed, 0, snapshots=True, save=(5, lambda state: state.write(tmp_path / "early.state"))
    )
    text = JOB.format(span=SPAN, at=AT) + "replicates: 1\nstart: {state: early.state}\n"
    later = real_job(tmp_path, text=text)
    assert make_plan(later, 3).points[2].point_id != make_plan(job, 3).points[2].point_id
    assert run_sweep(later, tmp_path / "out", quiet=True).exit_code == 0
    with xr.open_dataset(tmp_path / "out" / "results.nc", decode_timedelta=False) as ds:
        assert f"{int(ds.digest[2, 0]):016x}" == whole.digest
    with pytest.raises(ConfigError, match=r"branch_at: 4ms is before start\.state, which is at 5ms"):
        real_job(tmp_path, "sweep.branch_at=4ms", text=text)


# -- identity and results ------------------------------------------------------------------------------


def test_identity_includes_the_branch_and_the_policy_before_it(tmp_path: Path) -> None:
    plain = make_job(tmp_path, sweep=GRID.replace("  branch_at: 5s\n", ""))
    ids = {
        "plain": make_plan(plain, 1).ids,
        "5s": make_plan(make_job(tmp_path, sweep=GRID), 1).ids,
        "6s": make_plan(make_job(tmp_path, sweep=GRID.replace("5s", "6s")), 1).ids,
        "policy": make_plan(make_job(tmp_path, "policy=v1@45", sweep=GRID), 1).ids,
    }
    assert len({i for of in ids.values() for i in of.tolist()}) == 4 * 5
    kept = GRID.replace("  baseline", "  keep_states: true\n  baseline")
    assert make_plan(make_job(tmp_path, sweep=kept), 1).ids.tolist() == ids["5s"].tolist()


def test_a_key_can_be_fixed_before_the_branch_and_swept_after_it(tmp_path: Path) -> None:
    sweep = (
        "policy: {slab_shrink: false}\nsweep: {branch_at: 5s, grid: {policy.slab_shrink: [false, true]}}\n"
    )
    path = tmp_path / "job.yaml"
    path.write_text(f"duration: 12s\n{sweep}")
    plan = make_plan(load_config(path), 1)
    assert [plan.scenario(i).policy.slab_shrink for i in range(2)] == [False, True]
    assert not plan.scenario(1).branch.policy.slab_shrink
    path.write_text(path.read_text().replace("branch_at: 5s, ", ""))
    with pytest.raises(ConfigError, match="also fixed on line"):
        load_config(path)


def test_results_and_report_name_the_branch(tmp_path: Path) -> None:
    job, out = make_job(tmp_path, sweep=GRID), tmp_path / "out"
    run_sweep(job, out, engine=ENGINE, quiet=True)
    assert "each replicate aged once up to 5s" in (out / "logs" / "sweep.log").read_text()
    with xr.open_dataset(out / "results.nc", decode_timedelta=False) as ds:
        assert ds.attrs["branch_at_s"] == 5
        rows = dict(provenance(read_exhibit(out), ds))
    assert "from 5.0 s on" in rows["branch"]
    run_sweep(make_job(tmp_path), tmp_path / "plain", engine=ENGINE, quiet=True)
    with xr.open_dataset(tmp_path / "plain" / "results.nc", decode_timedelta=False) as ds:
        assert "branch_at_s" not in ds.attrs


# -- what may be swept ---------------------------------------------------------------------------------


@pytest.mark.parametrize("switch", SHAPING_SWITCHES)
def test_a_switch_that_shapes_the_machine_is_refused_with_its_place_and_reason(
    switch: str, tmp_path: Path
) -> None:
    sweep = f"sweep:\n  branch_at: 5s\n  grid:\n    policy.{switch}: [false, true]\n"
    job = make_job(tmp_path, sweep=sweep)
    with pytest.raises(ConfigError) as error:
        make_plan(job, 1)
    text = str(error.value)
    assert re.search(rf"job\.yaml:10:\d+: error: sweep\.grid\.policy\.{switch}", text)
    assert SHAPING_SWITCHES[switch] in text
    with pytest.raises(ConfigError, match="branch_at"):
        validate_branch(job)
    answer = CliRunner().invoke(app, ["validate", str(job.path)])
    assert answer.exit_code == 2
    assert switch in answer.output


@pytest.mark.parametrize(
    ("sweep", "found"),
    [
        (
            "{branch_at: 5s, grid: {policy: [v1@45, mainline]}}",
            r"grid\.policy: gives policy\.superpageblocks",
        ),
        ("{branch_at: 5s, grid: {machine.memory: [1GiB, 2GiB]}}", r"machine.* only policy and duration can"),
        ("{branch_at: 5s, grid: {duration: [4s, 6s]}}", "4s ends before the branch at 5s"),
        ("{branch_at: 5s, baseline: {policy: mainline}}", r"sweep\.baseline\.policy: gives policy\.superp"),
        ("{branch_at: 5s, points: [{policy: v2}, {policy: mainline}]}", r"policy='?mainline'? gives policy"),
        ("{branch_at: 13s, grid: {policy: [v2]}}", "13s is after the end of the run"),
        ("{branch_at: 5s, seeding: independent, grid: {policy: [v2]}}", "no part to share"),
        ("{branch_at: 0s, grid: {policy: [v2]}}", "whole number of milliseconds"),
    ],
)
def test_what_cannot_be_branched_is_told(sweep: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=found):
        make_plan(make_job(tmp_path, sweep=f"sweep: {sweep}\n"), 1)


def test_duration_can_be_swept_after_the_branch(tmp_path: Path) -> None:
    job = make_job(tmp_path, sweep="sweep: {branch_at: 5s, grid: {duration: [5s, 8s]}}\n")
    assert run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True).n_ok == 6


# -- each replicate once -------------------------------------------------------------------------------


@pytest.fixture
def aged(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often the fake engine has aged each replicate."""
    seen: Counter[int] = Counter()
    original = fake_engine.run_replicate

    def counting(scenario: Any, seed: int, replicate: int, **options: Any) -> Any:
        seen[replicate] += "save" in options
        return original(scenario, seed, replicate, **options)

    monkeypatch.setattr(fake_engine, "run_replicate", counting)
    return seen


@pytest.mark.parametrize("kind", ["serial", "threads"])
def test_each_replicate_is_aged_once(kind: str, aged: Counter[int], tmp_path: Path) -> None:
    job = make_job(tmp_path, f"executor.kind={kind}", "executor.workers=3", sweep=GRID, replicates=5)
    assert run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True).n_ok == 25
    assert aged == {replicate: 1 for replicate in range(5)}


def test_states_are_kept_if_wanted_and_used_for_new_points(aged: Counter[int], tmp_path: Path) -> None:
    kept = GRID.replace("  baseline", "  keep_states: true\n  baseline")
    out = tmp_path / "out"
    run_sweep(make_job(tmp_path, sweep=kept), out, engine=ENGINE, quiet=True)
    assert len(states(out)) == 3
    grown = kept.replace("[512, 4096]", "[512, 1024, 4096]")
    assert run_sweep(make_job(tmp_path, sweep=grown), out, engine=ENGINE, quiet=True).n_new == 6
    assert aged == {0: 1, 1: 1, 2: 1}
    run_sweep(make_job(tmp_path, sweep=GRID), out, engine=ENGINE, quiet=True)
    assert not (out / "states").exists()


def test_what_was_aged_before_an_interruption_is_not_aged_again(
    aged: Counter[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPBFAST_FAKE_SLEEP", "0.2")
    job, out = make_job(tmp_path, sweep=GRID), tmp_path / "out"
    first = run_sweep(job, out, engine=ENGINE, quiet=True, time_limit_s=1.2)
    monkeypatch.setenv("SPBFAST_FAKE_SLEEP", "0")
    assert first.n_missing
    assert states(out)
    last = run_sweep(job, out, engine=ENGINE, quiet=True)
    assert not last.n_missing
    assert set(aged) == {0, 1, 2}
    assert sum(aged.values()) <= 4  # the one that was being aged when the time was up goes again
    assert not (out / "states").exists()


def test_a_damaged_state_is_made_anew(tmp_path: Path) -> None:
    job, out = real_job(tmp_path, "sweep.keep_states=true"), tmp_path / "out"
    assert run_sweep(job, out, quiet=True).exit_code == 0
    state, before = states(out)[0], results_digest(out)
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2])
    for shard in Store(out).shard_paths():
        shard.unlink()
    assert run_sweep(job, out, quiet=True).exit_code == 0
    assert results_digest(out) == before
    assert state.read_bytes() == whole


def test_a_shared_part_that_fails_is_tried_once_and_fails_every_point(
    aged: Counter[int], tmp_path: Path
) -> None:
    sweep = GRID.replace("    policy.slab_shrink_target_objs: [512, 4096]\n", "")
    job = make_job(tmp_path, "policy.slab_shrink_target_objs=666", sweep=sweep)
    out = tmp_path / "out"
    for replicate in range(3):  # a sweep whose first three runs fail alike ends, and can be continued
        done = run_sweep(job, out, engine=ENGINE, quiet=True)
        assert done.n_failed == 3 * (replicate + 1)
        assert aged == dict.fromkeys(range(replicate + 1), 1)
    assert done.exit_code == 3
    account = json.loads(Store(out).failure_paths()[0].read_text())
    assert account["error"] == "SimulationError"
    run_sweep(job, out, engine=ENGINE, quiet=True, retry_failed=True)
    assert aged[0] == 2


def test_of_many_that_need_a_state_one_makes_it(tmp_path: Path) -> None:
    made: list[int] = []
    path = tmp_path / "states" / "x-r0.state"

    def make() -> bool:
        made.append(1)
        time.sleep(0.3)
        path.write_text("state")
        return True

    threads = [threading.Thread(target=make_once, args=(path, make, lambda: False)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_waiting_for_a_state_ends_when_asked_and_failures_are_shared(tmp_path: Path) -> None:
    path = tmp_path / "states" / "x-r0.state"
    assert make_once(path, lambda: True, lambda: True) is False

    def fail() -> bool:
        raise SimulationError(5, "no page left", 42, 7)

    for make in (fail, pytest.fail):
        with pytest.raises(SimulationError, match=r"no page left \(code 5, step 42, seed 7\)"):
            make_once(path, make, lambda: False)


def test_workers_age_different_machines_first() -> None:
    cells = [Cell(point, replicate) for replicate in range(5) for point in range(3)]
    order = ageing_order(cells, 2)
    assert [(len(group), group[0].replicate) for group in order[:4]] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert sorted(cell for group in order for cell in group) == sorted(cells)
    assert ageing_order(cells, 2, turn=7)[0][0].replicate == 2
    assert ageing_order([], 2) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "victim"),
    [
        ("threads", "driver"),
        ("processes", "both"),
        pytest.param("processes", "driver", marks=pytest.mark.long),
        pytest.param("processes", "worker", marks=pytest.mark.long),
    ],
    ids=str,
)
def test_killed_at_a_random_time(kind: str, victim: str, tmp_path: Path) -> None:
    (tmp_path / "reference").mkdir()
    (tmp_path / "killed").mkdir()
    expected = reference(tmp_path / "reference", GRID)
    rng = random.Random(f"branch {kind} {victim}")
    found = one_round(tmp_path / "killed", kind, victim, rng, most_kills=2, sweep=GRID)
    assert found.digest == expected
    assert not (tmp_path / "killed" / "out" / "states").exists()


# -- the estimate --------------------------------------------------------------------------------------


def test_the_dry_run_counts_what_is_aged(tmp_path: Path) -> None:
    job = real_job(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    found = estimate(job, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before
    assert (found.runs, found.aged, found.branch_at_s) == (8, 2, int(AT.removesuffix("ms")) / 1000)
    assert found.run is not None
    assert found.run.age_seconds > 0
    assert found.run.state_nbytes > 10_000
    assert found.wall_s == pytest.approx(8 * found.run.seconds + 2 * found.run.age_seconds)
    assert f"2 replicates to age once up to {AT}" in "\n".join(estimate_lines(found))
    run_sweep(job, tmp_path / "out", quiet=True)
    assert estimate(job, tmp_path / "out").aged == 0


def test_a_run_from_a_state_costs_what_is_left_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = real_job(tmp_path)
    early = load_config(job.path, one_point=True).scenario
    engine.run_replicate(
        early, job.seed, 0, snapshots=True, save=(10, lambda state: state.write(tmp_path / "early.state"))
    )
    text = JOB.format(span="1000s", at=AT).replace(f"  branch_at: {AT}\n", "")
    job = real_job(tmp_path, text=text + "replicates: 1\nstart: {state: early.state}\n")
    original = engine.run_replicate
    asked = []

    def clocked(scenario: Any, seed: int, replicate: int, **options: Any) -> Any:
        asked.append(scenario.duration)
        short = scenario.model_copy(update={"duration": 12 * 10**6})
        result = original(short, seed, replicate, **options)
        wall = 2.0 + 0.5 * (scenario.duration / 1e9 - 0.01)
        return engine.ReplicateResult(**{**vars(result), "boot_s": 2.0, "wall_s": wall})

    monkeypatch.setattr(engine, "run_replicate", clocked)
    found = estimate(job, tmp_path / "out")
    assert found.run is not None
    assert found.run.seconds == pytest.approx(2.0 + 0.5 * (1000 - 0.01), rel=1e-6)
    assert max(asked) < 200 * 10**9


def test_the_page_names_the_keys() -> None:
    page = (DOCS / "sweeps.md").read_text(encoding="utf-8")
    for name in ("branch_at", "keep_states"):
        assert name in page
