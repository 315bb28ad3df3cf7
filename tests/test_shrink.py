"""The shrink worker: golden traces, thresholds, ramp, throttle and single flight."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spbfast.constants import NS_PER_TICK
from spbfast.jit.decorators import INTERPRETED, entry_kernel
from spbfast.model.state.shrink_layout import KIND_STANDIN, R, W, make_shrink
from spbfast.model.state.slab_layout import no_slab
from spbfast.model.state.standin_layout import SCAN_ALL, SCAN_NONE, SCAN_SHARE, make_standins
from spbfast.model.workers.shrink import (
    NO_WORKQUEUE,
    PENDING,
    QUEUED,
    THROTTLED,
    begin_shrink,
    end_shrink,
    queue_shrink,
)
from spbfast.verify.golden import load_golden
from spbfast.verify.replay_shrink import replay_shrink

GOLDEN = sorted((Path(__file__).parent / "golden").glob("shrink_*.npz"))
LONG = {"shrink_p15_many_memcgs_one_big", "shrink_p20_random0", "shrink_p21_random1", "shrink_p22_random_big"}


@entry_kernel
def run_once(s, slab, st, now_ns, throttle_ns, target, prio):
    got = queue_shrink(s, 0, now_ns, throttle_ns)
    begin_shrink(s, slab, st, 0, target, prio, 0)
    end_shrink(s, 0)
    return got


@entry_kernel
def queue_only(s, now_ns, throttle_ns):
    return queue_shrink(s, 0, now_ns, throttle_ns)


@entry_kernel
def begin_only(s, slab, st):
    return begin_shrink(s, slab, st, 0, 2048, 12, 0)


@entry_kernel
def end_only(s):
    return end_shrink(s, 0)


def machine(objects, *, batch=1024, seeks=2, rule=SCAN_ALL, share=(1, 1), memcgs=1, workqueue=1, rows=64):
    """One memcg-aware shrinker whose caches hold `objects` in the memcgs in turn."""
    objects = np.atleast_1d(objects)
    table = np.array([[1, 1, batch, seeks, KIND_STANDIN]])
    s = make_shrink(table, np.ones(memcgs), np.array([workqueue]), nr_runs=rows, nr_calls=rows)
    st = make_standins(np.array([[*share, 100, 1, rule]]), memcgs, np.zeros(memcgs, bool), 0)
    st.objects[: objects.size] = objects
    s.present[: objects.size] = objects > 0
    return s, no_slab(), st


def test_all_golden_traces_are_here():
    assert len(GOLDEN) == 24


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_golden(path):
    if INTERPRETED and path.stem in LONG:
        pytest.skip("long when interpreted; the other traces meet every rule")
    assert replay_shrink(load_golden(path)) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("result", "event 2 "),
        ("run_passes", "run 2: "),
        ("call_delta", "call 2: "),
        ("end_backlog", "end_backlog, shrinker 0, memcg 0, node 0: "),
    ],
)
def test_a_difference_is_named(name, text):
    golden = load_golden(next(p for p in GOLDEN if "p11" in p.stem))
    array = golden[name].copy()
    array.flat[0 if name == "end_backlog" else 2] += 1
    wrong = replace(golden, arrays={**golden.arrays, name: array})
    found = replay_shrink(wrong)[0]
    assert found.startswith(text)
    assert "expected" in found
    assert replay_shrink(golden) == []


@pytest.mark.parametrize(
    ("batch", "objects", "scans"),
    [(1024, 2_097_151, 0), (1024, 2_097_152, 1024), (0, 262_143, 0), (0, 262_144, 128)],
)
def test_cold_run_scans_only_from_its_batch_on(batch, objects, scans):
    s, slab, st = machine(objects, batch=batch)
    run_once(s, slab, st, 0, 0, 2048, 12)
    assert s.runs[0, 5] == s.calls[0, 8] + s.calls[1:, 8].sum()
    assert s.calls[0, 8] == scans


def test_backlog_lets_half_the_threshold_through_after_4096_runs():
    for objects, scanned in ((1_048_575, 0), (1_048_576, 1024)):
        s, slab, st = machine(objects, rule=SCAN_NONE, rows=0)
        for _ in range(4096):
            run_once(s, slab, st, 0, 0, 2048, 12)
        assert s.run[R.SCANNED] == 0
        run_once(s, slab, st, 0, 0, 2048, 12)
        assert s.run[R.SCANNED] == scanned
        assert s.backlog[0] <= 2 * objects


def test_no_progress_ends_the_run_at_the_start_priority():
    s, slab, st = machine(9_000_000, rule=SCAN_NONE)
    run_once(s, slab, st, 0, 0, 2048, 12)
    assert s.run[R.PASSES] == 1
    assert s.run[R.LAST_PRIO] == 12
    assert s.run[R.SCANNED] > 0


def test_poor_yield_of_a_big_cache_makes_small_ones_shrink():
    memcgs = 20
    small = np.full(memcgs, 3000)
    s, slab, st = machine(small, memcgs=memcgs, batch=128)
    run_once(s, slab, st, 0, 0, 2048, 12)
    assert s.run[R.FREED] == 0
    with_big = small.copy()
    with_big[0] = 3_000_000
    s, slab, st = machine(with_big, memcgs=memcgs, batch=128, rule=SCAN_SHARE, share=(1, 1000))
    run_once(s, slab, st, 0, 0, 2048, 12)
    assert s.run[R.PASSES] > 3
    assert (st.objects[1:] < 3000).any()


def test_start_priority_and_target_are_parameters():
    s, slab, st = machine(100_000)
    run_once(s, slab, st, 0, 0, 2048, 4)
    assert s.run[R.LAST_PRIO] == 4
    assert s.run[R.FREED] >= 2048
    s, slab, st = machine(100_000)
    run_once(s, slab, st, 0, 0, 100_000, 4)
    assert s.run[R.PASSES] > 1


def test_throttle_counts_ticks_from_the_last_stamp():
    s, *_ = machine(10)
    gate = 100 * NS_PER_TICK
    assert queue_only(s, 0, gate) == QUEUED
    assert queue_only(s, gate - 1, gate) == THROTTLED
    # Exactly one gate later is allowed; the work is pending still, but the stamp moves.
    assert queue_only(s, gate, gate) == PENDING
    assert queue_only(s, 2 * gate - NS_PER_TICK, gate) == THROTTLED
    assert queue_only(s, 2 * gate, gate) == PENDING
    assert s.work[0, [W.QUEUED, W.THROTTLED, W.ALREADY_PENDING]].tolist() == [1, 2, 2]


def test_part_of_a_tick_is_rounded_up():
    s, *_ = machine(10)
    assert queue_only(s, 0, NS_PER_TICK // 2) == QUEUED
    assert queue_only(s, NS_PER_TICK - 1, NS_PER_TICK // 2) == THROTTLED
    assert queue_only(s, NS_PER_TICK, NS_PER_TICK // 2) == PENDING


def test_running_is_not_pending():
    s, slab, st = machine(10)
    assert not begin_only(s, slab, st)
    assert queue_only(s, 0, 0) == QUEUED
    assert begin_only(s, slab, st)
    assert queue_only(s, 1, 0) == QUEUED
    assert not begin_only(s, slab, st)
    assert end_only(s)
    assert not end_only(s)
    assert begin_only(s, slab, st)
    assert s.work[0, W.RAN] == 2


def test_node_without_workqueue_does_nothing():
    s, slab, st = machine(5_000_000, workqueue=0)
    assert run_once(s, slab, st, 0, 0, 2048, 12) == NO_WORKQUEUE
    assert st.objects[0] == 5_000_000
    assert s.work[0, W.RAN] == 0


def test_full_records_are_counted_and_change_nothing():
    full, *rest = machine(3_000_000, rows=0)
    kept, *others = machine(3_000_000, rows=64)
    for _ in range(3):
        run_once(full, *rest, 0, 0, 2048, 12)
        run_once(kept, *others, 0, 0, 2048, 12)
    assert full.run[R.DROPPED] > 0
    assert kept.run[R.DROPPED] == 0
    assert full.run[R.FREED] == kept.run[R.FREED]
    assert kept.run[R.NR_RUNS] == 3
