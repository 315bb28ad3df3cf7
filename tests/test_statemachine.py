"""The compiled zone against the reference twin: random operations, equal states after each of them.

Geometry, policy and operations are drawn; examples are few here and many in the heavy tests. Every
difference that hypothesis finds shrinks to the shortest sequence that shows it.
"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from spbfast.jit.decorators import INTERPRETED
from spbfast.zone import Zone
from tests.reference import Geometry, OracleZone, Policy
from tests.strategies import (
    FLAGS,
    ORDERS,
    Operation,
    calls,
    fills,
    mainline_geometries,
    mixed_openings,
    operations,
    policies,
    spb_geometries,
)
from tests.zone_tools import compiled_zone, snapshot

QUICK = settings(
    max_examples=4 if INTERPRETED else 30,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
HEAVY = settings(QUICK, max_examples=400, stateful_step_count=80)
EVENT_FIELDS = ("outcome", "visited", "visited_fallback", "requests", "moved")
SPB_GEOMETRIES = spb_geometries((2, 4, 8))
# The allocator records what it would ask for; whether a trigger may is for whoever executes requests.
TRIGGERS = ("below_reserve", "would_taint", "below_high_water", "after_evacuation")
POLICIES = policies(**{f"trigger_{name}": True for name in TRIGGERS})


class Pair:
    """A compiled zone and its twin; every call is made to both, then both are compared."""

    def __init__(self, geometry: Geometry, policy: Policy) -> None:
        self.twin = OracleZone(geometry, policy)
        self.zone: Zone = compiled_zone(geometry, policy)
        self.start = geometry.start_pfn
        self.policy = policy

    def call(self, name: str, args: tuple[int, ...]) -> None:
        expected = getattr(self.twin, name)(*args)
        if name == "free":
            self.zone.free(args[0] + self.start)
        else:
            found = getattr(self.zone, name)(*args)
            if name in ("alloc", "contig"):
                assert found == (expected + self.start if expected >= 0 else -1)
        if self.policy.superpageblocks:
            event, last = self.twin.event, self.zone.last
            for field in EVENT_FIELDS:
                assert int(getattr(last, field)) == int(getattr(event, field)), field

    def compare(self) -> None:
        assert snapshot(self.zone.state, self.policy.superpageblocks) == self.twin.snapshot()
        self.zone.check()

    def run(self, operation: Operation) -> None:
        for name, args in calls(operation, self.twin):
            self.call(name, args)
        self.compare()


class ZoneMachine(RuleBasedStateMachine):
    """One superpageblock zone with any policy."""

    def __init__(self) -> None:
        super().__init__()
        self.pair: Pair | None = None

    @initialize(geometry=SPB_GEOMETRIES, policy=POLICIES, opening=st.one_of(st.just(()), mixed_openings()))
    def boot(self, geometry, policy, opening) -> None:
        self.pair = Pair(geometry, policy)
        self.pair.compare()
        for operation in opening:
            self.pair.run(operation)

    def call(self, name: str, *args: int) -> None:
        assert self.pair is not None
        self.pair.call(name, args)
        self.pair.compare()

    @rule(order=st.sampled_from(ORDERS), mt=st.sampled_from((0, 1, 1, 2)), flags=st.sampled_from(FLAGS))
    def alloc(self, order, mt, flags) -> None:
        self.call("alloc", order, mt, flags)

    @rule(operation=fills())
    def fill(self, operation) -> None:
        self.pair.run(operation)

    @precondition(lambda self: self.pair.twin.live())
    @rule(pick=st.integers(0, 1 << 16))
    def free(self, pick) -> None:
        live = list(self.pair.twin.live())
        self.call("free", live[pick % len(live)])

    @rule(order=st.integers(0, 9), mt=st.sampled_from((0, 2)))
    def evacuate(self, order, mt) -> None:
        self.call("evacuate", order, mt)

    @rule(pick=st.integers(0, 1 << 16))
    def defrag(self, pick) -> None:
        self.call("defrag", pick % self.pair.zone.state.geo.nr_spb)

    @rule(
        pick=st.integers(0, 1 << 16),
        most=st.integers(1, 4),
        free_pb=st.integers(0, 4),
        fragments=st.integers(0, 2),
    )
    def compact(self, pick, most, free_pb, fragments) -> None:
        self.call("compact", pick % self.pair.zone.state.geo.nr_spb, most, free_pb, fragments)

    @rule()
    def contig(self) -> None:
        self.call("contig")

    def teardown(self) -> None:
        """When everything is freed, all memory is in the largest blocks again."""
        if self.pair is None:
            return
        for pfn in list(self.pair.twin.live()):
            self.pair.call("free", (pfn,))
        self.pair.compare()
        zone = self.pair.zone
        assert zone.nr_free_pages() == zone.nr_pages
        assert zone.nr_free_blocks()[10].sum() << 10 == zone.nr_pages
        assert zone.tainted() == 0


@pytest.mark.compiled
def test_superpageblock_zone_equals_its_twin() -> None:
    run_state_machine_as_test(ZoneMachine, settings=QUICK)


@pytest.mark.heavy
def test_superpageblock_zone_equals_its_twin_at_length() -> None:
    run_state_machine_as_test(ZoneMachine, settings=HEAVY)


@pytest.mark.compiled
@settings(QUICK, max_examples=10 if INTERPRETED else 80)
@given(SPB_GEOMETRIES, POLICIES, operations(5, 20))
def test_random_sequences_equal_the_twin(geometry, policy, sequence) -> None:
    pair = Pair(geometry, policy)
    for operation in sequence:
        pair.run(operation)


@pytest.mark.compiled
@settings(QUICK, max_examples=10 if INTERPRETED else 150)
@given(mainline_geometries(), operations(5, 25, workers=False))
def test_steered_claims_equal_their_twin(geometry, sequence) -> None:
    policy = Policy(superpageblocks=False, claim_prefers_tainted=True)
    pair = Pair(dataclasses.replace(geometry, pageblocks_per_spb=4), policy)
    for operation in sequence:
        pair.run(operation)


@settings(QUICK, max_examples=10 if INTERPRETED else 80)
@given(mainline_geometries(), operations(5, 25, workers=False))
def test_mainline_zone_equals_its_twin(geometry, sequence) -> None:
    pair = Pair(dataclasses.replace(geometry, pageblocks_per_spb=4), Policy(superpageblocks=False))
    for operation in sequence:
        pair.run(operation)


@pytest.mark.heavy
@settings(HEAVY, max_examples=1000)
@given(mainline_geometries(), operations(5, 40, workers=False))
def test_mainline_zone_equals_its_twin_at_length(geometry, sequence) -> None:
    pair = Pair(dataclasses.replace(geometry, pageblocks_per_spb=4), Policy(superpageblocks=False))
    for operation in sequence:
        pair.run(operation)
