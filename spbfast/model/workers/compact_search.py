"""The free scanner's look at the free lists, before it scans: a block from the top of what is left to scan.

Source: mm/compaction.c as of Linux 6.6, fast_isolate_freepages, fast_isolate_around, next_search_order,
freelist_scan_limit, move_freelist_head. Model: with superpageblocks an order's list is those of the clean
ones, from the zone's end down.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import MOVABLE, PB_ORDER, PB_PAGES
from spbfast.jit.decorators import kernel
from spbfast.model.allocator.buddy import take_block
from spbfast.model.allocator.freelist import has_block, move_to_front
from spbfast.model.allocator.pfn import list_of
from spbfast.model.state.compact_layout import Cc
from spbfast.model.state.page_state import free_state, prev_of
from spbfast.model.workers.compact_cursors import first_in_pageblock
from spbfast.model.workers.compact_places import (
    add_place_head,
    add_place_tail,
    find_place,
    is_open_to_movable,
    is_target,
    isolate_places,
    isolate_places_in,
    may_isolate,
    take_place_head,
)
from spbfast.model.workers.compact_sources import CLUSTER

LOOK_AT_START = PB_PAGES // 2  # blocks of an order that a scan looks at when it begins


@kernel
def rate_look(cc, is_begun):
    """How many blocks of an order to look at: fewer after each search in vain."""
    if not is_begun:
        return np.int64(LOOK_AT_START)
    return max(np.int64(1), ((CLUSTER >> min(cc[Cc.SEARCH_FAILED], np.int64(63))) + 1) >> 1)


@kernel
def set_next_order(cc, order):
    """The order to search after `order`, round by round, or -1 after a whole round."""
    order -= 1
    if order < 0:
        order = cc[Cc.ORDER] - 1
    if order == cc[Cc.SEARCH_ORDER]:
        cc[Cc.SEARCH_ORDER] -= 1
        if cc[Cc.SEARCH_ORDER] < 0:
            cc[Cc.SEARCH_ORDER] = cc[Cc.ORDER] - 1
        return np.int64(-1)
    return order


@kernel
def run_look(z, cc, set_, order, low, least):
    """Look at a list from its tail: (a block from `low` on, else the highest from `least`, or -1; looked at).

    The list begins with the last block looked at afterwards, so that the next search sees others.
    """
    head = z.geo.list0 + list_of(set_, order, MOVABLE)
    pfn = prev_of(z.page, head)
    best, looked = np.int64(-1), np.int64(0)
    while pfn != head:
        looked += 1
        cc[Cc.FREE_SCANNED] += 1
        cc[Cc.HIGHEST] = max(cc[Cc.HIGHEST], first_in_pageblock(pfn))
        if pfn >= low:
            cc[Cc.SEARCH_FAILED] = 0
            cc[Cc.SEARCH_ORDER] = order
            best = pfn
            break
        if pfn >= least and pfn > best:
            best = pfn
            cc[Cc.LOOK] >>= 1
        if looked >= cc[Cc.LOOK]:
            break
        pfn = prev_of(z.page, pfn)
    at = best if best >= 0 else pfn
    if at != head:
        move_to_front(z.page, head, at, free_state(order, MOVABLE))
    return best, looked


@kernel
def run_look_at_order(w, policy, order, low, least):
    """`run_look` at all lists of an order that places may come from; (block or -1, blocks looked at)."""
    z, cc = w.zone, w.node.compact
    if z.geo.set_mask == 0:
        if not has_block(z, 0, order, MOVABLE):
            return np.int64(-1), np.int64(0)
        return run_look(z, cc, np.int64(0), order, low, least)
    looked = np.int64(0)
    for i in range(z.geo.nr_spb):
        spb = np.int64(z.geo.nr_spb - 1 - i)
        if not has_block(z, spb, order, MOVABLE) or not is_open_to_movable(z, policy, spb):
            continue
        pfn, nr = run_look(z, cc, spb, order, low, least)
        looked += nr
        if pfn >= 0 or looked >= cc[Cc.LOOK]:
            return pfn, looked
    return np.int64(-1), looked


@kernel
def take_from_lists_fast(w, policy, low, least):
    """Isolate one block that the lists name, orders in turn; its page or -1."""
    z, cc = w.zone, w.node.compact
    order = cc[Cc.SEARCH_ORDER]
    while order >= 0:
        pfn, looked = run_look_at_order(w, policy, order, low, least)
        if pfn >= 0:
            if may_isolate(w, 1 << order):
                take_block(z, pfn, order, order, MOVABLE)
                add_place_tail(w.node.places, order, pfn)
                cc[Cc.NR_FREE] += 1 << order
                cc[Cc.ISOLATED] += 1 << order
                cc[Cc.FREE_SCANNED] += (1 << order) - 1
                return pfn
            return np.int64(-1)
        if looked >= cc[Cc.LOOK] and looked > 0:
            cc[Cc.LOOK] = max(np.int64(1), cc[Cc.LOOK] >> 1)
        order = set_next_order(cc, order)
    return np.int64(-1)


@kernel
def isolate_around(w, pfn):
    """Isolate what else the pageblock of a page has free, unless that is enough or there is haste."""
    node = w.node
    cc = node.compact
    if cc[Cc.NR_FREE] >= cc[Cc.NR_MIGRATE] or (cc[Cc.DIRECT] and not cc[Cc.SYNC]):
        return
    first = first_in_pageblock(pfn)
    end, _ = isolate_places_in(w, first, first + PB_PAGES, np.int64(1))
    if end == first + PB_PAGES:
        node.skip[pfn >> PB_ORDER] = 1


@kernel
def search_places(w, policy):
    """Isolate a place from the free lists if there is one high up in what is left to scan."""
    z, cc = w.zone, w.node.compact
    is_begun = cc[Cc.INIT_FREE] >= 0 and cc[Cc.FREE] < cc[Cc.INIT_FREE]
    cc[Cc.LOOK] = rate_look(cc, is_begun)
    cc[Cc.HIGHEST] = 0
    distance = max(cc[Cc.FREE] - cc[Cc.MIGRATE], 0)
    low = first_in_pageblock(cc[Cc.FREE] - (distance >> 2))
    least = first_in_pageblock(cc[Cc.FREE] - (distance >> 1))
    cc[Cc.SEARCH_ORDER] = min(cc[Cc.SEARCH_ORDER], cc[Cc.ORDER] - 1)
    pfn = take_from_lists_fast(w, policy, low, least)
    if pfn < 0:
        cc[Cc.SEARCH_FAILED] += 1
        if not is_begun:
            if cc[Cc.HIGHEST] >= least and cc[Cc.HIGHEST] > 0:
                pfn = cc[Cc.HIGHEST]
                cc[Cc.FREE] = pfn
            elif cc[Cc.DIRECT]:
                pfn = least
                cc[Cc.FREE] = pfn
    if cc[Cc.HIGHEST] > 0 and cc[Cc.HIGHEST] >= cc[Cc.CACHED_FREE]:
        cc[Cc.CACHED_FREE] = cc[Cc.HIGHEST] - PB_PAGES
    if pfn < 0 or not is_open_to_movable(z, policy, pfn >> z.geo.spb_shift):
        return
    if is_target(z, cc, pfn >> PB_ORDER):
        isolate_around(w, pfn)


@kernel
def isolate_more(w, policy):
    """Isolate places: from the lists if that gives any, else by scanning (isolate_freepages)."""
    cc = w.node.compact
    search_places(w, policy)
    if cc[Cc.NR_FREE] == 0:
        isolate_places(w, policy)


@kernel
def take_place(w, policy, order):
    """A place for a block of 2**order pages that waits, or -1: the scanner has none (compaction_alloc)."""
    cc, places = w.node.compact, w.node.places
    high = find_place(places, order)
    if high < 0:
        isolate_more(w, policy)
        high = find_place(places, order)
    if high < 0:
        return np.int64(-1)
    pfn = take_place_head(places, high)
    while high > order:
        high -= 1
        add_place_head(places, high, pfn + (1 << high))
    cc[Cc.NR_FREE] -= 1 << order
    cc[Cc.NR_MIGRATE] -= 1 << order
    return pfn
