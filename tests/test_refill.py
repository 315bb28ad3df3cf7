"""Refills in runs end exactly where requests one by one end: lists, counts, searches and requests raised.

While events are recorded every block of a refill is a request of its own, so a zone that records and one
that doesn't are the two sides.
"""

from __future__ import annotations

import numpy as np
import pytest

from spbfast.constants import ALLOC_NOFRAGMENT, MOVABLE, RECLAIMABLE, UNMOVABLE
from spbfast.jit.decorators import INTERPRETED
from spbfast.model.loop import replay
from spbfast.model.loop.replay_rows import event_rows, result_rows
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.model.state.build import PcpConf, ZoneSpec, boot_chunks, build_zone
from spbfast.model.state.check import check_zone
from spbfast.model.state.layout import FIELDS, ZoneState
from spbfast.model.state.page_state import CODE_PCP, links_of, states_of
from spbfast.model.state.trace import Tp, start_records
from spbfast.model.state.walk import read_pcp_lists
from tests.test_range import POLICIES

PAGES = 32 * 512
CPUS = 2
MASK = 1 << Tp(0)
MORE_POLICIES = {
    "mainline, exact content": ("mainline", {"sticky_content": False}),
    "bitmaps": ("v1@30", {"choose_by_bitmap": True}),
    "bitmaps, fragments first": ("v1@30", {"choose_by_bitmap": True, "whole_pageblock_first": False}),
    "bulk calls don't fragment": ("v1@30", {"bulk_nofragment": True}),
}
# Of records, links of pages that head nothing and states of list heads are left-overs.
NEVER_EQUAL = {"page.word", "trace.head", "trace.nr", "trace.where", "trace.rows", "trace.clock"}


def make_zone(policy: np.ndarray, superpageblocks: bool, recording: bool) -> ZoneState:
    """A booted zone of four superpageblocks with per-CPU lists large enough for long refills."""
    zone, _ = build_zone(
        ZoneSpec(
            PAGES,
            spb_pb=8,
            superpageblocks=superpageblocks,
            nr_cpus=CPUS,
            pcp=PcpConf(batch=15, high_min=60, high_max=400),
            owner_slots=(PAGES,),
            trace_mask=MASK,
            trace_rows=1,
        )
    )
    replay.boot_zone(zone, policy, boot_chunks(zone, zone.geo.lo, zone.geo.hi))
    if recording:
        start_records(zone.trace, MASK)
    return zone


def draw_events(rng: np.random.Generator, held: dict[int, int], nr: int) -> np.ndarray:
    """Random requests, mostly small, frees of what may be held, drains; updates `held` (handle: order)."""
    events = np.zeros((nr, replay.NR_EVENT_FIELDS), np.int64)
    for event in events:
        event[replay.E_CPU] = rng.integers(CPUS)
        what = rng.random()
        if what < 0.02:
            event[replay.E_OP] = replay.DRAIN if what < 0.01 else replay.DECAY
        elif held and what < 0.02 + 0.9 * sum(1 << order for order in held.values()) / PAGES:
            handle = int(rng.choice(list(held)))
            del held[handle]
            event[[replay.E_OP, replay.E_HANDLE]] = replay.FREE, handle
        else:
            handle = next(i for i in range(PAGES) if i not in held)
            order = int(
                rng.choice([0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 9], p=[*[0.15] * 6, 0.03, 0.03, 0.02, 0.01, 0.01])
            )
            held[handle] = order
            mt = rng.choice([MOVABLE, MOVABLE, MOVABLE, UNMOVABLE, RECLAIMABLE])
            flags = rng.choice([0, ALLOC_NOFRAGMENT])
            event[: replay.E_FLAGS + 1] = replay.ALLOC, handle, order, mt, flags
    return events


def assert_same(one: ZoneState, two: ZoneState) -> None:
    """All state but the records and left-over links is equal."""
    pages = slice(one.geo.nr_pages)
    state = states_of(one.page)
    assert np.array_equal(state[pages], states_of(two.page, pages))
    linked = (state & 0x0F != 0x0F) & (state >> 4 != CODE_PCP)
    linked[one.geo.list0 :] = True
    linked[one.geo.pcp0 : one.geo.resting0] = False  # strands' ends, and blocks on them: lists are compared
    for a, b in zip(links_of(one.page, linked), links_of(two.page, linked), strict=True):
        assert np.array_equal(a, b)
    for cpu in range(one.geo.nr_cpus):
        for a, b in zip(read_pcp_lists(one, cpu), read_pcp_lists(two, cpu), strict=True):
            assert np.array_equal(a, b)
    for field in FIELDS:
        if field.path in NEVER_EQUAL:
            continue
        a, b = one, two
        for name in field.path.split("."):
            a, b = getattr(a, name), getattr(b, name)
        assert np.array_equal(a, b), field.path


def run_both(policy: np.ndarray, superpageblocks: bool, seed: int, nr: int) -> int:
    """Random events on two zones, one of which refills block by block; refilled blocks left on lists."""
    rng = np.random.default_rng(seed)
    runs = make_zone(policy, superpageblocks, recording=False)
    singly = make_zone(policy, superpageblocks, recording=True)
    held: dict[int, int] = {}
    pins = np.zeros(2, np.int64)
    rested = 0
    for _ in range(nr):
        events = draw_events(rng, held, 50)
        results = [result_rows(len(events)) for _ in range(2)]
        for zone, out in zip((runs, singly), results, strict=True):
            replay.run_events(zone, policy, event_rows(events), 0, len(events), pins, out)
        assert np.array_equal(*results)
        assert_same(runs, singly)
        rested += int(runs.pcp.nr.sum())
    check_zone(runs, policy)
    return rested


@pytest.mark.parametrize("name", [*POLICIES, *MORE_POLICIES])
def test_refills_equal_single_requests(name: str) -> None:
    preset, changes = (POLICIES | MORE_POLICIES)[name]
    policy = policy_array({"preset": preset, **changes})
    seeds, nr = (1, 8) if INTERPRETED else (2, 120)
    rested = sum(run_both(policy, preset != "mainline", seed, nr) for seed in range(seeds))
    assert rested > 10 * nr * seeds
