"""Recorded requests become queued work, and queued work runs when it is due: gates, order and costs."""

from __future__ import annotations

import pytest

from spbfast.constants import C, Op, Pc, Req
from spbfast.model.state.node import NEVER, Df, N, Now, Wk
from spbfast.model.state.shrink_layout import W
from spbfast.model.state.vmstat import V
from tests.machine_tools import MS, M, R, U, bare

TRIGGERS = {
    "below_reserve": Req.SHRINK_FALLTHROUGH,
    "would_taint": Req.SHRINK_CLAIM,
    "below_high_water": Req.SHRINK_HIGH_WATER,
    "after_evacuation": Req.SHRINK_AFTER_EVACUATION,
}


@pytest.mark.parametrize("name", TRIGGERS)
def test_each_trigger_has_a_switch_and_counters(name):
    everything = int(sum(TRIGGERS.values()))
    machine = bare({"preset": "v1@45", "slab_shrink_triggers": {n: n == name for n in TRIGGERS}})
    machine.ask(everything)
    for other in TRIGGERS:
        assert machine.vm(f"spb_slab_shrink_asked_{other}") == (other == name)
        assert machine.vm(f"spb_slab_shrink_queued_{other}") == (other == name)
    assert machine.vm("spb_slab_shrink_queued") == 1


def test_shrink_is_single_flight_and_throttled():
    machine = bare({"preset": "v1@30", "slab_shrink_throttle": "100ms"})
    bit = Req.SHRINK_FALLTHROUGH
    machine.ask(bit)
    assert machine.world.node.due[Wk.SHRINK] == machine.world.node.conf[N.WQ_DELAY]
    machine.ask(bit)
    assert machine.vm("spb_slab_shrink_throttled") == 1
    machine.work(99 * MS)
    assert machine.vm("spb_slab_shrink_ran") == 1
    machine.ask(bit)
    assert machine.vm("spb_slab_shrink_throttled") == 2
    machine.work(100 * MS)
    machine.ask(bit)
    assert machine.vm("spb_slab_shrink_queued") == 2


def test_without_throttle_a_pending_shrink_is_not_queued_again():
    machine = bare({"preset": "v1@45", "slab_shrink_throttle": "0s"})
    for _ in range(3):
        machine.ask(Req.SHRINK_CLAIM)
    assert machine.vm("spb_slab_shrink_queued") == 1
    assert machine.vm("spb_slab_shrink_pending") == 2


def test_a_shrink_queued_while_one_runs_begins_at_its_end():
    machine = bare({"preset": "v1@45", "slab_shrink_throttle": "0s"}, workers__shrink_count_cost="10ms")
    node, work = machine.world.node, machine.world.shrink.work[0]
    assert machine.row(Op.SLAB_GROW, 0, 500, mt=R) == 0
    machine.ask(Req.SHRINK_CLAIM)
    machine.work(MS)
    assert work[W.RUNNING] == 1
    end = int(node.due[Wk.SHRINK_END])
    assert end > MS
    machine.ask(Req.SHRINK_CLAIM)
    assert node.due[Wk.SHRINK] == NEVER
    machine.work(end - 1)
    assert machine.vm("spb_slab_shrink_ran") == 1
    machine.work(end)
    assert machine.vm("spb_slab_shrink_ran") == 2
    machine.work(end + 10**12)
    assert work[W.RUNNING] == 0
    assert machine.vm("spb_slab_shrink_ran") == 2
    assert node.now[Now.NS] == end + 10**12


@pytest.mark.compiled
def test_shrink_frees_objects_and_pages():
    machine = bare(
        "v1@30",
        slab__batch=1,
        slab__inodes_held_by_page_cache=0.0,
        slab__referenced_again=0.0,
        slab__min_partial=0,
    )
    assert machine.row(Op.SLAB_GROW, 0, 6000, mt=R) == 0
    before = machine.free
    at = 0
    while machine.vm("spb_slab_shrink_pages") == 0 and at < 400:
        at += 1
        machine.ask(Req.SHRINK_FALLTHROUGH)
        machine.work(at * 200 * MS)
    assert machine.vm("spb_slab_shrink_freed") > 0
    assert machine.vm("spb_slab_shrink_pages") == machine.free - before > 0
    assert machine.vm("pgfree") == machine.vm("spb_slab_shrink_pages")
    machine.check()


def test_evacuation_needs_a_candidate():
    machine = bare("v1@45")
    machine.ask(Req.EVACUATE_CLAIM)
    assert machine.vm("spb_evac_no_candidate") == 1
    assert machine.vm("spb_evac_queued") == 0


def mixed(policy="v1@45", **values):
    """A machine in which unmovable pages have come into a superpageblock of movable ones."""
    machine = bare(policy, workers__busy_share=0.0, workers__pinned_share=0.0, **values)
    nr = machine.fill(0, 16_000, order=1)
    for first in range(0, nr, 512):
        assert machine.row(Op.FREE, first, 256) == 0
    assert machine.fill(16_000, 300, order=2, mt=U) > 0
    z = machine.world.zone
    assert any(z.spb.content[s, M] and z.spb.content[s, U] for s in range(z.geo.nr_spb))
    node = machine.world.node
    node.vm[:] = 0
    node.due[:] = NEVER
    node.defrag[:, Df.DUE] = NEVER
    node.now[Now.EVAC_HEAD] = node.now[Now.EVAC_TAIL]
    node.now[Now.EVAC_STAMP] = -1
    return machine


@pytest.mark.compiled
def test_evacuation_is_throttled_queued_and_lost():
    machine = mixed({"preset": "v1@45", "evacuate_throttle": "100ms"}, workers__evacuation_descriptors=1)
    node = machine.world.node
    machine.ask(Req.EVACUATE_CLAIM)
    assert machine.vm("spb_evac_queued") == 1
    machine.ask(Req.EVACUATE_FALLTHROUGH)
    assert machine.vm("spb_evac_throttled") == 1
    node.now[Now.EVAC_STAMP] = -1
    machine.ask(Req.EVACUATE_CLAIM)
    assert machine.vm("spb_evac_lost") == 1
    assert node.due[Wk.EVACUATE] == node.now[Now.NS] + node.conf[N.IRQ_DELAY] + node.conf[N.WQ_DELAY]
    machine.work(int(node.now[Now.NS]) + 50 * MS)
    assert machine.vm("spb_evac_ran") == 1
    assert machine.vm("spb_evac_pages") == machine.vm("pgmigrate_success") > 0
    assert machine.vm("spb_slab_shrink_asked_after_evacuation") == 1
    machine.check()


def test_queued_evacuations_run_one_after_the_other():
    machine = mixed({"preset": "v1@45", "evacuate_throttle": "0s"})
    node = machine.world.node
    machine.ask(Req.EVACUATE_CLAIM, U)
    machine.ask(Req.EVACUATE_CLAIM, R)
    assert machine.vm("spb_evac_queued") == 2
    first = int(node.due[Wk.EVACUATE])
    machine.work(first)
    assert machine.vm("spb_evac_ran") == 1
    assert node.due[Wk.EVACUATE] == first + max(machine.vm("migrate_ns"), 1)
    machine.work(first + 10**10)
    assert machine.vm("spb_evac_ran") == 2
    assert node.due[Wk.EVACUATE] == NEVER
    machine.check()


@pytest.mark.compiled
def test_evacuation_without_targets_may_reclaim_for_them():
    machine = mixed({"preset": "v1@45", "migration_target_reclaim": 2})
    assert machine.row(Op.CACHE_ADD, 0, 4000, alt=0, owner=0) == 0
    machine.ask(Req.EVACUATE_CLAIM)
    machine.work(int(machine.world.node.now[Now.NS]) + 10**10)
    assert machine.vm("spb_evac_ran") >= 1
    machine.check()


def test_defragmentation_runs_once_and_then_cools_down():
    machine = mixed("v1@45", workers__defrag_cooldown="5s")
    node, z = machine.world.node, machine.world.zone
    node.defrag[:, Df.READY] = 0
    z.spb.defrag_mark[3] = z.ev[12]
    machine.ask(Req.DEFRAG_LIST_CHANGE)
    assert machine.vm("spb_defrag_queued") == 1
    now = int(node.now[Now.NS])
    z.spb.defrag_mark[3] = z.ev[12]
    machine.ask(Req.DEFRAG_HIGH_WATER)
    assert machine.vm("spb_defrag_queued") == 1
    machine.work(now + MS)
    assert machine.vm("spb_defrag_ran") == 1
    node.defrag[3, Df.READY] = node.now[Now.NS] + MS
    z.spb.defrag_mark[3] = z.ev[12]
    machine.ask(Req.DEFRAG_BEFORE_EMPTY)
    assert machine.vm("spb_defrag_cooling") == 1
    machine.work(now + 10 * MS)
    machine.check()


def test_work_that_is_not_due_waits_and_ties_run_in_order():
    machine = bare()
    node = machine.world.node
    node.defrag[1, Df.DUE] = 5 * MS
    node.defrag[2, Df.DUE] = 9 * MS
    node.due[Wk.DEFRAG] = 5 * MS
    machine.work(5 * MS)
    assert node.due[Wk.DEFRAG] == 9 * MS
    assert machine.vm("spb_defrag_ran") == 1
    assert node.defrag[1, Df.DUE] == NEVER
    # Nothing had to be done: no progress means a pause.
    assert node.defrag[1, Df.READY] == 5 * MS + node.conf[N.DEFRAG_COOLDOWN]


def test_per_cpu_lists_decay_every_period():
    machine = bare(pcp__decay="20ms")
    node = machine.world.node
    machine.work(50 * MS)
    assert node.due[Wk.PCP_DECAY] == 60 * MS


@pytest.mark.compiled
def test_kswapd_reclaims_to_the_high_watermark_at_its_rate():
    machine = bare(machine__min_free="8MiB")
    node = machine.world.node
    served = 0
    while machine.free > node.conf[N.WMARK_LOW]:
        assert machine.row(Op.CACHE_ADD, 0, 64, order=2, alt=0, owner=0) == 0
        served += 1
        assert served < 1000
    assert machine.row(Op.CACHE_ADD, 0, 64, order=2, alt=0, owner=0) == 0
    assert machine.vm("pageoutrun") == 1
    assert node.due[Wk.KSWAPD] == node.conf[N.KSWAPD_DELAY]
    machine.work(int(node.conf[N.KSWAPD_DELAY]))
    once = machine.vm("pgsteal_kswapd")
    assert once > 0
    machine.work(10**9)
    assert machine.free >= node.conf[N.WMARK_HIGH]
    assert machine.vm("pgsteal_kswapd") >= once
    machine.check()


@pytest.mark.parametrize("active", [False, True])
def test_per_cpu_lists_stay_short_while_kswapd_works(active):
    machine = bare()
    z = machine.world.zone
    most = 4 * int(z.pcp.conf[0])
    assert machine.fill(0, 1000) == 1000
    z.count[C.RECLAIM_ACTIVE] = active
    for slot in range(1000):
        machine.row(Op.FREE, slot)
    assert (z.pcp.cpu[:, Pc.COUNT].max() <= most) == active
    machine.check()


@pytest.mark.compiled
def test_kswapd_says_while_it_works():
    machine = bare(machine__min_free="8MiB", reclaim__kswapd_page_cost="1ms")
    node, count = machine.world.node, machine.world.zone.count
    while machine.free > node.conf[N.WMARK_LOW]:
        assert machine.row(Op.CACHE_ADD, 0, 64, order=2, alt=0, owner=0) == 0
    machine.row(Op.CACHE_ADD, 0, 64, order=2, alt=0, owner=0)
    assert count[C.RECLAIM_ACTIVE] == 0
    machine.work(int(node.conf[N.KSWAPD_DELAY]))
    assert count[C.RECLAIM_ACTIVE] == 1
    machine.work(10**11)
    assert machine.free >= node.conf[N.WMARK_HIGH]
    assert count[C.RECLAIM_ACTIVE] == 0


def test_kswapd_without_page_cache_fails_and_sleeps():
    machine = bare(machine__min_free="8MiB")
    node = machine.world.node
    node.conf[N.WMARK_HIGH] = machine.free + 10
    node.due[Wk.KSWAPD] = 0
    machine.work(MS)
    assert machine.vm("reclaim_failed") == 1
    assert node.due[Wk.KSWAPD] == NEVER
    node.conf[N.WMARK_HIGH] = 1
    node.due[Wk.KSWAPD] = 2 * MS
    machine.work(3 * MS)
    assert machine.vm("reclaim_failed") == 1
    assert node.vm[V.PGSTEAL_KSWAPD] == 0
