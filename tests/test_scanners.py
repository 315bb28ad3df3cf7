"""Compaction by two scanners: which pages go where, what is skipped, when a run begins and ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from spbfast.config.models import StartSpec
from spbfast.constants import NR_MT, PB_PAGES, C, Op
from spbfast.errors import InvariantError
from spbfast.freeindex import fragmentation_thousandths
from spbfast.jit.decorators import INTERPRETED, entry_kernel
from spbfast.model.allocator.freelist import move_to_front
from spbfast.model.allocator.pfn import list_of
from spbfast.model.engine import run_replicate
from spbfast.model.requests.direct_compaction import ASYNC, FAILED, FULL, LIGHT, SKIPPED, SUCCEEDED
from spbfast.model.state.compact_layout import FIRST_OF_RUN, Cc, check_compaction
from spbfast.model.state.node import NEVER, N, Now, Wk
from spbfast.model.state.page_state import CODE_MOVABLE, CODE_PINNED, HIGH_SHIFT, free_state, links_of
from spbfast.model.workers.compact_places import isolate_places, release_places
from spbfast.model.workers.compact_zone import rate_fragmentation
from spbfast.statefile import read_state_head
from tests.demand_tools import scenario
from tests.machine_tools import MS, Machine, R, U, Verb, bare
from tests.machine_tools import M as MOV
from tests.passes import cases, words_by_pass

STILL = {"workers__pinned_share": 0.0, "workers__busy_share": 0.0, "pcp__enabled": False}
ON = {"reclaim__compaction": "scanners", "reclaim__compact_rate": 5000}
FIRST, LAST = 2, 63  # pageblocks with memory; the first two hold the kernel's image and memmap
NR = 15_872  # pairs of pages that all memory is


class Packed:
    """All memory in pairs of movable pages, of which some are given back by place; no watermarks."""

    def __init__(self, policy: Any = "mainline", **values: Any) -> None:
        self.machine: Machine = bare(policy, **STILL, **ON, **values)
        node = self.machine.world.node
        node.conf[[N.WMARK_MIN, N.WMARK_LOW, N.WMARK_HIGH]] = 0
        node.now[Now.NS] = 1000 * MS
        assert self.machine.fill(0, NR, order=1) == NR
        assert self.machine.free == 0
        self.z, self.node, self.cc = self.machine.world.zone, node, node.compact
        self.slot_at = np.full(self.z.geo.nr_pages, -1)
        self.slot_at[self.machine.slots(0, NR)] = np.arange(NR)

    def keep(self, pb: int, first: int, pairs: int) -> None:
        """Give back all pairs of a pageblock but `pairs` of them from page `first` on."""
        for page in range(0, PB_PAGES, 2):
            if not first <= page < first + 2 * pairs:
                self.machine.row(Op.FREE, int(self.slot_at[(pb << 9) + page]))

    def holes(self, *pbs: int) -> None:
        """Give back every other pair of pageblocks: free memory in pieces."""
        for pb in pbs:
            for page in range(0, PB_PAGES, 4):
                self.machine.row(Op.FREE, int(self.slot_at[(pb << 9) + page]))

    def pin(self, pfn: int) -> None:
        """The pair that is there cannot move from now on."""
        assert self.z.page.word[pfn] >> HIGH_SHIFT == CODE_MOVABLE
        self.z.page.word[pfn] += np.int64(CODE_PINNED - CODE_MOVABLE) << HIGH_SHIFT
        self.z.spb.pinned[pfn >> self.z.geo.spb_shift] += 2

    def used(self, pb: int) -> list[int]:
        """Pages of a pageblock that are the first of a pair in use."""
        pfn = self.machine.slots(0, NR)
        return sorted((pfn[pfn >> 9 == pb] & 511).tolist())

    def compact(self, priority: int, order: int = 9) -> int:
        """A direct compaction; the state must be sound afterwards."""
        result = self.machine.do(Verb.COMPACT, priority, order)
        self.check()
        return result

    def check(self) -> None:
        self.machine.check()
        check_compaction(self.cc, self.node.skip, self.z.geo)


def ready(**values: Any) -> Packed:
    """32 pages in pageblock 2; 510 free pages in the last, and pieces in two in the middle."""
    one = Packed(**values)
    one.keep(FIRST, 0, 16)
    one.keep(LAST, 0, 1)
    one.holes(30, 31)
    return one


# --- where pages go ---------------------------------------------------------------------------------


@pytest.mark.compiled
def test_pages_go_from_the_lowest_pageblock_to_the_highest_and_are_counted():
    one = ready()
    assert one.compact(LIGHT) == SUCCEEDED
    assert one.used(FIRST) == []
    # The free lists are asked first, from the largest order down: 256 pages in the last quarter of the zone.
    assert one.used(LAST) == [0, *range(256, 288, 2)]
    assert [one.machine.vm(f"compact_{what}") for what in ("stall", "migrate_scanned", "free_scanned")] == [
        1,
        2 * PB_PAGES + 32,
        2 + 255,  # another block of 256 pages is looked at first, too low
    ]
    assert one.machine.vm("compact_isolated") == 32 + 256
    assert one.machine.vm("pgmigrate_success") == 32
    # Two pageblocks without memory were scanned in vain; later runs begin one further.
    assert one.cc[Cc.CACHED_MIGRATE_ASYNC] == one.cc[Cc.CACHED_MIGRATE_SYNC] == 3 * PB_PAGES
    assert one.cc[Cc.CACHED_FREE] == LAST * PB_PAGES
    assert np.flatnonzero(one.node.skip).tolist() == [0, 1, FIRST]


def test_the_run_after_a_success_has_nothing_to_do():
    one = ready()
    one.compact(LIGHT)
    scanned = one.machine.vm("compact_migrate_scanned")
    assert one.compact(LIGHT) == SUCCEEDED
    assert one.machine.vm("compact_migrate_scanned") == scanned
    assert one.machine.vm("compact_stall") == 2


def test_a_cluster_of_32_pages_is_migrated_before_the_next_is_isolated():
    """The run for order 4 captures its block from the first half of the pageblock's pages."""
    one = Packed()
    one.holes(LAST - 1, LAST)
    assert one.compact(LIGHT, 4) == SUCCEEDED
    assert len(one.used(FIRST)) == 256 - 16
    assert one.machine.vm("pgmigrate_success") == 32
    assert one.machine.vm("compact_migrate_scanned") == 2 * PB_PAGES + 32


@entry_kernel
def scan_for(w, policy, pages, is_sync, is_forced):
    """Let the free scanner isolate places for so many pages without a look at the lists; where it stops."""
    cc = w.node.compact
    cc[Cc.ORDER] = 9
    cc[Cc.DIRECT] = 1
    cc[Cc.SYNC] = is_sync
    cc[Cc.FORCED] = is_forced
    cc[Cc.MIGRATE] = FIRST << 9
    cc[Cc.FREE] = LAST << 9
    cc[Cc.CACHED_FREE] = LAST << 9
    cc[Cc.NR_MIGRATE] = pages
    isolate_places(w, policy)
    return cc[Cc.FREE]


@entry_kernel
def give_back(w, policy):
    """Give back what `scan_for` isolated."""
    release_places(w, policy)
    w.node.compact[FIRST_OF_RUN:] = 0


@entry_kernel
def turn(z, pfn):
    """Turn the list of pairs round to a block."""
    move_to_front(z.page, z.geo.list0 + list_of(0, 1, MOV), pfn, free_state(1, MOV))


def isolated(one: Packed) -> list[tuple[int, int]]:
    """What is isolated: (page, order)."""
    found = []
    for order, (head, tail, *ring) in enumerate(one.node.places.tolist()):
        found += [(ring[i % len(ring)], order) for i in range(head, tail)]
    return sorted(found)


def free_pairs(one: Packed) -> list[int]:
    """Free pairs in list order."""
    after, _ = links_of(one.z.page)
    head = int(one.z.geo.list0) + NR_MT + MOV
    out, at = [], int(after[head])
    while at != head:
        out.append(at)
        at = int(after[at])
    return out


@pytest.mark.compiled
def test_the_free_scanner_goes_down_and_up_within_a_pageblock():
    one = Packed()
    one.keep(LAST, 20, 246)  # 16 and 4 pages at its beginning
    one.keep(LAST - 1, 0, 1)
    stop = scan_for(one.machine.world, one.machine.policy, 32, 1, 0)
    last, below = LAST << 9, (LAST - 1) << 9
    assert isolated(one) == [(below + 2, 1), (below + 4, 2), (below + 8, 3), (last, 4), (last + 16, 2)]
    assert stop == below + 16
    assert one.cc[Cc.FREE_SCANNED] == 512 + 2 + 14
    assert one.cc[Cc.CACHED_FREE] == below
    assert np.flatnonzero(one.node.skip).tolist() == [LAST]
    give_back(one.machine.world, one.machine.policy)
    assert one.cc[Cc.CACHED_FREE] == last, "back to the highest page that was not used"
    one.check()


@pytest.mark.compiled
@pytest.mark.parametrize("is_sync", [0, 1])
def test_asynchronously_the_free_scanner_looks_at_one_page_in_32(is_sync):
    one = Packed()
    one.keep(LAST, 0, 255)  # the pair at 510 is free, between two looks
    one.keep(LAST - 1, 496, 8)
    scan_for(one.machine.world, one.machine.policy, 1, is_sync, 0)
    assert isolated(one) == ([((LAST << 9) + 510, 1)] if is_sync else [((LAST - 1) << 9, 8)])
    give_back(one.machine.world, one.machine.policy)
    one.check()


@pytest.mark.compiled
def test_a_free_list_is_turned_round_to_what_was_looked_at():
    one = Packed()
    one.holes(20)
    before = free_pairs(one)
    assert len(before) == 128
    for at in (100, 0, 127):
        turn(one.z, before[at])
        assert free_pairs(one) == before[at:] + before[:at]
        one.check()


# --- what is taken ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("priority", "takes"), [(ASYNC, False), (LIGHT, True), (FULL, True)])
def test_asynchronously_only_pageblocks_of_the_type_are_sources(priority, takes):
    one = Packed()
    one.z.pb.label[FIRST] = R  # all of it is in use: nothing of it is on a list
    one.keep(FIRST, 0, 16)
    one.keep(FIRST + 1, 0, 16)
    one.keep(LAST, 0, 1)
    one.holes(30, 31)
    one.compact(priority)
    assert (one.used(FIRST) == []) == takes
    assert (one.used(FIRST + 1) == []) != takes


@pytest.mark.compiled
@pytest.mark.parametrize("is_forced", [0, 1])
@pytest.mark.parametrize("reason", ["label", "skip"])
def test_targets_are_movable_pageblocks_not_to_be_skipped_unless_forced(reason, is_forced):
    one = Packed()
    if reason == "label":
        one.z.pb.label[LAST] = U  # all of it is in use: nothing of it is on a list
    else:
        one.node.skip[LAST] = 1
    one.keep(LAST, 16, 248)
    one.keep(LAST - 1, 16, 248)
    scan_for(one.machine.world, one.machine.policy, 1, 1, is_forced)
    assert isolated(one) == [((LAST if is_forced else LAST - 1) << 9, 4)]
    give_back(one.machine.world, one.machine.policy)
    one.check()


@pytest.mark.compiled
def test_a_wholly_free_pageblock_is_no_target():
    one = Packed()
    one.keep(LAST, 0, 0)
    one.keep(LAST - 1, 16, 248)
    scan_for(one.machine.world, one.machine.policy, 1, 1, 1)
    assert isolated(one) == [((LAST - 1) << 9, 4)]
    give_back(one.machine.world, one.machine.policy)
    one.check()


@pytest.mark.parametrize(("priority", "left"), [(ASYNC, 16), (LIGHT, 1)])
def test_one_pinned_page_ends_an_aligned_block_asynchronously(priority, left):
    one = ready()
    one.keep(FIRST + 1, 0, 16)
    one.pin(FIRST << 9)
    assert one.compact(priority) == SUCCEEDED
    assert len(one.used(FIRST)) == left
    assert one.used(FIRST + 1) == []
    assert one.node.skip[FIRST] == 1


def test_huge_pages_stay_and_are_stepped_over_at_once():
    one = Packed()
    for pb in (FIRST, LAST):
        one.keep(pb, 0, 0)
    assert one.machine.fill(16_000, 2, order=9) == 2
    one.keep(FIRST + 1, 0, 16)
    one.holes(30, 31, 32)
    assert one.compact(LIGHT) == SUCCEEDED
    assert one.used(FIRST + 1) == []
    assert one.machine.vm("compact_migrate_scanned") == 2 * PB_PAGES + 32, "no page of the huge one"


# --- skip bits, ends of a run, deferral ------------------------------------------------------------


@pytest.mark.parametrize(("priority", "takes"), [(LIGHT, False), (FULL, True)])
def test_skip_bits_hold_for_sources_unless_forced(priority, takes):
    one = ready()
    one.keep(FIRST + 1, 0, 16)
    one.node.skip[FIRST] = 1
    assert one.compact(priority) == SUCCEEDED
    assert (one.used(FIRST) == []) == takes
    assert (one.used(FIRST + 1) == []) != takes


@pytest.mark.parametrize(("priority", "shift"), [(ASYNC, 0), (LIGHT, 1)])
def test_scanners_that_meet_begin_anew_and_defer_what_waits(priority, shift):
    """Every pageblock has a pinned page: no run can succeed."""
    one = Packed()
    one.holes(*range(40, 50))
    for pb in range(FIRST, LAST + 1):
        one.pin((pb << 9) + 2)
    assert one.compact(priority) == FAILED
    assert one.cc[Cc.CACHED_MIGRATE_ASYNC] == one.cc[Cc.CACHED_MIGRATE_SYNC] == 0
    assert one.cc[Cc.CACHED_FREE] == LAST << 9
    assert one.cc[Cc.BLOCKSKIP_FLUSH] == 1
    assert one.node.now[Now.COMPACT_DEFER_SHIFT] == shift
    assert one.machine.vm("compact_stall") == 1
    scanned = one.machine.vm("compact_migrate_scanned")
    again = one.compact(priority)
    assert again == (SKIPPED if shift else FAILED)
    assert one.machine.vm("compact_deferred") == shift
    # Nobody has forgotten the skip bits yet.
    assert one.machine.vm("compact_migrate_scanned") - scanned < 20 * PB_PAGES


def test_kswapd_forgets_skip_bits_when_it_sleeps():
    one = Packed()
    one.holes(*range(40, 50))
    for pb in range(FIRST, LAST + 1):
        one.pin((pb << 9) + 2)
    one.compact(LIGHT)
    assert one.node.skip[FIRST:].sum() > 20
    one.node.skip[FIRST:] = 1
    one.machine.row(Op.FREE, int(one.slot_at[60 << 9]))
    one.node.due[Wk.KSWAPD] = one.node.now[Now.NS]
    one.machine.work(int(one.node.now[Now.NS]) + MS)
    assert one.node.due[Wk.KSWAPD] == NEVER
    assert one.cc[Cc.BLOCKSKIP_FLUSH] == 0
    # Both ends go inwards in step, the upper one for free pages only until it has found some.
    assert np.flatnonzero(one.node.skip[FIRST:]).tolist() == [59, 60, 61]
    assert one.cc[Cc.CACHED_FREE] == 60 << 9
    assert one.cc[Cc.CACHED_MIGRATE_ASYNC] == FIRST << 9, "the first with pages on the LRU"
    one.check()


def test_64_failures_in_a_row_are_the_longest_deferral():
    one = Packed()
    one.holes(*range(40, 50))
    for pb in range(FIRST, LAST + 1):
        one.pin((pb << 9) + 2)
    asked, tried = 0, []
    while len(tried) < 8:
        one.node.now[Now.NS] += 1000 * MS
        asked += 1
        if one.machine.do(Verb.COMPACT, LIGHT) == FAILED:
            tried.append(asked)
    assert np.diff(tried).tolist() == [2, 4, 8, 16, 32, 64, 64]


@pytest.mark.parametrize("missing", [0, 1])
def test_free_pages_must_exceed_the_watermark_by_the_gap(missing):
    one = ready()
    one.node.conf[N.WMARK_LOW] = one.machine.free - 2 * PB_PAGES - 1 + missing
    assert one.compact(LIGHT) == (SKIPPED if missing else SUCCEEDED)
    assert one.machine.vm("compact_stall") == 1 - missing


def test_requests_share_the_rate():
    one = ready(reclaim__compact_candidates=1)
    assert one.compact(ASYNC) == SUCCEEDED
    assert one.compact(ASYNC) == SKIPPED
    assert one.machine.vm("compact_stall") == 1
    one.node.now[Now.NS] += MS
    assert one.compact(ASYNC) == SUCCEEDED


@entry_kernel
def index_of(z, order):
    """The fragmentation index of an order."""
    return rate_fragmentation(z, order)


@pytest.mark.compiled
def test_the_fragmentation_index_is_the_kernels():
    one = ready()
    nr = one.z.area.nr.reshape(-1, 11, 5).sum(axis=(0, 2))
    for order in (9, 10):
        blocks = int(nr.sum())
        assert index_of(one.z, order) == fragmentation_thousandths(one.machine.free, blocks, order) > 500
    assert index_of(one.z, 2) == -1000


@pytest.mark.compiled
@pytest.mark.parametrize("room", [True, False])
def test_huge_faults_count_what_came_of_their_compaction(room):
    one = ready()
    if not room:
        for pb in range(FIRST, LAST + 1):
            pinned = one.used(pb)
            one.pin((pb << 9) + pinned[0]) if pinned else None
    # A huge fault takes 512 slots of its owner in a row.
    for slot in range(512):
        if one.machine.slots(slot, 1)[0] >= 0:
            one.machine.row(Op.FREE, slot)
    one.node.now[Now.NS] += 1000 * MS
    before = one.machine.vm("thp_fault_alloc")
    one.machine.row(Op.THP, 0)
    served = one.machine.vm("thp_fault_alloc") - before
    stalls = one.machine.vm("compact_stall")
    assert one.machine.vm("compact_success") + one.machine.vm("compact_fail") == stalls
    assert one.machine.vm("compact_success") <= served
    one.check()


# --- in the background, and under superpageblocks ---------------------------------------------------


@pytest.mark.compiled
@pytest.mark.parametrize("policy", ["mainline", "v1@45"])
def test_kcompactd_runs_the_same_scanners(policy):
    one = Packed(policy, reclaim__kcompactd=True)
    one.holes(*range(40, 64))
    one.machine.do(Verb.WAKE, 9)
    assert one.node.due[Wk.KCOMPACTD] != NEVER
    one.machine.work(int(one.node.now[Now.NS]) + 1000 * MS)
    assert one.node.due[Wk.KCOMPACTD] == NEVER
    assert (one.z.pb.used[FIRST:, MOV] == 0).sum() == 1
    assert one.machine.vm("compact_daemon_migrate_scanned") == one.machine.vm("compact_migrate_scanned") > 0
    assert one.machine.vm("compact_daemon_free_scanned") == one.machine.vm("compact_free_scanned") > 0
    assert one.machine.vm("compact_stall") == 0
    assert one.cc[Cc.BLOCKSKIP_FLUSH] == 0
    one.check()


@pytest.mark.parametrize("priority", [ASYNC, LIGHT, FULL])
def test_places_lie_in_clean_superpageblocks_and_nothing_is_tainted(priority):
    one = Packed("v1@30")
    one.keep(FIRST, 0, 16)
    one.keep(LAST, 0, 200)
    one.holes(30, 31)
    assert one.machine.fill(16_000, 1, mt=U) == 1
    tainted = int(one.machine.slots(16_000, 1)[0]) >> 12
    before = [len(one.used(pb)) for pb in range(8 * tainted, 8 * tainted + 8)]
    taints = int(one.z.count[C.TAINTED_SPBS])
    assert taints == 1
    one.compact(priority)
    after = [len(one.used(pb)) for pb in range(8 * tainted, 8 * tainted + 8)]
    assert all(now <= then for now, then in zip(after, before, strict=True)), "pages leave it at most"
    assert one.z.count[C.TAINTED_SPBS] == taints
    assert one.machine.vm("pgmigrate_success") > 0


# --- soundness --------------------------------------------------------------------------------------


@pytest.mark.shell
@pytest.mark.parametrize("column", range(len(Cc)))
def test_a_wrong_cursor_or_control_is_told(column):
    machine = bare("mainline", **ON)
    node, geo = machine.world.node, machine.world.zone.geo
    check_compaction(node.compact, node.skip, geo)
    node.compact[column] = 7
    with pytest.raises(InvariantError, match=Cc(column).name.lower()):
        check_compaction(node.compact, node.skip, geo)


@pytest.mark.shell
@pytest.mark.parametrize("pb", [0, 63])
def test_a_wrong_skip_bit_is_told(pb):
    machine = bare("mainline", **ON)
    node = machine.world.node
    node.skip[pb] = 2
    with pytest.raises(InvariantError, match=rf"skip\[{pb}\]"):
        check_compaction(node.compact, node.skip, machine.world.zone.geo)
    assert FIRST_OF_RUN == Cc.ORDER


class CompactionMachine(RuleBasedStateMachine):
    """Any requests and frees on a small machine with pins and busy pages; sound after each compaction."""

    @initialize(
        policy=st.sampled_from(("mainline", "v1@15", "v1@30", "v2", "v1@45-full")),
        busy=st.sampled_from((0.0, 0.1)),
        pinned=st.sampled_from((0.0, 0.02)),
        pcp=st.booleans(),
    )
    def begin(self, policy, busy, pinned, pcp):
        values = {"workers__busy_share": busy, "workers__pinned_share": pinned}
        if policy != "v1@45-full":  # CPUs that own pageblocks need lists
            values["pcp__enabled"] = pcp
        self.machine = bare(policy, **ON, **values, workers__split_folios=True, reclaim__kcompactd=True)
        self.next = 0
        self.holes(0, 2, 14_000)

    def holes(self, order, step, n):
        """Blocks into free slots, and every `step`-th back."""
        n = min(n, 16_300 - self.next)
        if n <= 0:
            return
        self.machine.row(Op.ALLOC, self.next, n, order=order)
        for slot in range(self.next, self.next + n, step * 16):
            self.machine.row(Op.FREE, slot, min(8, 16_384 - slot))
        self.next += n

    @rule(order=st.integers(0, 4), step=st.integers(1, 3), n=st.integers(10, 900))
    def more(self, order, step, n):
        self.holes(order, step, n)

    @rule(mt=st.sampled_from((U, R)), order=st.integers(0, 3))
    def others(self, mt, order):
        if self.next < 16_300:
            self.machine.row(Op.ALLOC, self.next, 8, order=order, mt=mt)
            self.next += 8

    @rule(slot=st.integers(0, 16_000), n=st.integers(1, 200))
    def free(self, slot, n):
        self.machine.row(Op.FREE, slot, n)

    @rule(priority=st.sampled_from((ASYNC, LIGHT, FULL)), order=st.integers(1, 9))
    def compact(self, priority, order):
        node = self.machine.world.node
        node.now[Now.NS] += 10 * MS
        tainted = int(self.machine.world.zone.count[C.TAINTED_SPBS])
        self.machine.do(Verb.COMPACT, priority, order)
        assert self.machine.world.zone.count[C.TAINTED_SPBS] <= tainted
        self.sound()

    @rule()
    def huge(self):
        self.machine.do(Verb.WAKE, 9)
        self.machine.work(int(self.machine.world.node.now[Now.NS]) + 20 * MS)
        self.sound()

    def sound(self):
        world = self.machine.world
        self.machine.check()
        check_compaction(world.node.compact, world.node.skip, world.zone.geo)
        assert not world.node.places[:, :2].any()


@pytest.mark.compiled
def test_any_sequence_leaves_a_sound_state():
    run_state_machine_as_test(
        CompactionMachine,
        settings=settings(
            max_examples=2 if INTERPRETED else 40,
            stateful_step_count=4 if INTERPRETED else 25,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.compiled
@pytest.mark.parametrize("preset", cases("mainline", "v1@30"))
def test_a_continued_run_with_scanners_is_the_uninterrupted_one(preset, tmp_path):
    span, at = ("60ms", 37) if INTERPRETED else ("1500ms", 733)
    values = {**ON, "reclaim__kcompactd": True, "output__every": "10ms"}
    given = scenario(policy=preset, duration=span, **values)
    whole = run_replicate(given, 1, 0)
    kept = run_replicate(given, 1, 0, save=(at, lambda state: state.write(tmp_path / "a")), check=True)
    again = given.model_copy(update={"start": StartSpec(state=str(tmp_path / "a"))})
    found = run_replicate(again, 1, 0, check=True)
    assert kept.digest == whole.digest == found.digest
    names = {array["path"] for array in read_state_head(tmp_path / "a").arrays}
    assert {"0.node.compact", "0.node.skip"} <= names
    assert not {"0.node.places", "0.node.picked"} & names


SNIPPET = """
from spbfast.model.engine import run_replicate
from tests.demand_tools import scenario
from tests.imports import ROOT
for policy in ("mainline", "v1@30", "v1@45-full"):
    values = dict(reclaim__compaction="scanners", reclaim__kcompactd=True, duration="400ms")
    run = run_replicate(scenario(policy=policy, **values), 1, 0, check=True)
    isolated = run.data["vmstat"][list(run.coords["counter"]).index("compact_isolated"), -1]
    print(run.digest, run.events, int(isolated))
"""


@pytest.mark.skipif(INTERPRETED, reason="compares the compiled kernels with the interpreted ones")
def test_interpreted_scanners_give_the_same():
    found = words_by_pass(SNIPPET)
    assert found[0] == found[1]
    assert any(int(nr) > 0 for nr in found[0][2::3]), "the scanners have worked"
