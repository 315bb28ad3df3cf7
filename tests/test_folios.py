"""What can move: long-term pins of an actor in whole clusters, and folios that split to find a place."""

from __future__ import annotations

import numpy as np
import pytest

from spbfast.config.models import StartSpec
from spbfast.constants import PB_PAGES, Ev, Op
from spbfast.errors import ConfigError
from spbfast.jit.decorators import entry_kernel
from spbfast.model.allocator.migrate import migrate_pageblock
from spbfast.model.engine import boot, run_replicate
from spbfast.model.lowering.lower_machine import first_demand_owner, lower_scenario
from spbfast.model.state.node import Ca, N
from spbfast.model.state.page_state import CODE_MOVABLE, CODE_PINNED, block_order, code_of, states_of
from tests.demand_tools import scenario
from tests.machine_tools import MS, Machine, U, Verb, bare
from tests.passes import cases

STILL = {"workers__pinned_share": 0.0, "workers__busy_share": 0.0}
SPB_PAGES = 8 * PB_PAGES


@entry_kernel
def order_of(state):
    """Order of the block that a page with this state heads."""
    return block_order(state)


@entry_kernel
def kind_of(state):
    """Code of a head that is not free."""
    return code_of(state)


def daemons(pinned, memory="64MiB", thp_share=0.5, **values):
    """A machine with one daemon of pinned clusters, brought to time 0 without page cache."""
    actor = {"kind": "daemons", "memory": memory, "thp_share": thp_share, "churn_per_second": 0.5}
    given = scenario(actor | {"pinned": pinned}, boot__fill_page_cache=False, policy="v1@30", **values)
    run = lower_scenario(given, 1, 0)
    assert boot(run, given, 1)
    return Machine(run, first_demand_owner(given))


def pinned_slots(machine):
    """Of each slot of the owner: -1 empty or inside a huge page, else whether its block is pinned."""
    pfn = machine.slots()
    state = states_of(machine.world.zone.page, np.maximum(pfn, 0))
    return np.where(pfn < 0, -1, (state >> 4 == CODE_PINNED).astype(np.int64))


@pytest.mark.compiled
@pytest.mark.parametrize("cluster", ["2MiB", "8MiB"])
def test_pins_lie_in_whole_clusters_whatever_pages_they_are_made_of(cluster):
    machine = daemons({"share": 0.4, "cluster": cluster}, workers__pinned_share=0.0)
    found = pinned_slots(machine).reshape(-1, int(cluster[0]) * 256)
    whole = [set(row[row >= 0].tolist()) for row in found]
    assert {len(kinds) for kinds in whole} == {1}, "a cluster is pinned as a whole or not at all"
    share = np.mean([kinds == {1} for kinds in whole])
    assert 0.1 < share < 0.8
    pinned = [row for row in found.reshape(-1, PB_PAGES) if row[0] == 1]
    assert {bool((row == 1).all()) for row in pinned} == {True, False}, "of base pages and of huge ones"
    machine.check()


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 1)])
def test_an_actor_with_pins_of_its_own_draws_no_others(share, expected):
    machine = daemons({"share": share}, workers__pinned_share=1.0 - share)
    found = pinned_slots(machine)
    assert set(found[found >= 0].tolist()) == {expected}


@pytest.mark.compiled
def test_a_huge_page_is_pinned_if_any_cluster_in_it_is():
    """Known answer: with 512 clusters of a page and a share of 1 % nearly all huge pages are pinned."""
    huge = pinned_slots(daemons({"share": 0.01, "cluster": "4KiB"}, thp_share=1.0, workers__pinned_share=0.0))
    assert (huge[huge >= 0] == 1).mean() > 0.9
    base = pinned_slots(daemons({"share": 0.01, "cluster": "4KiB"}, thp_share=0.0, workers__pinned_share=0.0))
    assert 0.005 < (base[base >= 0] == 1).mean() < 0.02


@pytest.mark.compiled
def test_pins_stay_where_they_are_when_memory_is_touched_again():
    machine = daemons({"share": 0.5}, thp_share=0.0, workers__pinned_share=0.0)
    before = pinned_slots(machine)
    for first in range(0, 8 * PB_PAGES, PB_PAGES):
        machine.row(Op.FREE, first, PB_PAGES)
        machine.fill(first, PB_PAGES)
    assert np.array_equal(pinned_slots(machine), before)
    assert set(before.tolist()) == {0, 1}
    machine.check()


@pytest.mark.compiled
@pytest.mark.parametrize("policy", cases("mainline", "v1@30", "v2"))
def test_the_same_clusters_are_pinned_under_every_policy(policy):
    given = {"share": 0.3, "cluster": "2MiB"}
    actor = {"kind": "daemons", "memory": "32MiB", "thp_share": 0.0, "pinned": given}
    found = []
    for preset in ("v1@45", policy):
        run = lower_scenario(scenario(actor, policy=preset, boot__fill_page_cache=False), 1, 0)
        assert boot(run, scenario(actor, policy=preset, boot__fill_page_cache=False), 1)
        found.append(pinned_slots(Machine(run, run.world.node.pins.shape[0] - 1)))
    assert np.array_equal(*found)


@pytest.mark.parametrize("cluster", ["3MiB", "2KiB"])
def test_a_cluster_is_a_power_of_two_of_pages(cluster):
    with pytest.raises(ConfigError, match="cluster"):
        daemons({"share": 0.5, "cluster": cluster})


def test_without_pins_of_their_own_actors_have_no_table():
    assert bare().world.node.pins.shape[0] == 0


# -- folios that split -------------------------------------------------------------------------------


@entry_kernel
def empty_pageblock(z, policy, pb):
    """Migrate what is in a pageblock; 1 if nothing stayed."""
    z.ev[:] = 0
    return migrate_pageblock(z, policy, pb, True)


HUGE = 15
FOLIO = 16  # pages


def short_of_pageblocks(policy, split, folios=False):
    """Huge pages in slots 0, 512, .. everywhere, between them pairs of which every other is free.

    With `folios` page cache in folios of 16 pages stands in for them.
    """
    what = {"pagecache__split_folios": split, "pagecache__hot_share": 0.0, "workers__split_folios": False}
    what |= {"reclaim__rounds_max": 0, "reclaim__compact_candidates": 0}
    values = what if folios else {"workers__split_folios": split}
    machine = bare(policy, pcp__enabled=False, **values, **STILL)
    conf = machine.world.node.conf
    conf[[N.WMARK_MIN, N.WMARK_LOW, N.WMARK_HIGH]] = 0
    machine.fill(16_350, 13, order=9, mt=U)
    pairs = 8_600 // HUGE
    for i in range(HUGE):
        if folios:
            assert machine.row(Op.CACHE_ADD, 0, PB_PAGES // FOLIO, order=4, owner=0) == 0
        else:
            assert machine.row(Op.THP, i * PB_PAGES) == 0
        assert machine.fill(HUGE * PB_PAGES + i * pairs, pairs, order=1) > 0
    machine.fill(16_363, 20, order=9, mt=U)
    machine.fill(16_290, 60, order=5, mt=U)
    for order in range(5, 1, -1) if folios else ():
        machine.fill_up(order * 400, 400, order=order, mt=U)
    for slot in range(HUGE * PB_PAGES, HUGE * PB_PAGES + HUGE * pairs, 2):
        machine.row(Op.FREE, slot)
    return machine


@pytest.mark.parametrize("policy", cases("mainline", "v1@30", "v1@45"))
@pytest.mark.parametrize("split", [False, True])
def test_a_huge_page_without_a_place_splits_and_its_pages_move(policy, split):
    machine = short_of_pageblocks(policy, split)
    z = machine.world.zone
    pfn = int(machine.slots(0, 1)[0])
    used = z.pb.used.sum()
    went = empty_pageblock(z, machine.policy, pfn >> 9)
    assert (int(went), int(z.ev[Ev.SPLIT_HUGE]), int(z.ev[Ev.FAILED_MOVES])) == (split, split, not split)
    slots = machine.slots(0, PB_PAGES)
    if not split:
        assert slots[0] == pfn
        assert (slots[1:] == -1).all()
        return
    assert len(np.unique(slots)) == PB_PAGES
    assert (slots >= 0).all()
    assert (slots >> 9 != pfn >> 9).all()
    states = states_of(z.page, slots).tolist()
    assert {(order_of(s), kind_of(s)) for s in states} == {(0, CODE_MOVABLE)}
    assert z.pb.used.sum() == used
    assert z.ev[Ev.MOVED_PAGES] == PB_PAGES
    assert z.ev[Ev.MOVED_HUGE] == 0
    machine.check()


@pytest.mark.compiled
def test_a_split_page_is_freed_page_by_page_and_touched_again_as_a_whole():
    machine = short_of_pageblocks("v1@45", True)
    z = machine.world.zone
    free = machine.free
    empty_pageblock(z, machine.policy, int(machine.slots(0, 1)[0]) >> 9)
    machine.row(Op.FREE, 0, PB_PAGES)
    assert (machine.slots(0, PB_PAGES) == -1).all()
    assert machine.free == free + PB_PAGES
    assert machine.row(Op.THP, 0) == 0
    assert order_of(int(states_of(z.page, machine.slots(0, 1))[0])) == 9
    machine.check()


@pytest.mark.parametrize("policy", cases("mainline", "v1@30", "v1@45"))
@pytest.mark.parametrize("split", [False, True])
def test_a_folio_of_the_page_cache_splits_and_its_pages_move(policy, split):
    machine = short_of_pageblocks(policy, split, folios=True)
    z, cache = machine.world.zone, machine.world.node.cache
    folios, pages = int(cache[Ca.COLD_TAIL] - cache[Ca.COLD_HEAD]), int(cache[Ca.COLD_PAGES])
    assert pages == FOLIO * folios
    pfn = int(machine.slots(0, 1, owner=0)[0])
    there = int((machine.slots(0, folios, owner=0) >> 9 == pfn >> 9).sum())
    went = empty_pageblock(z, machine.policy, pfn >> 9)
    assert (int(went), int(z.ev[Ev.FAILED_MOVES])) == (split, not split)
    apart = int(z.ev[Ev.SPLIT_CACHE])
    assert (0 < apart <= there) if split else apart == 0
    assert int(z.ev[Ev.SPLIT_HUGE]) == 0
    slots = machine.slots(0, folios + (FOLIO - 1) * apart, owner=0)
    if not split:
        assert (slots[:there] >> 9 == pfn >> 9).any()
        assert (slots[folios:] == -1).all()
        return
    assert len(np.unique(slots)) == len(slots) == int(cache[Ca.COLD_TAIL] - cache[Ca.COLD_HEAD])
    assert (slots >> 9 != pfn >> 9).all()
    orders = [order_of(s) for s in states_of(z.page, slots).tolist()]
    assert orders.count(0) == FOLIO * apart
    assert sum(1 << order for order in orders) == pages == int(cache[Ca.COLD_PAGES])
    assert z.ev[Ev.MOVED_PAGES] >= FOLIO * there
    machine.check()
    assert machine.do(Verb.RECLAIM, pages) == pages
    assert int(cache[Ca.COLD_TAIL] - cache[Ca.COLD_HEAD]) == int(cache[Ca.COLD_PAGES]) == 0
    machine.check()


def test_a_folio_stays_whole_where_its_ring_is_full():
    machine = short_of_pageblocks("mainline", True, folios=True)
    z, cache = machine.world.zone, machine.world.node.cache
    size, pages = int(z.slots.size[0]), int(cache[Ca.COLD_PAGES])
    shift = size - 20 - int(cache[Ca.COLD_TAIL] - cache[Ca.COLD_HEAD])
    assert shift > 0
    room = FOLIO * (20 // FOLIO)
    cache[Ca.COLD_TAIL] += shift  # as if it held so many more
    pfn = int(machine.slots(0, 1, owner=0)[0])
    assert empty_pageblock(z, machine.policy, pfn >> 9) == 0
    assert (int(z.ev[Ev.SPLIT_CACHE]), int(z.ev[Ev.FAILED_MOVES])) == (1, 1)
    assert int(cache[Ca.COLD_TAIL] - cache[Ca.COLD_HEAD]) == size - 20 + room - 1
    assert int(cache[Ca.COLD_PAGES]) == pages


@pytest.mark.compiled
@pytest.mark.parametrize("policy", cases("mainline", "v1@45"))
def test_a_whole_superpageblock_is_had_where_its_cache_may_split(policy):
    got = {}
    for split in (False, True):
        machine = short_of_pageblocks(policy, split, folios=True)
        machine.world.node.conf[N.CONTIG_RECLAIM_ROUNDS] = 0
        machine.row(Op.CONTIG_ALLOC, 16_383)
        machine.work(10_000 * MS)
        got[split] = bool(machine.slots(16_383, 1)[0] >= 0)
        assert (machine.vm("pagecache_migration_split") > 0) is split
        assert machine.vm("thp_migration_split") == 0
        machine.check()
    assert got == {False: False, True: True}


@pytest.mark.compiled
@pytest.mark.parametrize("machine", cases({}, {"machine__nodes": 2, "machine__dma32": "32MiB"}))
def test_runs_whose_cache_splits_stay_consistent_and_go_on_from_a_state(tmp_path, machine):
    values = {"pagecache__folio_weights": [0.1, 0, 0, 0, 0.9], "actors__page_cache__rate": "400MB/s"}
    given = scenario(duration="300ms", policy="v1@45", pagecache__split_folios=True, **values, **machine)
    whole = run_replicate(given, 1, 0, check=True)
    run_replicate(given, 1, 0, save=(150, lambda state: state.write(tmp_path / "state")))
    later = given.model_copy(update={"start": StartSpec(state=str(tmp_path / "state"))})
    assert run_replicate(later, 1, 0, check=True).digest == whole.digest


def test_pinned_huge_pages_never_split():
    machine = bare("v1@45", workers__split_folios=True, workers__pinned_share=1.0, pcp__enabled=False)
    assert machine.row(Op.THP, 0) == 0
    z = machine.world.zone
    assert empty_pageblock(z, machine.policy, int(machine.slots(0, 1)[0]) >> 9) == 0
    assert z.ev[Ev.SPLIT_HUGE] == 0
    machine.check()


@pytest.mark.compiled
@pytest.mark.parametrize("policy", cases("mainline", "v1@45"))
def test_a_whole_superpageblock_is_had_where_its_huge_pages_may_split(policy):
    """Room for every page, but no pageblock to move a huge page to: the key decides."""
    got = {}
    for split in (False, True):
        machine = short_of_pageblocks(policy, split)
        machine.row(Op.CONTIG_ALLOC, 16_383)
        machine.work(10_000 * MS)
        got[split] = bool(machine.slots(16_383, 1)[0] >= 0)
        assert (machine.vm("thp_migration_split") > 0) is split
        machine.check()
    assert got == {False: False, True: True}


@pytest.mark.compiled
@pytest.mark.parametrize("policy", cases("mainline", "v1@45", "v2"))
def test_a_run_with_pins_in_clusters_and_splits_stays_consistent(policy):
    given = scenario(
        duration="400ms",
        policy=policy,
        workers__split_folios=True,
        workers__pinned_share=0.0,
        actors__daemons__pinned={"share": 0.2},
        actors__guests__pinned={"share": 0.1, "cluster": "64KiB"},
    )
    run = run_replicate(given, 1, 0, check=True)
    assert run.demand_digest == run_replicate(scenario(duration="400ms", policy=policy), 1, 0).demand_digest


def test_unmovable_memory_knows_no_pins():
    machine = daemons({"share": 1.0}, workers__pinned_share=0.0)
    machine.row(Op.FREE, 0, 1)
    assert machine.fill(0, 1, mt=U) == 1
    assert kind_of(int(states_of(machine.world.zone.page, machine.slots(0, 1))[0])) == U
