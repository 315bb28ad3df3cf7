"""The loop over recorded page events: what a real kernel's lists gave out and took back.

Owns the mapping from recorded page frames to those of the simulated machine, and the verbs that let a zone
follow a recording: take exactly this block, free what is known. `replay_page_events` repeats the demand under
any policy; judge_events.py compares with mainline page by page. Pages in use are marked one by one, because a
block may be freed in pieces.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    HIGHATOMIC,
    MAX_ORDER,
    MODE_NORMAL,
    NR_REQUEST_MT,
    PB_ORDER,
    PB_PAGES,
    UNMOVABLE,
    C,
    Ev,
)
from spbfast.jit.decorators import entry_kernel, inline_kernel, kernel
from spbfast.model.allocator.buddy import free_pieces, is_free_buddy
from spbfast.model.allocator.free import hand_out
from spbfast.model.allocator.freelist import add_to_free_list, del_from_free_list
from spbfast.model.allocator.pcp import drain_all, pcp_alloc, pcp_free
from spbfast.model.allocator.pcplist import is_pcp_order
from spbfast.model.allocator.rmqueue import begin_event, rmqueue_in_mode
from spbfast.model.allocator.settle import settle
from spbfast.model.allocator.spb import account_pages, add_used, del_used, set_content
from spbfast.model.state.page_state import (
    STATE_HOLE,
    STATE_TAIL,
    code_of,
    free_mt,
    is_free_head,
    set_record,
    set_tail,
    state_at,
    used_state,
)

PAGE_ALLOC, PAGE_FREE, PAGE_FREE_TO_TAIL = range(3)
# Columns of a recorded row; pages relative to page index 0 of the zone. CLAIMED: the pageblock got the
# request's type; FALLBACK: the type that it had, -1 where nobody fell back.
X_OP, X_PFN, X_ORDER, X_MT, X_CPU, X_BULK, X_CLAIMED, X_FALLBACK = range(8)
NR_PAGE_ROW_FIELDS = 8
# What a replay counts.
(
    N_ALLOCS,
    N_FREES,
    N_FAILED,  # requests that the simulated machine could not serve
    N_LIVE_PAGES,  # pages handed out while they were still held: a free was not recorded
    N_UNKNOWN_PAGES,  # pages freed that were never seen handed out
    N_SPLIT,  # frees of a part of what was handed out, or of several at once
    N_PAIRS,  # events on a page that an earlier event was about, or whose state at the start was known
    N_MISSED,  # of those, the ones before which an event must be missing
) = range(8)
NR_REPLAY_COUNTS = 8
# In place of a page: no event was about it yet; it was given back; its request was not served here.
NOT_SEEN, GIVEN_BACK, UNSERVED = -1, -2, -3


@inline_kernel
def is_held_page(z, pfn):
    """Whether a page is in use, marked by `hold_pages`."""
    state = state_at(z.page, pfn)
    return state != STATE_TAIL and state != STATE_HOLE and not is_free_head(state) and state & 15 == 0


@kernel
def hold_pages(z, pfn, order, mt):
    """Mark every page of a block that was taken for a request of type mt; no owner has them in a slot."""
    for i in range(pfn, pfn + (1 << order)):
        set_record(z.page, i, used_state(mt, 0), 0, 0)


@kernel
def drop_pages(z, policy, pfn, order):
    """Unmark the pages of a block and take them out of the accounts; the type of the first."""
    mt = code_of(state_at(z.page, pfn))
    for i in range(pfn, pfn + (1 << order)):
        del_used(z, policy, i, 0, code_of(state_at(z.page, i)))
        set_tail(z.page, i)
    return mt


@kernel
def release_pages(z, policy, pfn, order, to_tail):
    """Free a block of held pages to the free lists."""
    drop_pages(z, policy, pfn, order)
    free_pieces(z, pfn, order, to_tail)
    settle(z, policy, pfn)


@inline_kernel
def covering_order(z, pfn, order):
    """Order of the free block that covers the block (pfn, order), or -1."""
    for high in range(order, MAX_ORDER + 1):
        head = pfn & ~((1 << high) - 1)
        if head >= z.geo.lo and is_free_buddy(z, head, high):
            return high
    return -1


@kernel
def take_exact(z, policy, pfn, order, high, mt):
    """Take the block (pfn, order) out of the free block of order `high` that covers it.

    Each half that is not needed goes to the head of its list, as when the kernel breaks a block down.
    """
    head = pfn & ~((1 << high) - 1)
    of_list = free_mt(state_at(z.page, head))
    del_from_free_list(z, head, high, of_list)
    while high > order:
        high -= 1
        half = 1 << high
        if pfn & half:
            add_to_free_list(z, head, high, of_list, False)
            head += half
        else:
            add_to_free_list(z, head + half, high, of_list, False)
    account_pages(z, pfn, -(1 << order))
    add_used(z, pfn, order, mt)
    settle(z, policy, pfn)


@kernel
def forget_live(z, policy, place, pfn, order):
    """Free what is still held under recorded pages that are handed out again; number of pages."""
    nr = 0
    for i in range(pfn, pfn + (1 << order)):
        if place[i] >= 0:
            release_pages(z, policy, np.int64(place[i]), 0, False)
        if place[i] >= 0 or place[i] == UNSERVED:
            place[i] = GIVEN_BACK
            nr += 1
    return nr


@inline_kernel
def note_pair(place, pfn, is_alloc, counts):
    """Whether the event before this one is missing: a page is handed out and given back in turn."""
    if place[pfn] == NOT_SEEN:
        return
    counts[N_PAIRS] += 1
    is_held = place[pfn] >= 0 or place[pfn] == UNSERVED
    if is_held == is_alloc:
        counts[N_MISSED] += 1


@inline_kernel
def is_one_block(z, place, pfn, order):
    """Whether recorded pages lie together, aligned and of one type, on the simulated machine."""
    first = np.int64(place[pfn])
    if first < 0 or first & ((1 << order) - 1):
        return False
    for i in range(1, 1 << order):
        if np.int64(place[pfn + i]) != first + i or state_at(z.page, first + i) != state_at(z.page, first):
            return False
    return True


@kernel
def free_block_of_caller(z, policy, cpu, pfn, order, to_tail):
    """Free a held block as its caller would: to the CPU's lists, or past them."""
    if z.geo.nr_cpus > 0 and is_pcp_order(order):
        mt = code_of(state_at(z.page, pfn))
        for i in range(pfn, pfn + (1 << order)):
            set_tail(z.page, i)
        pcp_free(z, policy, cpu, pfn, order, mt)
    else:
        release_pages(z, policy, pfn, order, to_tail)


@kernel
def replay_free(z, policy, row, place, counts):
    """One recorded free."""
    pfn, order = row[X_PFN], row[X_ORDER]
    to_tail = row[X_OP] == PAGE_FREE_TO_TAIL
    counts[N_FREES] += 1
    note_pair(place, pfn, False, counts)
    if is_one_block(z, place, pfn, order):
        free_block_of_caller(z, policy, row[X_CPU], np.int64(place[pfn]), order, to_tail)
        place[pfn : pfn + (1 << order)] = GIVEN_BACK
        return
    known = 0
    for i in range(pfn, pfn + (1 << order)):
        if place[i] >= 0:
            known += 1
            free_block_of_caller(z, policy, row[X_CPU], np.int64(place[i]), 0, to_tail)
        elif place[i] != UNSERVED:
            counts[N_UNKNOWN_PAGES] += 1
        place[i] = GIVEN_BACK
    counts[N_SPLIT] += 1 if known else 0


@kernel
def replay_alloc(z, policy, row, place, counts, mode):
    """One recorded allocation."""
    pfn, order = row[X_PFN], row[X_ORDER]
    mt = row[X_MT] if row[X_MT] < NR_REQUEST_MT else np.int64(UNMOVABLE)
    counts[N_ALLOCS] += 1
    note_pair(place, pfn, True, counts)
    counts[N_LIVE_PAGES] += forget_live(z, policy, place, pfn, order)
    if z.geo.nr_cpus > 0 and is_pcp_order(order):
        found = pcp_alloc(z, policy, row[X_CPU], order, mt, 0)
    else:
        found = rmqueue_in_mode(z, policy, order, mt, 0, mode)
    if found < 0 and z.geo.nr_cpus > 0:
        # As a request in trouble does before it gives up (__alloc_pages_direct_reclaim).
        for cpu in range(z.geo.nr_cpus):
            drain_all(z, policy, cpu)
        found = rmqueue_in_mode(z, policy, order, mt, 0, MODE_NORMAL)
    if found < 0:
        counts[N_FAILED] += 1
        place[pfn : pfn + (1 << order)] = UNSERVED
        return
    hold_pages(z, found, order, mt)
    for i in range(1 << order):
        place[pfn + i] = found + i


@entry_kernel
def replay_page_events(z, policy, rows, place, counts):
    """Repeat recorded rows on a zone.

    Parameters
    ----------
    z, policy
        The zone, with per-CPU lists for what callers did, without for what the lists did.
    rows : ndarray
        int64 [n, NR_PAGE_ROW_FIELDS].
    place : ndarray
        int32 [pages], where each recorded page is on this machine; NOT_SEEN, GIVEN_BACK, UNSERVED: nowhere.
    counts : ndarray
        int64 [NR_REPLAY_COUNTS], added to.
    """
    for i in range(rows.shape[0]):
        mode = z.ev[Ev.MODE] if rows[i, X_BULK] else np.int64(MODE_NORMAL)
        begin_event(z, i)
        if rows[i, X_OP] == PAGE_ALLOC:
            replay_alloc(z, policy, rows[i], place, counts, mode)
        else:
            replay_free(z, policy, rows[i], place, counts)


@entry_kernel
def hold_start(z, place, kinds):
    """Hold pages from the start: `kinds` is int8 [pages], the type each was asked for as, -1 where none."""
    for pfn in range(z.geo.lo, z.geo.hi):
        if kinds[pfn] >= 0:
            mt = np.int64(kinds[pfn])
            add_used(z, pfn, 0, mt)
            hold_pages(z, pfn, 0, mt)
            place[pfn] = pfn


@entry_kernel
def hold_in_slots(z, pages, kinds, owners, nr_slots):
    """Let owners hold single pages from the start, each in the owner's next slot.

    Parameters
    ----------
    pages : ndarray
        int64 [n], in the order of the slots.
    kinds : ndarray
        int8 [pages of the zone], the type that each was asked for as.
    owners : ndarray
        int8 [pages of the zone].
    nr_slots : ndarray
        int64 [owners], slots that each owner has filled; added to.
    """
    for i in range(pages.shape[0]):
        pfn = pages[i]
        mt, owner = np.int64(kinds[pfn]), np.int64(owners[pfn])
        add_used(z, pfn, 0, mt)
        hand_out(z, pfn, 0, mt, owner, nr_slots[owner])
        nr_slots[owner] += 1


@entry_kernel
def hold_blocks(z, heads, order, mt, owner, base):
    """Let an owner hold blocks of an order from the start, in its slots from `base` on: int64 [n] heads."""
    for i in range(heads.shape[0]):
        add_used(z, heads[i], order, mt)
        hand_out(z, heads[i], order, mt, owner, base + i)


@entry_kernel
def list_start(z, blocks, labels):
    """Put free blocks on the lists in the order given: int64 [n, 2] of page and order, head to tail.

    `labels` is int8 [pageblocks].
    """
    for pb in range(labels.shape[0]):
        z.pb.label[pb] = labels[pb]
        if labels[pb] == HIGHATOMIC:
            set_content(z, pb, HIGHATOMIC)
            z.count[C.RESERVED_HIGHATOMIC] += PB_PAGES
    for i in range(blocks.shape[0]):
        pfn, order = blocks[i, 0], blocks[i, 1]
        account_pages(z, pfn, 1 << order)
        add_to_free_list(z, pfn, order, np.int64(labels[pfn >> PB_ORDER]), True)
