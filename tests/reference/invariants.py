"""What must hold in the twin between any two operations, recomputed from scratch.

Owns the checks only.  Every count is rebuilt from the free blocks and the held blocks, so that a slip
in the twin's bookkeeping is found where it happens and not when a trace differs later.
"""

from __future__ import annotations

from tests.reference.buddy import BuddyZone
from tests.reference.freelists import FreeLists
from tests.reference.spb_state import TYPES, SpbState
from tests.reference.words import EMPTY, HIGHATOMIC, MAX_ORDER, MOVABLE, PB_ORDER, PB_PAGES


def check_free_lists(lists: FreeLists) -> list[int]:
    """Every block is on one list, that of its label, merged as far as it goes; free pages per pageblock."""
    free = [0] * len(lists.label)
    pages = [0] * len(lists.nr_free_pages)
    whole = [0] * len(lists.nr_free_pb)
    on_lists = [(pfn, key) for key, area in lists.lists.items() for pfn in area]
    assert len(on_lists) == len(lists.block), "a block is on two lists, or on none"
    for pfn, (spb, order, mt) in on_lists:
        assert lists.block[pfn] == (order, mt), f"block {pfn} is on the wrong list"
        assert lists.spb_of(pfn) == spb, f"block {pfn} is on a list of another superpageblock"
        assert pfn % (1 << order) == 0, f"block {pfn} of order {order} is not aligned"
        assert lists.start <= pfn, f"block {pfn} begins before the zone"
        assert pfn + (1 << order) <= lists.end, f"block {pfn} reaches beyond the zone"
        pbs = lists.pbs_of(pfn, order)
        for pb in pbs:
            assert lists.label[pb] == mt, f"block {pfn} is on list {mt}, its pageblock labelled otherwise"
            free[pb] += min(1 << order, PB_PAGES)
        if order < MAX_ORDER:
            assert lists.block.get(pfn ^ (1 << order), (None,))[0] != order or order == PB_ORDER, (
                f"free buddies of order {order} at {pfn} are not merged"
            )
        pages[spb] += 1 << order
        whole[spb] += (1 << order) >> PB_ORDER
    assert pages == lists.nr_free_pages
    assert whole == lists.nr_free_pb
    return free


def check_buddy(zone: BuddyZone) -> None:
    """Free and held pages make up the zone; nothing is held twice (no pages on per-CPU lists)."""
    free = check_free_lists(zone.lists)
    used = [[0, 0, 0] for _ in zone.lists.label]
    owned: set[int] = set()
    for relative, (order, mt) in zone.live.items():
        pages = range(relative + zone.start, relative + zone.start + (1 << order))
        assert owned.isdisjoint(pages), f"a page of the block at {relative} is held twice"
        owned.update(pages)
        for pfn in pages:
            used[zone.lists.pb_of(pfn)][mt] += 1
    assert used == zone.used
    for pb in range(len(free)):
        first = max(zone.lists.pb_start(pb), zone.lists.start)
        last = min(zone.lists.pb_start(pb) + PB_PAGES, zone.lists.end)
        assert free[pb] + sum(used[pb]) == last - first, f"pageblock {pb} lost or gained pages"


def check_spb(zone: SpbState) -> None:
    """Content bits, use, categories, buckets and lists all follow from the blocks."""
    free = check_free_lists(zone.lists)
    used = [[0, 0, 0] for _ in range(zone.n_pb)]
    for block in zone.blocks.values():
        if block.spb is None:
            for pb in zone.lists.pbs_of(block.pfn, block.order):
                used[pb][block.mt] += min(1 << block.order, PB_PAGES)
    assert used == zone.used
    for pb in range(zone.n_pb):
        held = zone.isolated[pb // zone.per_spb]
        assert free[pb] + sum(used[pb]) == (0 if held else PB_PAGES), f"pageblock {pb} lost or gained pages"
        for mt in TYPES:
            assert zone.has[pb][mt] or not used[pb][mt], f"pageblock {pb} holds {mt} without its bit"
            if not zone.policy.sticky_content:
                assert zone.has[pb][mt] == (used[pb][mt] > 0), f"pageblock {pb} has a stale bit {mt}"
        if not sum(used[pb]):
            assert not any(zone.has[pb]), f"pageblock {pb} is wholly free and has content bits"
    assert zone.reserved == {pb for pb in range(zone.n_pb) if zone.lists.label[pb] == HIGHATOMIC}
    for spb in range(zone.n_spb):
        _check_one(zone, spb)
    listed = sorted(spb for members in zone.spb_lists.values() for spb in members)
    assert listed == list(range(zone.n_spb)), "a superpageblock is on two lists, or on none"


def _check_one(zone: SpbState, spb: int) -> None:
    pbs = zone.pbs_in(spb)
    content = [sum(zone.has[pb][mt] for pb in pbs) for mt in TYPES]
    assert content == zone.content[spb], f"superpageblock {spb}: content counts"
    assert zone.place[spb] == zone._true_place(spb), f"superpageblock {spb}: category or bucket is stale"
    assert spb in zone.spb_lists[zone.place[spb]], f"superpageblock {spb} is on another list"
    if zone.place[spb][0] == EMPTY and zone.policy.relabel_on_empty:
        assert all(zone.lists.label[pb] == MOVABLE for pb in pbs), f"empty superpageblock {spb} has labels"
