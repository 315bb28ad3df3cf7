"""Runs of single pages end exactly where page by page ends: pages, lists, scalars, counters, slots.

While events are recorded there are no runs, so a machine that records and one that doesn't are the two sides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spbfast.constants import PB_PAGES, C, Op, Row, Tp, Tune
from spbfast.jit.decorators import INTERPRETED
from spbfast.model.engine import run_replicate
from spbfast.model.state.page_state import CODE_PINNED, states_of
from spbfast.model.state.trace import NR_TRACE_FIELDS, start_records
from tests.demand_tools import scenario
from tests.machine_tools import ATOMIC, USER, M, Machine, R, U, bare
from tests.passes import cases_of
from tests.test_refill import assert_same

KIND = 1 << Tp.SPB_PB_TAINT
SLOTS = 16_384  # of the owner of a bare machine
POLICIES = ("mainline", "v1@15", "v1@30", "v1@45", "v2")
SWITCHES: dict[str, Any] = {
    "as it is": {},
    "no pins": {"workers__pinned_share": 0.0},
    "many pins": {"workers__pinned_share": 0.3},
    "own pins": {"pinned": {"share": 0.3, "cluster": "64KiB"}, "workers__split_folios": True},
    "barred pages don't count": {"reclaim__barred_free": "subtracted"},
    "exact content": {"policy__sticky_content": False},
    "lists short below high": {"pcp__shrink_below_high": True},
    "owned pageblocks": {"policy__pcp_owned_pageblocks": True},
}


def pair(policy: str, **values: Any) -> tuple[Machine, Machine]:
    """Two equal machines; the second records. Demand puts pages behind heads of huge pages, so none may split
    unless a case says so."""
    values.setdefault("workers__split_folios", False)
    one, two = bare(policy, **values), bare(policy, **values)
    trace = two.world.zone.trace._replace(rows=np.zeros((1, 1, NR_TRACE_FIELDS), np.int64))
    for machine in (one, two):
        if values.get("pcp__shrink_below_high"):  # and memory crosses the mark again and again
            machine.world.zone.pcp.conf[Tune.MARK_HIGH] = machine.free - 300
    zone = two.world.zone._replace(trace=trace)
    two.world = two.world._replace(zone=zone)
    start_records(zone.trace, KIND)
    return one, two


class Demand:
    """Random rows that ask for pages into empty slots only, mostly single ones and many at a time."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.used = np.zeros(SLOTS, bool)

    def length(self) -> int:
        return int(self.rng.choice([1, 3, 20, 200, 700]))

    def row(self) -> tuple[int, ...]:
        rng = self.rng
        op = int(rng.choice([Op.ALLOC, Op.ALLOC, Op.FREE, Op.REPLACE, Op.REPLACE, Op.REPLACE, Op.THP]))
        first, nr = int(rng.integers(SLOTS - 1100)), self.length()
        if op == Op.REPLACE:
            nr = 1
        elif op == Op.THP:
            first, nr = first // PB_PAGES * PB_PAGES, 1
        span = slice(first, first + (PB_PAGES if op == Op.THP else nr))
        if op in (Op.ALLOC, Op.THP) and self.used[span].any():
            op, nr = int(Op.FREE), span.stop - span.start
        self.used[span] = op != Op.FREE
        order = int(rng.choice([0, 0, 0, 0, 0, 0, 0, 1, 3])) if op in (Op.ALLOC, Op.REPLACE) else 0
        mt = M if op == Op.THP else int(rng.choice([M, M, M, U, R]))
        cls = USER if op == Op.THP else int(rng.choice([USER, ATOMIC]))
        return (op, 0, first, nr, order, -1, mt, cls, int(rng.integers(4)))

    def rows(self, owner: int, nr: int) -> list[tuple[int, ...]]:
        out = [self.row() for _ in range(nr)]
        return [(*row[: Row.OWNER], owner, *row[Row.OWNER + 1 :]) for row in out]


def assert_same_machines(one: Machine, two: Machine) -> None:
    assert_same(one.world.zone, two.world.zone)
    for name in ("vm", "now", "due", "cache"):
        assert np.array_equal(getattr(one.world.node, name), getattr(two.world.node, name)), name


@pytest.mark.compiled
@pytest.mark.parametrize("switches", SWITCHES)
@pytest.mark.parametrize("policy", cases_of(POLICIES))
def test_runs_equal_single_pages(policy: str, switches: str) -> None:
    if policy == "mainline" and "policy" in next(iter(SWITCHES[switches]), ""):
        pytest.skip("a switch of superpageblocks")
    one, two = pair(policy, **SWITCHES[switches])
    demand = Demand(len(policy) + len(switches))
    ms = 0
    for _ in range(3 if INTERPRETED else 60):
        rows = demand.rows(one.owner, 10)
        for machine in (one, two):
            assert machine.rows(*rows) == 0
        assert_same_machines(one, two)
        ms += 5
        for machine in (one, two):
            machine.work(ms * 1_000_000)
    assert_same_machines(one, two)
    assert one.vm("page_events") > (200 if INTERPRETED else 5_000)
    one.check()


@pytest.mark.parametrize("active", [False, True])
def test_a_page_is_given_back_as_two_events_leave_it(active: bool) -> None:
    """REPLACE, one by one: below the limit the page stays, with the pin that its new lifetime drew."""
    one, two = pair("v1@30", workers__pinned_share=0.5)
    rng = np.random.default_rng(5)
    for machine in (one, two):
        machine.fill(0, 300)
        machine.world.zone.count[C.RECLAIM_ACTIVE] = active
    stays = 0
    for slot in rng.integers(300, size=200):
        before = int(one.slots(int(slot), 1)[0])
        for machine in (one, two):
            machine.row(Op.REPLACE, int(slot))
        stays += before == int(one.slots(int(slot), 1)[0])
    assert_same_machines(one, two)
    assert stays > 100
    codes = {int(state) >> 4 for state in states_of(one.world.zone.page, one.slots(0, 300))}
    assert codes == {M, CODE_PINNED}
    one.check()


WHOLE = {
    "one node": {},
    "two nodes and DMA32": {"machine__nodes": 2, "machine__dma32": "16MiB", "machine__cpus": 4},
    "own pins, huge pages split": {
        "workers__split_folios": True,
        "actors__daemons__pinned": {"share": 0.2},
        "actors__guests__pinned": {"share": 0.1, "cluster": "64KiB"},
    },
}


@pytest.mark.skipif(INTERPRETED, reason="whole runs; interpreted, rows are compared above")
@pytest.mark.parametrize("machine", WHOLE)
@pytest.mark.parametrize("policy", ["mainline", "v1@30", "v2"])
def test_a_run_that_records_is_the_same_run(policy: str, machine: str) -> None:
    given = scenario(policy=policy, duration="3s", **WHOLE[machine])
    plain = run_replicate(given, 1, 0)
    recorded = run_replicate(given, 1, 0, records=("spb_pb_taint",))
    assert plain.digest == recorded.digest
    assert plain.demand_digest == recorded.demand_digest
