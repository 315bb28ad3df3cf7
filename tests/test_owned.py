"""CPUs that own pageblocks: known answers, equality with the twin under random operations, planted faults."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from spbfast.constants import NR_REQUEST_MT, NR_RESTING_LISTS, NR_RESTING_ORDERS, PAGE_SIZE, PB_PAGES, C, Mt
from spbfast.errors import InvariantError, ZoneError
from spbfast.jit.decorators import INTERPRETED
from spbfast.model.loop import replay
from spbfast.model.loop.replay_rows import event_rows, result_rows
from spbfast.model.state.check import check_zone, field_of
from spbfast.model.state.walk import read_lists
from spbfast.verify.switches import switch_array
from spbfast.zone import Zone
from tests.reference import Geometry, Policy
from tests.reference.owned import OwnedZone
from tests.strategies import FLAGS, policies, spb_geometries
from tests.test_check import flip
from tests.zone_tools import snapshot

U, M, R = int(Mt.UNMOVABLE), int(Mt.MOVABLE), int(Mt.RECLAIMABLE)
PCP = {"batch": 8, "high": 2048}
OWNED = {"preset": "v1@30", "pcp_owned_pageblocks": True}
FULL = {**OWNED, "pcp_adopts_partial": True, "pcp_stays_in_tainted": True, "bulk_nofragment": True}


def zone(policy: Any = OWNED, cpus: int = 4, size: str = "64MiB", pcp: Any = PCP) -> Zone:
    return Zone(size, policy, spb_size="16MiB", pcp=pcp, cpus=cpus)


def owners(z: Zone) -> list[int]:
    """Owning CPU of each pageblock that has one."""
    found = z.state.pb.owner.astype(int)
    return sorted((found[found > 0] - 1).tolist())


def conserved(z: Zone, held: int) -> None:
    """No page is lost: free, at rest and held pages are all there are."""
    z.check()
    assert z.nr_free_pages() + int(z.state.count[C.PCP_PAGES]) + held == z.nr_pages


# -- known answers -------------------------------------------------------------------------------


@pytest.mark.parametrize("cpus", [1, 3, 4])
def test_cpus_strand_one_pageblock_each_and_type(cpus: int) -> None:
    """N CPUs that ask for one page of each type: N pageblocks a type are owned, no more."""
    z = zone(cpus=cpus)
    for cpu in range(cpus):
        for mt in (U, M, R):
            assert z.alloc(0, mt, cpu=cpu) >= 0
    assert owners(z) == sorted(list(range(cpus)) * 3)
    assert z.state.pcp.nr_owned.tolist() == [1] * (3 * cpus)
    assert int(z.state.count[C.PCP_PAGES]) == 3 * cpus * (PB_PAGES - 1)
    conserved(z, 3 * cpus)


def test_classic_lists_strand_a_batch() -> None:
    """The same requests through classic lists leave a batch each, doubled each time, not a pageblock."""
    z = zone("v1@30")
    for cpu in range(4):
        for mt in (U, M, R):
            z.alloc(0, mt, cpu=cpu)
    assert int(z.state.count[C.PCP_PAGES]) == 4 * sum((PCP["batch"] << k) - 1 for k in range(3))
    assert owners(z) == []
    conserved(z, 12)


def test_a_page_freed_elsewhere_returns_to_its_owner() -> None:
    z = zone()
    first = z.alloc(0, U, cpu=1)
    z.free(first, cpu=3)
    assert z.alloc(0, U, cpu=1) == first
    assert z.state.pcp.nr_owned.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    conserved(z, 1)


def test_freed_pages_merge_to_the_whole_pageblock_and_a_drain_returns_it() -> None:
    z = zone()
    pages = z.alloc_many(PB_PAGES, 0, M, cpu=2)
    assert owners(z) == [2]
    assert z.state.pcp.resting.sum() == 0
    z.free_many(np.random.default_rng(3).permutation(pages), cpu=0)
    lists = z.state.pcp.resting.reshape(4, NR_REQUEST_MT, NR_RESTING_ORDERS)
    assert lists[2, M].tolist() == [0] * 9 + [1]
    assert lists.sum() == 1
    assert owners(z) == [2]
    z.drain(2)
    assert owners(z) == []
    assert z.nr_free_pages() == z.nr_pages
    assert z.tainted() == 0
    conserved(z, 0)


def test_drained_fragments_come_back_before_another_pageblock_is_claimed() -> None:
    z = zone()
    first = z.alloc(0, R, cpu=1)
    z.drain()
    assert owners(z) == [1]
    assert int(z.state.count[C.PCP_PAGES]) == 0
    second = z.alloc(0, R, cpu=1)
    assert second // PB_PAGES == first // PB_PAGES
    assert z.state.count[C.PCP_PAGEBLOCKS_CLAIMED] == 1
    assert z.state.count[C.PCP_FRAGMENTS_TAKEN_BACK] == PB_PAGES - 1
    other = z.alloc(0, R, cpu=2)
    assert other // PB_PAGES != first // PB_PAGES
    conserved(z, 3)


def test_who_does_not_own_claims_though_fragments_lie_about_unless_it_adopts() -> None:
    """A drained pageblock without owner in a tainted superpageblock: adopted, or left lying for a new one."""
    found = {}
    for name, policy in (("claims", OWNED), ("adopts", FULL)):
        z = zone(policy, pcp={"batch": 8, "high": 0})
        # Above the reserve, and every pageblock of it labelled and used: nothing whole is left in it.
        held = [z.alloc(8, R) for _ in range(8)] + [z.alloc(8, R) for _ in range(8)]
        for pfn in held[1::2]:
            z.free(pfn)
        before = z.tainted()
        z.alloc(0, R, cpu=3)
        found[name] = (before, z.tainted(), int(z.state.count[C.PCP_PAGEBLOCKS_ADOPTED]))
        conserved(z, 8 * 256 + 1)
    assert found == {"claims": (1, 2, 0), "adopts": (1, 1, 1)}


def full_but_for_half_a_pageblock(policy: dict[str, Any]) -> Zone:
    """UUmmmmmm ........: the tainted superpageblock has nothing free but half of one movable pageblock."""
    z = zone(policy, size="32MiB")
    for order in (5, 8, 8, 8, 7, 6, 5):
        z.alloc(order, U)
    movable = z.alloc_many(27, 8, M)
    z.free_many(movable[movable >= z.start_pfn + 8 * PB_PAGES])
    z.drain()
    assert z.picture().split()[1] == "........"
    assert z.tainted() == 1
    return z


def test_refills_stay_in_tainted_superpageblocks_when_told_to() -> None:
    """No whole pageblock in the tainted pool, but movable fragments: borrowed, or an empty one is opened."""
    tainted = {}
    for stays in (False, True):
        policy = {**OWNED, "preset": "v1@45", "pcp_stays_in_tainted": stays, "claim_partial_pageblock": False}
        z = full_but_for_half_a_pageblock({**policy, "reserve_floor": 0, "reserve_shift": -1})
        assert z.alloc(0, U, cpu=1) >= 0
        tainted[stays] = z.tainted()
        z.check()
    assert tainted == {False: 2, True: 1}


def test_a_relabelled_pageblock_loses_its_owner() -> None:
    z = zone({**OWNED, "preset": "mainline"}, cpus=2, size="4MiB")
    pages = z.alloc_many(8, 0, M, cpu=0)
    other = z.alloc_many(8, 0, M, cpu=1)
    z.drain()
    assert owners(z) == [0, 1]
    # Unmovable requests find only movable pageblocks, more than half free: they claim one.
    z.alloc(5, U)
    assert len(owners(z)) == 1
    conserved(z, len(pages) + len(other) + 32)


def test_evacuation_drains_first() -> None:
    """An owned movable pageblock of a tainted superpageblock can be emptied: what rests of it goes back."""
    z = zone({**OWNED, "movable_into_tainted": True, "reserve_floor": 0, "reserve_shift": -1}, size="32MiB")
    z.alloc(5, U)  # taints the first superpageblock
    z.alloc_many(8, 9, M)  # fills the second, so that movable pages must go to the first
    z.drain()
    movable = z.alloc(0, M, cpu=1)
    pb = (movable - z.start_pfn) // PB_PAGES
    assert pb < 8
    assert z.state.pb.owner[pb] == 2
    resting = int(z.state.count[C.PCP_PAGES])
    assert resting == PB_PAGES - 1
    z.evacuate(0, U)
    assert z.state.pb.owner[pb] == 0
    assert int(z.state.count[C.PCP_PAGES]) == 0
    conserved(z, 32 + 8 * PB_PAGES + 1)


def test_contiguous_allocation_drains_all_cpus() -> None:
    for policy in ("v1@30", OWNED):
        z = zone(policy, size="32MiB")
        keep = [z.alloc(0, M, cpu=cpu) for cpu in (0, 1)]
        z.free(keep.pop(), cpu=1)
        first = z.contig()
        assert first >= 0
        second = z.contig()
        assert second == -1
        z.check()
        z.free(first)
        z.check()


def test_huge_pages_freed_by_a_cpu_are_its_own() -> None:
    z = zone(pcp={"batch": 8, "high": 4096})
    huge = z.alloc(9, M, cpu=0)
    z.drain()
    z.free(huge, cpu=3)
    assert set(owners(z)) <= {0, 3}
    assert z.alloc(9, M, cpu=owners(z)[-1]) >= 0
    z.check()


def test_bulk_refills_do_not_fragment_but_the_request_may() -> None:
    """Movable memory with a few free pages left: an unmovable request steals one page, not a batch."""
    left = {}
    for bulk in (False, True):
        z = Zone("4MiB", {"preset": "mainline", "bulk_nofragment": bulk}, spb_size="4MiB", pcp=PCP)
        held = z.alloc_many(256, 2, M)
        for pfn in held[::16]:
            z.free(pfn)
        z.drain()
        assert z.alloc(0, U, 0) >= 0
        left[bulk] = int(z.state.count[C.PCP_PAGES])
        z.check()
    assert left == {False: PCP["batch"] - 1, True: 0}


def test_wrong_cpus_are_named() -> None:
    with pytest.raises(ZoneError, match="cpus must be 1..8192, got 0"):
        zone(cpus=0)
    with pytest.raises(ZoneError, match="cpus 2 needs per-CPU lists"):
        Zone("64MiB", spb_size="16MiB", cpus=2)
    z = zone()
    with pytest.raises(ZoneError, match=r"cpu must be 0..3, got 4"):
        z.alloc(0, M, cpu=4)
    with pytest.raises(ZoneError, match=r"cpu must be 0..3, got -1"):
        z.drain(-1)
    pfn = z.alloc(0, M)
    z.free(pfn)
    with pytest.raises(ZoneError, match="is free, on a per-CPU list"):
        z.free(pfn)


# -- equality with the twin ----------------------------------------------------------------------

CPUS = 3
ORDERS = (0, 0, 0, 1, 2, 3, 5, 8, 9, 9, 10)
GEOMETRIES = spb_geometries((2, 4, 8), max_spbs=4)
TUNABLES = st.sampled_from(
    [
        {"batch": 4, "high_min": 8, "high_max": 40},
        {"batch": 8, "high_min": 0, "high_max": 0},
        {"batch": 31, "high_min": 124, "high_max": 1500},
        {"batch": 63, "high_min": 600, "high_max": 600},
    ]
)
SWITCHES = policies(
    pcp_owned_pageblocks=True,
    **{
        f"trigger_{n}": True for n in ("below_reserve", "would_taint", "below_high_water", "after_evacuation")
    },
)
QUICK = settings(
    max_examples=3 if INTERPRETED else 40,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def owned_snapshot(z: Zone) -> dict[str, Any]:
    """The compiled zone as the twin's `snapshot` tells it."""
    state = z.state
    lengths, _, pfns = read_lists(state, state.geo.resting0, CPUS * NR_RESTING_LISTS)
    ends = np.cumsum(lengths)
    rest = {}
    for i, nr in enumerate(lengths.tolist()):
        if nr:
            cpu, kind = divmod(i, NR_RESTING_LISTS)
            mt, order = divmod(kind, NR_RESTING_ORDERS)
            rest[cpu, order, mt] = pfns[ends[i] - nr : ends[i]].tolist()
    returning = {}
    for i in range(CPUS * NR_REQUEST_MT):
        members, at = [], int(state.pb.next[state.geo.nr_pb + i])
        while at < state.geo.nr_pb:
            members.append(at)
            at = int(state.pb.next[at])
        if members:
            returning[divmod(i, NR_REQUEST_MT)] = members
    nr_pb = z.nr_pages // PB_PAGES
    return snapshot(state, True) | {
        "owner": (state.pb.owner[:nr_pb].astype(int) - 1).tolist(),
        "rest": rest,
        "returning": returning,
        "pcp_stat": state.pcp.cpu.tolist(),
    }


class OwnedPair:
    """A compiled zone and its twin; every call is made to both, then both are compared."""

    def __init__(self, geometry: Geometry, policy: Policy, tunables: dict[str, int]) -> None:
        self.twin = OwnedZone(geometry.n_pageblocks, geometry.pageblocks_per_spb, policy, CPUS, **tunables)
        self.zone = Zone(
            geometry.zone_pages * PAGE_SIZE,
            switch_array(policy.as_dict()),
            spb_size=geometry.pageblocks_per_spb * PB_PAGES * PAGE_SIZE,
            start_pfn=0,
            pcp=tunables,
            cpus=CPUS,
        )
        self.handle = 0

    def alloc(self, order: int, mt: int, flags: int, cpu: int) -> None:
        self.handle += 1
        expected = self.twin.alloc(self.handle, order, mt, flags, cpu).pfn
        assert self.zone.alloc(order, mt, flags, cpu=cpu) == expected
        assert int(self.zone.last.requests) == self.twin.event.requests

    def fill(self, percent: int, order: int, mt: int) -> None:
        for _ in range(self.zone.nr_pages * percent // 100 >> order):
            self.alloc(order, mt, 0, 0)

    def free(self, pick: int, cpu: int) -> None:
        live = sorted(self.twin.blocks)
        if live:
            self.twin.free(live[pick % len(live)], cpu)
            self.zone.free(live[pick % len(live)], cpu=cpu)
            assert int(self.zone.last.requests) == self.twin.event.requests

    def call(self, name: str, *args: int) -> None:
        getattr(self.twin, name)(*args)
        getattr(self.zone, name)(*args)

    def contig(self) -> None:
        self.handle += 1
        assert self.zone.contig() == self.twin.contig(self.handle).pfn

    def compare(self) -> None:
        self.zone.check()
        assert owned_snapshot(self.zone) == self.twin.snapshot()


class OwnedMachine(RuleBasedStateMachine):
    """A zone of three CPUs that own pageblocks, with any other switches."""

    @initialize(
        geometry=GEOMETRIES, policy=SWITCHES, tunables=TUNABLES, full=st.sampled_from((0, 30, 60, 90))
    )
    def boot(self, geometry, policy, tunables, full) -> None:
        self.pair = OwnedPair(geometry, policy, tunables)
        self.pair.fill(full, 8, M)
        self.pair.compare()

    @rule(
        order=st.sampled_from(ORDERS),
        mt=st.sampled_from((U, M, R)),
        flags=st.sampled_from(FLAGS),
        cpu=st.integers(0, CPUS - 1),
        nr=st.sampled_from((1, 1, 5, 40)),
    )
    def alloc(self, order, mt, flags, cpu, nr) -> None:
        for _ in range(nr):
            self.pair.alloc(order, mt, flags, cpu)
        self.pair.compare()

    @rule(pick=st.integers(0, 1 << 16), cpu=st.integers(0, CPUS - 1), nr=st.sampled_from((1, 1, 5, 40)))
    def free(self, pick, cpu, nr) -> None:
        for i in range(nr):
            self.pair.free(pick + 7 * i, cpu)
        self.pair.compare()

    @rule(name=st.sampled_from(("drain", "decay", "decay")))
    def give_back(self, name) -> None:
        self.pair.call(name)
        self.pair.compare()

    @rule(mt=st.sampled_from((U, R)))
    def evacuate(self, mt) -> None:
        self.pair.call("evacuate", 0, mt)
        self.pair.compare()

    @rule(pick=st.integers(0, 1 << 16))
    def defrag(self, pick) -> None:
        self.pair.call("defrag", pick % self.pair.zone.state.geo.nr_spb)
        self.pair.compare()

    @rule()
    def contig(self) -> None:
        self.pair.contig()
        self.pair.compare()

    def teardown(self) -> None:
        """When all is freed and drained, all memory is in the largest blocks and nobody owns anything."""
        if not hasattr(self, "pair"):
            return
        while self.pair.twin.blocks:
            self.pair.free(0, 0)
        self.pair.call("drain")
        self.pair.compare()
        z = self.pair.zone
        assert z.nr_free_blocks()[10].sum() << 10 == z.nr_pages
        assert z.tainted() == 0
        assert owners(z) == []


@pytest.mark.compiled
def test_owned_zone_equals_its_twin() -> None:
    run_state_machine_as_test(OwnedMachine, settings=QUICK)


@pytest.mark.heavy
def test_owned_zone_equals_its_twin_at_length() -> None:
    run_state_machine_as_test(
        OwnedMachine, settings=settings(QUICK, max_examples=400, stateful_step_count=80)
    )


@pytest.mark.compiled
@settings(QUICK, max_examples=4 if INTERPRETED else 40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("aaaafffdDe"),
            st.sampled_from(ORDERS),
            st.sampled_from((U, M, R)),
            st.sampled_from((0, 0x100)),
            st.integers(0, CPUS - 1),
            st.integers(0, 1 << 16),
        ),
        min_size=20,
        max_size=80,
    ),
    st.booleans(),
    TUNABLES,
)
def test_mainline_stays_sound(sequence, bulk, tunables) -> None:
    """Without superpageblocks: conservation and every invariant after each operation."""
    policy = {**OWNED, "preset": "mainline", "bulk_nofragment": bulk}
    z = Zone("32MiB", policy, spb_size="16MiB", pcp=tunables, cpus=CPUS)
    held: dict[int, int] = {}
    for op, order, mt, flags, cpu, pick in sequence:
        if op == "a":
            pfn = z.alloc(order, mt, flags, cpu=cpu)
            if pfn >= 0:
                held[pfn] = 1 << order
        elif op == "f" and held:
            pfn = sorted(held)[pick % len(held)]
            del held[pfn]
            z.free(pfn, cpu=cpu)
        elif op in "dD":
            (z.drain if op == "D" else z.decay)()
        conserved(z, sum(held.values()))
    z.free_many(list(held))
    z.drain()
    assert z.nr_free_blocks()[10].sum() << 10 == z.nr_pages


# -- planted faults --------------------------------------------------------------------------------

FIELDS = ("pb.owner", "pb.next", "pb.prev", "pcp.resting", "pcp.nr_owned", "spb.nr_resting_pages")
PARTNERS = {
    "pb.owner": {"pcp.nr_owned", "page.state", "pb.next"},
    "pb.next": {"pb.prev"},
    "pb.prev": {"pb.next"},
}


def prepared() -> Zone:
    """Three CPUs with pageblocks of every type: partly used, drained, merged, adopted."""
    z = zone(FULL, cpus=3, pcp={"batch": 8, "high_min": 64, "high_max": 900})
    rng = np.random.default_rng(5)
    held: list[int] = []
    for i in range(160):
        held.append(z.alloc(int(rng.choice([0, 0, 1, 3, 5])), int(rng.integers(3)), cpu=int(rng.integers(3))))
        if i % 3 == 0:
            z.free(held.pop(int(rng.integers(len(held)))), cpu=int(rng.integers(3)))
    z.drain(1)
    z.alloc(0, R, cpu=1)
    z.check()
    assert len(set(owners(z))) == 3
    assert (z.state.pb.next[: z.state.geo.nr_pb] >= 0).any()
    assert z.state.pcp.resting.sum() > 20
    return z


@pytest.mark.parametrize("path", FIELDS)
def test_planted_faults_of_owned_pageblocks_are_named(path: str) -> None:
    z = prepared()
    rng = np.random.default_rng(11)
    array = field_of(z.state, path)
    for _ in range(24):
        flat, bit = int(rng.integers(array.size)), int(rng.integers(8 * array.itemsize))
        flip(array, flat, bit)
        with pytest.raises(InvariantError) as caught:
            check_zone(z.state, z.policy)
        flip(array, flat, bit)
        named = caught.value.where.split("[")[0]
        assert named in {path, *PARTNERS.get(path, ())}, f"bit {bit} of element {flat}: {caught.value}"
    z.check()


def test_a_run_of_rows_may_name_every_cpu() -> None:
    """The event loop takes the CPU from the row."""
    z = zone()
    rows = np.zeros((4, replay.NR_EVENT_FIELDS), np.int64)
    rows[:, replay.E_OP], rows[:, replay.E_MT], rows[:, replay.E_CPU] = replay.ALLOC, M, np.arange(4)
    rows[:, replay.E_HANDLE] = np.arange(4)
    out = result_rows(4)
    replay.run_events(z.state, z.policy, event_rows(rows), 0, 4, np.zeros(2, np.int64), out)
    assert owners(z) == [0, 1, 2, 3]
