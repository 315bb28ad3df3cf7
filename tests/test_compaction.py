"""Background moves: out of claimed pageblocks, inside clean superpageblocks, kcompactd."""

from __future__ import annotations

import numpy as np
import pytest

from spbfast.constants import CLAIMED_AT, CLAIMED_MOST, NR_MT, PB_PAGES, Ev, Mt, Op, Req
from spbfast.model.state.node import NEVER, N, Wk
from spbfast.zone import Zone
from tests.machine_tools import MS, M, U, Verb, bare

STILL = {"workers__pinned_share": 0.0, "workers__busy_share": 0.0}
R = int(Mt.RECLAIMABLE)


# --- claimed pageblocks (v1 07) ---------------------------------------------------------------------


@pytest.mark.compiled
@pytest.mark.parametrize("preset", ["mainline", "v1@45"])
@pytest.mark.parametrize("on", [False, True])
def test_a_claim_with_movable_pages_left_asks_to_move_them(preset: str, on: bool) -> None:
    zone = Zone("16MiB", {"preset": preset, "claim_evacuation": on}, spb_size="16MiB", start_pfn=0)
    pfns = zone.alloc_many(4096, 0, M)
    assert (pfns >= 0).all()
    zone.free_many(pfns[(pfns >= 512) & (pfns < 812)])
    assert zone.alloc(0, U) >= 0
    assert zone.pageblock_types()[1] == U
    assert bool(zone.last.requests & Req.EVACUATE_CLAIMED) == on
    assert zone.state.ev[Ev.NR_CLAIMED] == on
    if on:
        assert zone.state.scratch[CLAIMED_AT] == 1
    zone.check()


def test_a_claim_of_a_free_pageblock_asks_nothing() -> None:
    zone = Zone("16MiB", {"preset": "mainline", "claim_evacuation": True}, spb_size="16MiB")
    assert zone.alloc(0, U) >= 0
    assert zone.last.requests == 0


def _name(machine, *pbs: int) -> None:
    """Let an event have claimed these pageblocks."""
    z = machine.world.zone
    z.scratch[CLAIMED_AT : CLAIMED_AT + min(len(pbs), CLAIMED_MOST)] = pbs[:CLAIMED_MOST]
    z.ev[Ev.NR_CLAIMED] = len(pbs)
    machine.ask(Req.EVACUATE_CLAIMED)


def test_claimed_pageblocks_are_emptied_one_after_the_other() -> None:
    machine = bare("v1@45", **STILL)
    assert machine.fill(0, 600, mt=M) == 600
    pbs = np.unique(machine.slots(0, 600) >> 9)
    node = machine.world.node
    _name(machine, *pbs[:2].tolist())
    start = node.conf[N.IRQ_DELAY] + node.conf[N.WQ_DELAY]
    assert node.due[Wk.CLAIMED] == start
    machine.work(int(start))
    assert machine.vm("claim_evac_ran") == 1
    moved = machine.vm("claim_evac_pages")
    assert moved == machine.vm("pgmigrate_success") > 0
    assert node.due[Wk.CLAIMED] == start + moved * node.conf[N.MIGRATE_PAGE_COST]
    machine.work(100 * MS)
    assert node.due[Wk.CLAIMED] == NEVER
    assert not np.isin(machine.slots(0, 600) >> 9, pbs[:2]).any()
    assert machine.vm("claim_evac_ran") == machine.vm("claim_evac_queued") == 2
    machine.check()


@pytest.mark.parametrize(
    ("share", "factor", "moved"),
    [(0.0, 1.0, 200), (0.5, 1.0, 100), (0.0, 9.0, 200), (1.0, 0.0, 100), (0.5, 0.5, 125), (0.25, 9.0, 75)],
)
def test_page_cache_may_be_busy_more_often_or_less(share, factor, moved) -> None:
    """Known answer: of 100 pages of each kind the share that is busy stays, spread evenly."""
    values = {"workers__busy_share": share, "pagecache__busy_factor": factor}
    values |= {"pagecache__folio_weights": [1.0], "pagecache__hot_share": 0.0}
    policy = {"preset": "mainline", "claim_evacuation": True}
    machine = bare(policy, workers__pinned_share=0.0, pcp__enabled=False, **values)
    machine.fill(0, 100)
    assert machine.row(Op.CACHE_ADD, 0, 100, owner=0) == 0
    (pb,) = set((machine.slots(0, 100) >> 9).tolist() + (machine.slots(0, 100, owner=0) >> 9).tolist())
    _name(machine, pb)
    machine.work(100 * MS)
    assert machine.vm("pgmigrate_success") == moved
    assert machine.vm("pgmigrate_fail") == 200 - moved
    stayed = [int((machine.slots(0, 100, owner=who) >> 9 == pb).sum()) for who in (machine.owner, 0)]
    if factor != 1.0:
        assert stayed == [100 * share, 100 * min(share * factor, 1.0)]
    machine.check()


def test_a_full_queue_loses_claimed_pageblocks() -> None:
    machine = bare("v1@45", workers__evacuation_descriptors=5)
    _name(machine, *[1] * 3)
    _name(machine, *[1] * 4)
    assert (machine.vm("claim_evac_queued"), machine.vm("claim_evac_lost")) == (5, 2)
    machine.work(100 * MS)
    _name(machine, *[1] * (CLAIMED_MOST + 3))
    assert (machine.vm("claim_evac_queued"), machine.vm("claim_evac_lost")) == (10, 2 + CLAIMED_MOST - 2)


# --- inside a clean superpageblock (v1 17) ----------------------------------------------------------


def _uneven(on: bool = True, empty: int = 0) -> Zone:
    """Eight pageblocks: 100, 200 and 400 pages are left in the first three, none in the last `empty`."""
    policy = {"preset": "v1@45", "compact_within_superpageblock": on}
    zone = Zone("16MiB", policy, spb_size="16MiB", start_pfn=0)
    pfns = zone.alloc_many(4096, 0, M)
    left = np.array([100, 200, 400])
    pb, page = pfns >> 9, pfns & 511
    zone.free_many(pfns[((pb < 3) & (page >= left[np.minimum(pb, 2)])) | (pb >= 8 - empty)])
    return zone


def test_the_emptiest_pageblock_goes_into_the_fullest() -> None:
    zone = _uneven()
    assert zone.compact(0) == 1
    assert zone.last.moved == 100
    assert zone.state.pb.used[:3, M].tolist() == [0, 200, 500]
    assert zone.superpageblocks().free_pageblocks[0] == 1
    zone.check()
    # What is left, 324 free pages, fills no pageblock.
    assert zone.compact(0) == 0
    assert zone.last.moved == 0


@pytest.mark.compiled
@pytest.mark.parametrize(("empty", "free_pageblocks", "fragments"), [(1, 0, 1), (0, 1, 2)])
def test_it_needs_few_free_pageblocks_and_many_fragments(
    empty: int, free_pageblocks: int, fragments: int
) -> None:
    zone = _uneven(empty=empty)
    assert zone.compact(0, 16, free_pageblocks, fragments) == 0
    assert zone.last.moved == 0


def test_it_is_off_or_elsewhere_without_its_switch_or_in_tainted_ones() -> None:
    zone = _uneven(False)
    assert zone.compact(0) == 0
    zone = _uneven()
    zone.alloc(0, U)
    assert zone.tainted() == 1
    assert zone.compact(0) == 0
    assert zone.last.moved == 0


def test_the_worker_looks_at_clean_superpageblocks_and_pauses_after_a_vain_run() -> None:
    values = {"workers__compact_within_interval": "50ms", "workers__compact_within_fragments": 1}
    machine = bare({"preset": "v1@45", "compact_within_superpageblock": True}, **STILL, **values)
    node = machine.world.node
    assert node.due[Wk.WITHIN] == 50 * MS
    nr = machine.fill(0, 14_000, order=1)  # less than all: requests that fail would wake the worker
    assert nr == 14_000
    for slot in range(0, nr, 3):
        machine.row(Op.FREE, slot)
    before = int((machine.world.zone.pb.used[:, M] > 0).sum())
    machine.work(49 * MS)
    assert machine.vm("spb_compact_ran") == 0
    machine.work(50 * MS)
    assert machine.vm("spb_compact_ran") > 0
    freed = machine.vm("spb_compact_freed")
    assert freed > 0
    assert int((machine.world.zone.pb.used[:, M] > 0).sum()) == before - freed
    assert machine.vm("spb_compact_pages") == machine.vm("pgmigrate_success")
    assert machine.vm("compact_free_scanned") >= machine.vm("spb_compact_pages")
    assert node.due[Wk.WITHIN] == 100 * MS
    machine.check()
    machine.work(300 * MS)
    ran = machine.vm("spb_compact_ran")
    machine.work(400 * MS)
    assert machine.vm("spb_compact_ran") == ran, "nothing is left to do, or it cools down"
    machine.check()


def test_off_it_is_never_due() -> None:
    machine = bare("v1@45")
    assert machine.world.node.due[Wk.WITHIN] == NEVER
    machine.row(Op.THP)
    assert machine.world.node.due[Wk.WITHIN] == machine.world.node.due[Wk.KCOMPACTD] == NEVER


# --- in the background, and over what cannot move ---------------------------------------------------


def _holed(policy, **values):
    """All memory in pairs of movable pages, every third of which is free: no pageblock is."""
    machine = bare(policy, **STILL, **values)
    nr = machine.fill(0, 16_000, order=1)
    for slot in range(0, nr, 3):
        machine.row(Op.FREE, slot)
    return machine


@pytest.mark.compiled
@pytest.mark.parametrize("policy", ["mainline", "v1@45"])
def test_kcompactd_makes_a_free_pageblock_after_a_huge_fault_failed(policy: str) -> None:
    machine = _holed(policy, reclaim__kcompactd=True, reclaim__compact_rate=0)
    node, z = machine.world.node, machine.world.zone

    def huge() -> int:
        return int((z.area.mask.reshape(-1, NR_MT)[:, M] >> 9 > 0).sum())

    machine.row(Op.ALLOC, 16_000, 300, order=9)  # what the pairs left, if anything
    assert huge() == 0
    machine.do(Verb.WAKE, 9)
    assert node.due[Wk.KCOMPACTD] == node.conf[N.WQ_DELAY]
    machine.work(2000 * MS)
    assert huge() > 0
    assert machine.vm("compact_daemon_freed") > 0
    assert machine.vm("compact_migrate_scanned") % PB_PAGES == 0 < machine.vm("compact_migrate_scanned")
    assert node.due[Wk.KCOMPACTD] == NEVER
    machine.check()


@pytest.mark.parametrize("on", [False, True])
def test_compaction_passes_over_tainted_superpageblocks_without_movable_content(on: bool) -> None:
    machine = bare({"preset": "mainline", "compaction_skips_immovable": on}, **STILL)
    machine.world.node.now[:1] = 10_000 * MS
    assert machine.fill(0, 12, order=9, mt=U) == 12
    nr = machine.fill(12, 12_000, order=1)  # less than all: requests that fail would compact
    assert nr == 12_000
    for slot in range(12, 12 + nr, 3):
        machine.row(Op.FREE, slot)
    machine.do(Verb.COMPACT_THP)
    assert bool(machine.vm("compact_skipped_spbs")) == on
    assert machine.vm("compact_stall") == 1
    assert machine.vm("compact_success") == 1
    machine.check()
