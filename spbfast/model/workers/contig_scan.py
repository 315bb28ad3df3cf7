"""1 GiB pages where the policy has no superpageblocks: the kernel's range scan (alloc_contig_pages).

Model: aligned ranges are tried by address; one with an unmovable or reclaimable page in use is passed over
(has_unmovable_pages), the others are isolated and emptied by migration, pinned pages or not, and the first
that empties is taken. A range that does not keeps what was not moved, and its free pages come back.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    LIST_ISOLATED,
    MAX_ORDER,
    MOVABLE,
    PB_ORDER,
    PB_PAGES,
    RECLAIMABLE,
    UNMOVABLE,
    Ev,
    Outcome,
)
from spbfast.jit.decorators import bit_length, ctz, inline_kernel, kernel
from spbfast.model.allocator.buddy import free_piece
from spbfast.model.allocator.choose import count_visits
from spbfast.model.allocator.free import hand_out
from spbfast.model.allocator.freelist import del_from_free_list
from spbfast.model.allocator.migrate import give_new_place, is_busy_thrice, take_target
from spbfast.model.allocator.owner import drop_owner
from spbfast.model.allocator.pfn import first_page
from spbfast.model.allocator.settle import settle_spb
from spbfast.model.allocator.spb import account_pages, clear_all_content, del_used, move_spb
from spbfast.model.allocator.split import may_split, split_to_move
from spbfast.model.state.page_state import (
    CODE_CONTIG,
    CODE_MOVABLE,
    CODE_PINNED,
    block_order,
    code_of,
    is_free_head,
    set_tail,
    state_at,
)


@kernel
def is_emptiable(z, spb):
    """Whether a full-length superpageblock that nobody holds has only movable pages in use."""
    if not z.spb.full_length[spb] or z.spb.list[spb] == LIST_ISOLATED:
        return False
    nr_pb = 1 << (z.geo.spb_shift - PB_ORDER)
    for pb in range(spb * nr_pb, (spb + 1) * nr_pb):
        if z.pb.used[pb, UNMOVABLE] or z.pb.used[pb, RECLAIMABLE]:
            return False
    return True


@kernel
def first_emptiable(z, spb):
    """First superpageblock from `spb` on that only has movable pages in use, or -1."""
    for i in range(spb, z.geo.nr_spb):
        if is_emptiable(z, i):
            return np.int64(i)
    return np.int64(-1)


@kernel
def isolate_free(z, start, end):
    """Take all free blocks of a range off the lists: their pages belong to no block for now."""
    pfn = start
    while pfn < end:
        state = state_at(z.page, pfn)
        order = block_order(state)
        if order >= 0 and is_free_head(state):
            del_from_free_list(z, pfn, order, np.int64(z.pb.label[pfn >> PB_ORDER]))
            account_pages(z, pfn, -(1 << order))
        pfn += 1 if order < 0 else 1 << order


@kernel
def empty_isolated(z, policy, start, end):
    """Migrate everything out of an isolated range; 1 if it all went. What it leaves stays off the lists."""
    pfn = start
    while pfn < end:
        state = state_at(z.page, pfn)
        order = block_order(state)
        if order < 0:
            pfn += 1
            continue
        if code_of(state) == CODE_PINNED:
            z.ev[Ev.PINNED_MOVES] += 1
            return 0
        if code_of(state) != CODE_MOVABLE or is_busy_thrice(z, pfn):
            return 0
        new = take_target(z, policy, order, pfn)
        if new < 0 and may_split(z, pfn, order):
            split_to_move(z, pfn, order)
            continue
        if new < 0:
            z.ev[Ev.FAILED_MOVES] += 1
            return 0
        give_new_place(z, pfn, order, new)
        set_tail(z.page, pfn)
        for piece in range(pfn, pfn + (1 << order), PB_PAGES):
            del_used(z, policy, piece, min(order, PB_ORDER), MOVABLE)
        pfn += 1 << order
    return 1


@inline_kernel
def release_run(z, start, end):
    """Free the pages start..end-1 in blocks as large as alignment and length allow."""
    while start < end:
        order = min(bit_length(end - start) - 1, PB_ORDER)
        if start > 0:
            order = min(order, ctz(start))
        free_piece(z, start, order, False)
        start += 1 << order


@kernel
def undo_isolation(z, policy, start, end):
    """Return the pages of a range that are in no block to the lists (undo_isolate_page_range)."""
    pfn = start
    run = start
    while pfn < end:
        order = block_order(state_at(z.page, pfn))
        if order < 0:
            pfn += 1
            # A pageblock becomes wholly free as one, not merged from a neighbour's run.
            if pfn & (PB_PAGES - 1) == 0:
                release_run(z, run, pfn)
                run = pfn
            continue
        release_run(z, run, pfn)
        pfn += 1 << order
        run = pfn
    release_run(z, run, end)
    z.ev[Ev.DIRTY] = 0
    settle_spb(z, policy, start >> z.geo.spb_shift)


@kernel
def hold_range(z, start, end, owner, slot):
    """Make an owner hold an isolated range that is wholly empty."""
    for pb in range(start >> PB_ORDER, end >> PB_ORDER):
        clear_all_content(z, pb)
        if z.pb.owner[pb]:
            drop_owner(z, pb)
    for pfn in range(start, end, 1 << MAX_ORDER):
        hand_out(z, pfn, MAX_ORDER, CODE_CONTIG, owner, slot)
    hand_out(z, start, MAX_ORDER, CODE_CONTIG, owner, slot)
    move_spb(z, start >> z.geo.spb_shift, LIST_ISOLATED)
    z.ev[Ev.DIRTY] = 0
    return start


@kernel
def alloc_contig_by_scan(z, policy, owner, slot):
    """The first aligned range of a superpageblock's length that can be emptied, or -1."""
    spb = first_emptiable(z, 0)
    while spb >= 0:
        count_visits(z, Outcome.CONTIG_EMPTIED, 1, Ev.VISITED)
        moved = z.ev[Ev.MOVED_BLOCKS]
        start = first_page(z.geo, spb)
        end = start + (1 << z.geo.spb_shift)
        isolate_free(z, start, end)
        if empty_isolated(z, policy, start, end):
            z.ev[Ev.OUTCOME] = (
                Outcome.CONTIG_EMPTIED if z.ev[Ev.MOVED_BLOCKS] > moved else Outcome.CONTIG_EMPTY
            )
            return hold_range(z, start, end, owner, slot)
        undo_isolation(z, policy, start, end)
        if z.ev[Ev.FAILED_MOVES] > 0:
            break  # without room for what moves the next range would fail like this one
        spb = first_emptiable(z, spb + 1)
    return np.int64(-1)
