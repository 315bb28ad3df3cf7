"""Ranges as one event end exactly where page by page ends: lists, counts, marks for walks, and slots."""

from __future__ import annotations

import numpy as np
import pytest

from spbfast.constants import MOVABLE, RECLAIMABLE, UNMOVABLE, C, Ev
from spbfast.jit.decorators import INTERPRETED
from spbfast.model.loop.churn import run_lifetimes, run_ranges
from spbfast.model.loop.replay import boot_zone
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.model.state.build import ZoneSpec, boot_chunks, build_zone
from spbfast.model.state.check import check_zone
from spbfast.model.state.layout import FIELDS, ZoneState
from spbfast.model.state.page_state import links_of, states_of
from spbfast.model.state.slots import blocks_in

PAGES = 32 * 512
LENGTHS = (1, 3, 16, 64, 500, 1500)
# Links are compared by walking the lists: those of pages that head nothing are left-overs.
# A range searches once where its pages one by one do so each time: searches are not compared.
LEFT_OVER = {"page.word", "ev", "spb.defrag_mark", "scratch", "records", "walks"}
POLICIES = {
    "mainline": ("mainline", {}),
    "two walks": ("v1@15", {}),
    "as posted": ("v1@30", {}),
    "hint": ("v1@45", {}),
    "fragments first": ("v1@30", {"whole_pageblock_first": False}),
    "two walks, fragments first": ("v1@15", {"whole_pageblock_first": False}),
    "hint, fragments first": ("v1@45", {"whole_pageblock_first": False}),
    "high water, fragments first": ("v1@43", {"whole_pageblock_first": False}),
    "exact content, fragments first": ("v1@32", {"whole_pageblock_first": False, "sticky_content": False}),
    "exact content": ("v1@32", {"sticky_content": False}),
}


def make_zone(policy: np.ndarray, superpageblocks: bool) -> ZoneState:
    """A booted zone of four superpageblocks, with three owners' worth of slots in one owner."""
    zone, _ = build_zone(ZoneSpec(PAGES, spb_pb=8, superpageblocks=superpageblocks, owner_slots=(3 * PAGES,)))
    boot_zone(zone, policy, boot_chunks(zone, zone.geo.lo, zone.geo.hi))
    return zone


def lists_of(zone: ZoneState) -> list[list[int]]:
    """Every free list, head to tail."""
    out = []
    after, _ = links_of(zone.page)
    for head in range(zone.geo.list0, after.size):
        pages, at = [], int(after[head])
        while at != head:
            pages.append(at)
            at = int(after[at])
        out.append(pages)
    return out


def assert_same(one: ZoneState, two: ZoneState) -> None:
    """Everything that later events can see is equal."""
    for field in FIELDS:
        if field.path in LEFT_OVER:
            continue
        a, b = one, two
        for name in field.path.split("."):
            a, b = getattr(a, name), getattr(b, name)
        if field.path == "count":
            a, b = np.delete(a, C.HINTS_USED), np.delete(b, C.HINTS_USED)
        assert np.array_equal(a, b), field.path
    assert lists_of(one) == lists_of(two)
    held = blocks_in(one.slots)
    held = held[held >= 0]
    pages = slice(one.geo.nr_pages)
    assert np.array_equal(states_of(one.page, pages), states_of(two.page, pages))
    assert np.array_equal(one.page.word[held], two.page.word[held])


def run_singly(zone: ZoneState, policy: np.ndarray, slots: np.ndarray, mt: int) -> tuple[int, int, int]:
    """The same slots one event each: pages served or freed, superpageblocks stepped on, requests raised."""
    nr = visited = requests = 0
    for slot in slots:
        nr += run_lifetimes(zone, policy, np.array([slot], np.int32), mt)
        visited += int(zone.ev[Ev.VISITED])
        requests |= int(zone.ev[Ev.REQUESTS])
    return nr, visited, requests


def run_both(policy: np.ndarray, superpageblocks: bool, seed: int, nr_rows: int) -> int:
    """Random ranges on two zones, in bulk and singly; number of pages allocated and freed."""
    bulk, single = make_zone(policy, superpageblocks), make_zone(policy, superpageblocks)
    rng = np.random.default_rng(seed)
    pages = 0
    for row in range(nr_rows):
        mt = int(rng.choice([MOVABLE, MOVABLE, MOVABLE, UNMOVABLE, RECLAIMABLE]))
        length = int(rng.choice(LENGTHS))
        # Ranges of one length live in their own stretch of the type's slots, so that they never overlap.
        stretch = PAGES // len(LENGTHS)
        place = int(rng.integers(0, stretch // length)) * length
        first = mt * PAGES + LENGTHS.index(length) * stretch + place
        slots = np.arange(first, first + length)
        live = slots[blocks_in(bulk.slots, slots) >= 0]
        begins = not live.size
        done = run_ranges(bulk, policy, np.array([first], np.int32), mt, length)
        nr, visited, requests = run_singly(single, policy, slots if begins else live, mt)
        assert done == nr
        if not begins or done == length:
            assert (bulk.ev[Ev.VISITED], bulk.ev[Ev.REQUESTS]) == (visited, requests)
        pages += done
        if row % 8 == 0:
            assert_same(bulk, single)
    assert_same(bulk, single)
    check_zone(bulk, policy)
    return pages


@pytest.mark.parametrize("name", POLICIES)
def test_ranges_equal_single_pages(name: str) -> None:
    preset, changes = POLICIES[name]
    policy = policy_array({"preset": preset, **changes})
    seeds, nr_rows = (1, 60) if INTERPRETED else (1, 300)
    pages = sum(run_both(policy, name != "mainline", seed, nr_rows) for seed in range(seeds))
    assert pages > 50 * seeds * nr_rows


def test_ranges_equal_single_pages_up_to_a_full_zone() -> None:
    policy = policy_array("v1@30")
    bulk, single = make_zone(policy, True), make_zone(policy, True)
    slots = np.arange(MOVABLE * PAGES, MOVABLE * PAGES + PAGES)
    assert run_ranges(bulk, policy, slots[:1].astype(np.int32), MOVABLE, PAGES) == PAGES
    assert run_lifetimes(single, policy, slots.astype(np.int32), MOVABLE) == PAGES
    assert_same(bulk, single)
    more = np.array([0], np.int32)
    assert run_ranges(bulk, policy, more, MOVABLE, 5) == 0
    assert np.all(blocks_in(bulk.slots, slice(5)) == -1)


@pytest.mark.compiled
@pytest.mark.parametrize("preset", ["mainline", "v1@30", "v1@45"])
def test_a_range_frees_neighbours_of_different_types(preset: str) -> None:
    policy = policy_array(preset)
    bulk, single = make_zone(policy, preset != "mainline"), make_zone(policy, preset != "mainline")
    for slot in range(0, PAGES, 4):
        mt = slot // 4 % 3
        for zone in (bulk, single):
            run_ranges(zone, policy, np.array([slot], np.int32), mt, 4)
    live = np.flatnonzero(blocks_in(bulk.slots) >= 0).astype(np.int32)
    assert run_ranges(bulk, policy, np.array([0], np.int32), MOVABLE, PAGES) == live.size
    assert run_lifetimes(single, policy, live, MOVABLE) == live.size
    assert_same(bulk, single)


def test_a_range_in_a_fresh_superpageblock_takes_whole_pageblocks_first() -> None:
    policy = policy_array("v1@30")
    zone = make_zone(policy, True)
    run_ranges(zone, policy, np.array([0], np.int32), MOVABLE, 10)
    pages = zone.slots.link[:10] - zone.slots.link[0]
    # A page of each of the eight pageblocks, then their fragments.
    assert sorted(pages[:8] // 512) == list(range(8))
    assert np.all(pages[8:] % 512 == 1)
