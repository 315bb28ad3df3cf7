"""The parts of a sweep one by one: design, identity, batches, alignment, lock, progress."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spbfast.config import load_config
from spbfast.sweep.points.design import build_design
from spbfast.sweep.points.identity import canonical_json, point_identity
from spbfast.sweep.points.params import coord_name
from spbfast.sweep.points.plan import Cell, auto_batch_size, make_plan
from spbfast.sweep.run.progress import Lines
from spbfast.sweep.store.atomic import atomic_file
from spbfast.sweep.store.manifest import diff_trees
from spbfast.sweep.store.shards import CellResult, read_shard, union_coords, write_shard
from tests.sweep_tools import make_job, write_job

pytestmark = pytest.mark.shell


def test_design_is_the_baseline_then_the_grid_in_file_order(tmp_path: Path) -> None:
    points = list(build_design(make_job(tmp_path)))
    assert [p.baseline for p in points] == [True, False, False, False, False]
    assert [tuple(p.values.values()) for p in points[1:]] == [
        ("50ms", 512),
        ("50ms", 4096),
        ("500ms", 512),
        ("500ms", 4096),
    ]
    one = load_config(write_job(tmp_path), one_point=True)
    assert [p.values for p in build_design(one)] == [{}]


def test_names_of_coordinates() -> None:
    assert coord_name("policy.slab_shrink_throttle") == "policy_slab_shrink_throttle"
    assert coord_name("actors[2].count") == "actors_2_count"
    assert coord_name("status") == "param_status"
    assert coord_name("slab.pages") == "param_slab_pages"


def test_identity_is_content(tmp_path: Path) -> None:
    tree = {"b": 1, "a": [True, None, 1.5]}
    assert canonical_json(tree) == '{"a":[true,null,1.5],"b":1}'
    assert point_identity(tree, 1) == point_identity(dict(reversed(tree.items())), 1)
    assert point_identity(tree, 1) != point_identity(tree, 2)
    # Fixed for ever: results on disk are found by it.
    assert f"{point_identity({'x': 1}, 1):016x}" == "f67d0ce8ff2990d6"
    a = make_plan(make_job(tmp_path), 1)
    b = make_plan(make_job(tmp_path, "executor.batch=3", seed=9, replicates=1), 1)
    assert [p.point_id for p in a.points] == [p.point_id for p in b.points]


def test_equal_points_run_once(tmp_path: Path) -> None:
    sweep = (
        "sweep:\n  baseline: {policy.slab_shrink_target_objs: 512}\n"
        "  grid: {policy.slab_shrink_target_objs: [512, 1024]}\n"
    )
    with pytest.warns(UserWarning, match="1 of 3 points"):
        plan = make_plan(make_job(tmp_path, sweep=sweep), 1)
    assert [(p.baseline, p.in_grid) for p in plan.points] == [(True, True), (False, True)]


def test_presets_are_named_where_they_are_swept(tmp_path: Path) -> None:
    sweep = "sweep: {baseline: {policy.preset: mainline}, grid: {policy.slab_shrink_target_objs: [512]}}\n"
    plan = make_plan(make_job(tmp_path, sweep=sweep), 1)
    found = {p.path: p.values for p in plan.params}
    assert found["policy.preset"] == ("mainline", "v1@30")


def test_cells_go_replicate_by_replicate(tmp_path: Path) -> None:
    plan = make_plan(make_job(tmp_path), 1)
    first = plan.cells()[: len(plan.points)]
    assert {c.replicate for c in first} == {0}
    assert len(plan.cells()) == 15
    assert plan.cells()[len(first)].replicate == 1
    assert Cell.parse(str(first[0])) == first[0]
    task = plan.task(first[0])
    assert (task.seed, task.cell.replicate) == (7, 0)


@pytest.mark.parametrize(
    ("cost", "remaining", "threads", "size"),
    [(20.0, 100, 2, 1), (1.0, 1000, 2, 5), (0.001, 10_000, 2, 256), (0.001, 10, 2, 3), (0.0, 1, 4, 1)],
)
def test_batches_take_seconds_but_leave_no_thread_idle(
    cost: float, remaining: int, threads: int, size: int
) -> None:
    assert auto_batch_size(cost, remaining, threads) == size


def test_labels_are_joined_in_one_order() -> None:
    a = {"time": np.array([0.0, 1.0]), "counter": np.array(["x", "b"])}
    b = {"time": np.array([0.0, 0.5]), "counter": np.array(["x", "a"])}
    for parts in ([a, b], [b, a]):
        joined = union_coords(parts)
        assert joined["time"].tolist() == [0.0, 0.5, 1.0]
        assert joined["counter"].tolist() == ["a", "b", "x"]
    assert union_coords([a, a])["counter"].tolist() == ["x", "b"]


def test_a_shard_holds_cells_of_different_shape(tmp_path: Path) -> None:
    def cell(replicate: int, times: list[float], counters: list[str]) -> CellResult:
        values = np.arange(len(times) * len(counters)).reshape(len(counters), len(times)) + 100 * replicate
        data = {"vmstat": values, "spb_tainted": np.arange(len(times))}
        coords = {"time": np.array(times), "counter": np.array(counters)}
        return CellResult(Cell(2**63 + 5, replicate), 0, {"seed": 2**64 - 1, "events": 3}, data, coords)

    write_shard(tmp_path / "s.nc", [cell(0, [0, 1, 2], ["x", "b"]), cell(1, [0, 2], ["b"])])
    shard = read_shard(tmp_path / "s.nc")
    assert shard.cells == [Cell(2**63 + 5, 0), Cell(2**63 + 5, 1)]
    assert shard.facts["seed"].tolist() == [2**64 - 1] * 2
    assert shard.coords["counter"].tolist() == ["b", "x"]
    assert shard.data["vmstat"].tolist() == [[[3, 4, 5], [0, 1, 2]], [[100, -1, 101], [-1, -1, -1]]]
    assert shard.data["spb_tainted"].tolist() == [[0, 1, 2], [0, -1, 1]]


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    def write_half() -> None:
        with atomic_file(tmp_path / "a.txt") as tmp:
            tmp.write_text("half")
            raise KeyError("stop")

    with pytest.raises(KeyError):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_lines_are_rare_and_end_with_all() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    for done in range(0, 1001):
        lines.update(done, 1000, 2, 10.0, 5e6)
    text = stream.getvalue().splitlines()
    assert len(text) <= 2
    assert text[-1].startswith("1000 of 1000 runs (100 %), 2 failed")
    assert text[-1].endswith("5.0 M page events/s")


def test_differences_name_the_leaf() -> None:
    old, new = {"a": {"b": 1, "c": 2}, "d": 1}, {"a": {"b": 1, "c": 3}, "e": [1]}
    assert diff_trees(old, new) == ["a.c: 2 there, 3 now", "d: 1 there, null now", "e: null there, [1] now"]


def test_no_logger_of_dask_writes_below_critical_during_a_sweep() -> None:
    """Some have a level of their own, and once wrote tracebacks beside the progress line."""
    import distributed  # noqa: F401

    from spbfast.sweep.pools.local import silence_dask

    names = ("distributed", "distributed.client", "distributed.nanny", "tornado.application", "asyncio")
    before = {name: logging.getLogger(name).level for name in names}
    assert before["distributed.client"] != logging.NOTSET
    assert before["tornado.application"] != logging.NOTSET
    with silence_dask():
        assert [name for name in names if logging.getLogger(name).isEnabledFor(logging.ERROR)] == []
    assert {name: logging.getLogger(name).level for name in names} == before


DYING_WORKER = """
import asyncio, gc, os, time
from spbfast.sweep.pools.local import dask_settings

async def close(nanny):
    await nanny.rpc.close()

if __name__ == "__main__":
    with dask_settings(dashboard=False):
        from distributed import LocalCluster
        with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
            nanny = cluster.workers[0]
            asyncio.run_coroutine_threadsafe(close(nanny), cluster.loop.asyncio_loop).result(10)
            os.kill(nanny.pid, 9)
            while nanny.is_alive():
                time.sleep(0.1)
            time.sleep(1)
    gc.collect()
"""


@pytest.mark.slow
def test_a_worker_that_dies_as_its_nanny_closes_writes_nothing(tmp_path: Path) -> None:
    """The nanny fails in a task of the event loop that nobody awaits; the loop's logger tells of such."""
    program = tmp_path / "dying.py"
    program.write_text(DYING_WORKER)
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
