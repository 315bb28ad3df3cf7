"""The HIGHATOMIC reserve against its twin: who takes, what joins, what leaves, and that nothing is lost."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spbfast.constants import AllocFlag, C, Mt, Outcome
from spbfast.jit.decorators import INTERPRETED, entry_kernel
from spbfast.model.allocator.highatomic import unreserve_highatomic
from spbfast.model.allocator.rmqueue import begin_event
from tests.reference import Geometry, OracleZone, Policy
from tests.reference.words import FLAG_HIGHATOMIC, FLAG_NOFRAGMENT, FLAG_NON_BLOCK, PB_PAGES
from tests.strategies import policies
from tests.zone_tools import compiled_zone, snapshot

U, M, R = int(Mt.UNMOVABLE), int(Mt.MOVABLE), int(Mt.RECLAIMABLE)
# The least zone with a reserve: a hundred pageblocks and a few more.
SMALL = Geometry(104 * PB_PAGES, 0, 8)
LARGER = Geometry(208 * PB_PAGES, 0, 16)  # three pageblocks of reserve
ATOMIC = int(AllocFlag.NON_BLOCK | AllocFlag.HIGHATOMIC)
QUICK = settings(
    max_examples=3 if INTERPRETED else 40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TRIGGERS = ("below_reserve", "would_taint", "below_high_water", "after_evacuation")
POLICIES = policies(highatomic_reserve=True, **{f"trigger_{name}": True for name in TRIGGERS})
FLAGS = (0, 0, FLAG_NOFRAGMENT, FLAG_NON_BLOCK, ATOMIC, ATOMIC, ATOMIC | FLAG_NOFRAGMENT)


@entry_kernel
def unreserve(z, policy, mt, force):
    """One pageblock out of the reserve, as an event of its own."""
    begin_event(z, 0)
    return unreserve_highatomic(z, policy, mt, force)


class Pair:
    """A compiled zone and its twin."""

    def __init__(self, geometry: Geometry, policy: Policy) -> None:
        self.twin = OracleZone(geometry, policy)
        self.zone = compiled_zone(geometry, policy)
        self.policy = policy

    def alloc(self, order: int, mt: int, flags: int) -> int:
        pfn = self.twin.alloc(order, mt, flags)
        assert self.zone.alloc(order, mt, flags) == pfn
        if self.policy.superpageblocks:
            assert int(self.zone.last.outcome) == self.twin.event.outcome
            assert int(self.zone.last.requests) == self.twin.event.requests
        return pfn

    def free(self, pfn: int) -> None:
        self.twin.free(pfn)
        self.zone.free(pfn)

    def unreserve(self, mt: int, force: bool) -> bool:
        done = self.twin.unreserve(mt, force)
        assert bool(unreserve(self.zone.state, self.zone.policy, mt, force)) == done
        return done

    def compare(self) -> None:
        assert snapshot(self.zone.state, self.policy.superpageblocks) == self.twin.snapshot()
        self.zone.check()

    @property
    def reserved(self) -> int:
        """Pageblocks of the reserve."""
        return int(self.zone.state.count[C.RESERVED_HIGHATOMIC]) // PB_PAGES


BOTH = pytest.mark.parametrize("superpageblocks", [False, True])


def pair(superpageblocks: bool, geometry: Geometry = SMALL, **values: bool) -> Pair:
    return Pair(geometry, Policy(superpageblocks=superpageblocks, highatomic_reserve=True, **values))


@BOTH
def test_the_first_atomic_block_reserves_its_pageblock_and_the_next_ones_come_from_there(superpageblocks):
    both = pair(superpageblocks)
    first = both.alloc(3, U, ATOMIC)
    # 1 % of 104 pageblocks, rounded up to whole ones.
    assert both.reserved == 2 or both.alloc(3, R, ATOMIC) >= 0
    assert both.zone.state.pb.label[first // PB_PAGES] == Mt.HIGHATOMIC
    second = both.alloc(3, U, ATOMIC)
    assert second // PB_PAGES == first // PB_PAGES
    assert both.zone.last.outcome == Outcome.TAKE_HIGHATOMIC
    both.compare()


@BOTH
def test_ordinary_callers_never_get_a_reserved_page(superpageblocks):
    both = pair(superpageblocks)
    first = both.alloc(3, U, ATOMIC)
    while both.alloc(10, M, 0) >= 0:
        pass
    for order in range(9, -1, -1):
        for mt in (M, U, R):
            while both.alloc(order, mt, 0) >= 0:
                pass
    free = both.zone.nr_free_blocks()
    assert free[:, Mt.HIGHATOMIC].sum() > 0
    assert free[:, :3].sum() == 0 or superpageblocks
    assert both.alloc(0, U, FLAG_NON_BLOCK) // PB_PAGES == first // PB_PAGES
    both.compare()


@BOTH
@pytest.mark.parametrize(("pageblocks", "most"), [(98, 0), (104, 2), (200, 2), (208, 3)])
def test_the_reserve_is_one_percent_rounded_up_and_nothing_in_small_zones(superpageblocks, pageblocks, most):
    both = pair(superpageblocks, Geometry(pageblocks * PB_PAGES, 0, 8))
    for _ in range(12 * 64):
        if both.alloc(3, U, ATOMIC) < 0:
            break
    assert both.reserved == most
    both.compare()


@BOTH
def test_the_last_pageblock_is_kept_unless_it_is_forced(superpageblocks):
    both = pair(superpageblocks, LARGER)
    for _ in range(4 * 64):
        both.alloc(3, U, ATOMIC)
    assert both.reserved == 3
    # One page of each pageblock stays: free blocks below order 9 leave one pageblock at a time.
    for pfn in list(both.twin.live()):
        if pfn % PB_PAGES:
            both.free(pfn)
    while both.unreserve(M, False):
        both.compare()
    assert both.reserved == 1
    assert both.unreserve(M, True)
    assert both.reserved == 0
    both.compare()


def test_a_reserved_pageblock_taints_its_superpageblock_even_while_it_is_free():
    both = pair(True)
    pfn = both.alloc(3, U, ATOMIC)
    both.free(pfn)
    assert both.zone.nr_free_pages() == both.zone.nr_pages
    assert both.zone.tainted() == 1
    assert both.unreserve(M, True)
    assert both.zone.tainted() == 0
    both.compare()


def test_without_the_switch_the_flags_mean_nothing():
    both = Pair(SMALL, Policy())
    plain = Pair(SMALL, Policy())
    for order in (3, 1, 0, 9, 3):
        assert both.alloc(order, U, ATOMIC) == plain.alloc(order, U, 0)
    assert both.reserved == 0
    assert snapshot(both.zone.state, True) == snapshot(plain.zone.state, True)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("alloc"),
            st.sampled_from((0, 1, 2, 3, 3, 5, 8, 9, 10, 10)),
            st.sampled_from((U, U, M, R)),
            st.sampled_from(FLAGS),
            st.integers(1, 20),
        ),
        st.tuples(st.just("fill"), st.sampled_from((M, U)), st.integers(50, 99)),
        st.tuples(st.just("free"), st.integers(0, 20), st.integers(1, 7)),
        st.tuples(st.just("unreserve"), st.sampled_from((U, M, R)), st.booleans()),
    ),
    min_size=4,
    max_size=14,
)


def run(both: Pair, operation: tuple) -> None:
    match operation:
        case ("alloc", order, mt, flags, count):
            for _ in range(count):
                both.alloc(order, mt, flags)
        case ("fill", mt, percent):
            while both.zone.nr_free_pages() * 100 > (100 - percent) * both.zone.nr_pages:
                if both.alloc(9, mt, 0) < 0:
                    break
        case ("free", first, step):
            for pfn in list(both.twin.live())[first::step]:
                both.free(pfn)
        case ("unreserve", mt, force):
            both.unreserve(mt, force)
    both.compare()


@QUICK
@given(st.sampled_from((SMALL, LARGER)), POLICIES, OPERATIONS)
def test_superpageblock_zones_with_a_reserve_equal_their_twin(geometry, policy, operations):
    both = Pair(geometry, policy)
    for operation in operations:
        run(both, operation)


@pytest.mark.compiled
@QUICK
@given(st.sampled_from((SMALL, LARGER)), OPERATIONS)
def test_mainline_zones_with_a_reserve_equal_their_twin(geometry, operations):
    both = Pair(dataclasses.replace(geometry), Policy(superpageblocks=False, highatomic_reserve=True))
    for operation in operations:
        run(both, operation)


@pytest.mark.heavy
@settings(QUICK, max_examples=500)
@given(st.sampled_from((SMALL, LARGER)), POLICIES, OPERATIONS)
def test_superpageblock_zones_with_a_reserve_equal_their_twin_at_length(geometry, policy, operations):
    both = Pair(geometry, policy)
    for operation in operations:
        run(both, operation)


def test_flags_of_the_reserve_are_those_of_the_twin():
    assert (int(AllocFlag.NON_BLOCK), int(AllocFlag.HIGHATOMIC)) == (FLAG_NON_BLOCK, FLAG_HIGHATOMIC)
