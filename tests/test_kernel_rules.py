"""Rules of mainline that are keys: labels that compaction looks at, who wakes kswapd, dentries in use."""

from __future__ import annotations

import numpy as np
import pytest

from spbfast.constants import PB_PAGES, Cls, Op
from spbfast.model.primitives.fifo_reading import entries_of
from spbfast.model.requests.direct_compaction import ASYNC, FULL, LIGHT, SUCCEEDED
from spbfast.model.state.node import NEVER, N, Now, Wk
from spbfast.model.state.slab_layout import DENTRIES, REFERENCED
from tests.demand_tools import plan_for
from tests.machine_tools import MS, USER, M, R, U, Verb, bare

STILL = {"workers__pinned_share": 0.0, "workers__busy_share": 0.0, "pcp__enabled": False}


# -- labels ------------------------------------------------------------------------------------------


def behind_another_label(**values):
    """Movable pages that lie in pageblocks labelled unmovable only, with room for them elsewhere."""
    machine = bare("mainline", reclaim__compact_rate=5000, **STILL, **values)
    assert machine.fill(0, 40, mt=M) == 40
    z = machine.world.zone
    for pb in {int(pfn) >> 9 for pfn in machine.slots(0, 40)}:
        z.pb.label[pb] = U
    machine.world.node.now[Now.NS] = 1000 * MS
    return machine


@pytest.mark.parametrize("priority", [ASYNC, LIGHT, FULL])
@pytest.mark.parametrize("key", [False, True])
def test_synchronous_compaction_takes_pageblocks_of_any_label(key, priority):
    machine = behind_another_label(reclaim__compact_any_label=key)
    before = machine.slots(0, 40).copy()
    result = machine.do(Verb.COMPACT, priority)
    is_seen = key and priority != ASYNC
    assert (result == SUCCEEDED) is is_seen
    assert (machine.slots(0, 40) != before).all() == is_seen
    assert (machine.vm("compact_migrate_scanned") % PB_PAGES) == 0


@pytest.mark.parametrize("key", [False, True])
def test_background_compaction_takes_pageblocks_of_any_label(key):
    machine = bare("mainline", reclaim__compact_any_label=key, reclaim__kcompactd=True, **STILL)
    node = machine.world.node
    node.conf[[N.WMARK_MIN, N.WMARK_LOW, N.WMARK_HIGH]] = 0
    nr = machine.fill(0, 16_300, order=1)
    for slot in range(0, nr, 2):
        machine.row(Op.FREE, slot)
    # All pageblocks but the first full one's neighbours bear another label; no block of order 9 is free.
    labels = machine.world.zone.pb.label
    moved = {int(pfn) >> 9 for pfn in machine.slots(1, 4000) if pfn >= 0}
    labels[sorted(moved)] = U
    node.now[Now.KCOMPACTD_ORDER], node.now[Now.KCOMPACTD_LEFT] = 9, -1
    node.due[Wk.KCOMPACTD] = node.now[Now.NS]
    assert moved
    before = machine.slots(1, 4000).copy()
    machine.work(int(node.now[Now.NS]) + 1)
    assert bool((machine.slots(1, 4000) != before).any()) is key


# -- who wakes kswapd ---------------------------------------------------------------------------------


@pytest.mark.compiled
@pytest.mark.parametrize("key", [False, True])
def test_the_first_attempt_of_slub_wakes_kswapd_only_by_the_key(key):
    """An order-3 slab that cannot be had, single pages that can: nobody else asks for anything."""
    policy = {"preset": "mainline", "watermark_boost": False}
    machine = bare(policy, slab__first_attempt_wakes_kswapd=key, reclaim__kswapd_wake="high", **STILL)
    node = machine.world.node
    node.conf[[N.WMARK_MIN, N.WMARK_LOW, N.WMARK_HIGH]] = 0
    nr = machine.fill(0, 16_300, order=1)
    assert machine.free < 8
    for slot in range(0, nr, 4):
        machine.row(Op.FREE, slot)
    node.due[Wk.KSWAPD] = NEVER
    node.conf[N.WMARK_HIGH] = machine.free + 1000
    assert machine.row(Op.SLAB_GROW, 0, 100, mt=R) == 0
    assert machine.vm("slab_order_fallback") > 0
    assert bool(node.due[Wk.KSWAPD] != NEVER) is key
    machine.check()


@pytest.mark.compiled
@pytest.mark.parametrize("key", [False, True])
@pytest.mark.parametrize("op", [Op.THP, Op.ALLOC])
def test_a_huge_fault_wakes_kswapd_only_by_the_key(key, op):
    """No pageblock is free: order 9 fails, as a fault and as a request that may fall back."""
    policy = {"preset": "mainline", "watermark_boost": False}
    machine = bare(policy, reclaim__huge_faults_wake_kswapd=key, reclaim__compact_candidates=0, **STILL)
    node = machine.world.node
    node.conf[[N.WMARK_MIN, N.WMARK_LOW, N.WMARK_HIGH]] = 0
    nr = machine.fill(0, 16_000, order=1)
    for slot in range(0, nr, 4):
        machine.row(Op.FREE, slot)
    node.due[Wk.KSWAPD] = NEVER
    node.conf[N.WMARK_HIGH] = machine.free + 1000
    seen = machine.vm("pageoutrun")
    if op == Op.THP:
        machine.row(Op.THP, 16_384 - 512, mt=M)
        assert machine.vm("thp_fault_fallback") == 1
    else:
        machine.row(Op.ALLOC, 16_384 - 512, order=9, mt=M, cls=USER | int(Cls.NORETRY))
    assert machine.vm("pageoutrun") - seen == int(key)


# -- dentries and their directories -------------------------------------------------------------------


def references(run, inodes=4000):
    """Of the dentries of one instance, in order: whether each is referenced."""
    machine = bare(
        slab__dentries_per_directory=run,
        slab__referenced_again=0.5,
        slab__dentries_per_inode=1.0,
        slab__age_correlation=1.0,
    )
    assert machine.row(Op.SLAB_GROW, 0, inodes, mt=R) == 0
    slab = machine.world.slab
    return entries_of(slab.fifo, DENTRIES) & REFERENCED


def test_dentries_of_a_directory_are_referenced_together():
    alone, together = references(1), references(100)
    assert set(together.reshape(-1, 100).sum(axis=1).tolist()) == {0, 100}
    for found in (alone, together):
        assert 0.3 < found.mean() < 0.7
    changes = np.abs(np.diff(alone)).mean()
    assert 0.4 < changes < 0.6, "each by itself"


# -- shares of (superblock, memcg) --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["slab_growth", "reclaimable_statics"])
def test_objects_spread_over_superblocks_by_their_skew(kind):
    """Known answer: two superblocks at skew 1 have two thirds and one third of every memcg's objects."""
    values = {"kind": kind, "memcg_skew": 0.0, "superblock_skew": 1.0}
    values |= {"total": "1MB"} if kind == "reclaimable_statics" else {}
    plan = plan_for(values)
    table = np.diff(np.concatenate([[0], plan.actors.table[:6]])) / 2**32
    assert np.allclose(table, [2 / 9, 1 / 9] * 3, atol=1e-6)
