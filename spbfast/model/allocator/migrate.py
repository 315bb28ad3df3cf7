"""Moving in-use movable blocks: where they may go, and one pageblock's worth of moves.

Owns the choice of migration targets (never the source, never tainted) and the hand-over of owner and
slot to the new place. Which pageblocks are worth it, and what it costs, belongs to workers/.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import CLEAN, EMPTY, MAX_ORDER, MOVABLE, PB_ORDER, PB_PAGES, Ev, Noise, P
from spbfast.jit.decorators import ctz, inline_kernel, kernel
from spbfast.model.allocator.buddy import take_block, take_first
from spbfast.model.allocator.choose import find_next
from spbfast.model.allocator.free import free_block, free_run, hand_out
from spbfast.model.allocator.freelist import has_block
from spbfast.model.allocator.pfn import list_of, spb_of
from spbfast.model.allocator.pick import BOTH, FRAGMENTS, WHOLE, find_own_order, order_mask
from spbfast.model.allocator.prefetch import prefetch_slot
from spbfast.model.allocator.record import record_move, trace_move
from spbfast.model.allocator.resting import release_pageblock
from spbfast.model.allocator.settle import settle
from spbfast.model.allocator.spb import add_used, category_of_list, clear_content
from spbfast.model.allocator.split import may_split, split_to_move
from spbfast.model.state.node import OWNER_HOT
from spbfast.model.state.page_state import (
    CODE_MOVABLE,
    CODE_PINNED,
    ORDER_NIBBLE,
    block_order,
    code_of,
    is_free_head,
    next_of,
    order_of,
    owner_at,
    set_tail,
    slot_at,
    state_at,
)
from spbfast.model.state.trace import Th

OWNER_AHEAD = 8  # pages between asking for an owner's slot and writing it
BUSY_PASSES = 3  # migrate_pages makes up to 10
MOVES, STAYS, STOPS = range(3)


@kernel
def take_target_in_clean(z, policy, order, source, part):
    """A movable block from the fullest clean superpageblock that has one, not the source's, or -1."""
    whole_first = policy[P.whole_pageblock_first]
    place, spb = find_next(z, policy, CLEAN, MOVABLE, MOVABLE, order, 0)
    while place >= 0:
        high = find_own_order(order_mask(z, spb, MOVABLE), order, part, whole_first)
        if spb != source and high >= 0:
            return take_first(z, spb, high, order, MOVABLE)
        place, spb = find_next(z, policy, CLEAN, MOVABLE, MOVABLE, order, place + 1)
    return np.int64(-1)


@kernel
def take_target_in_empty(z, policy, order):
    """A movable block from the first empty superpageblock that has one, or -1."""
    place, spb = find_next(z, policy, EMPTY, MOVABLE, MOVABLE, max(order, PB_ORDER), 0)
    if place < 0:
        return np.int64(-1)
    for high in range(max(order, PB_ORDER), MAX_ORDER + 1):
        if has_block(z, spb, high, MOVABLE):
            return take_first(z, spb, high, order, MOVABLE)
    return np.int64(-1)


@kernel
def take_target_mainline(z, order, source):
    """A movable block outside the source's pageblock, or -1.

    Model: the first of the smallest own-type blocks. The kernel's free scanner works from the zone's end
    instead (isolate_freepages); what the migration itself freed serves neither.
    """
    orders = order_mask(z, 0, MOVABLE) >> order << order
    while orders:
        high = ctz(orders)
        orders &= orders - 1
        pfn = next_of(z.page, z.geo.list0 + list_of(0, high, MOVABLE))
        while pfn < z.geo.nr_pages:
            if pfn >> PB_ORDER != source >> PB_ORDER:
                return take_block(z, pfn, high, order, MOVABLE)
            pfn = next_of(z.page, pfn)
    return np.int64(-1)


@inline_kernel
def account_target(z, policy, pfn, order):
    """Account a block as movable, if there is one; the same block or -1."""
    if pfn >= 0:
        add_used(z, pfn, order, MOVABLE)
        settle(z, policy, pfn)
    return pfn


@kernel
def take_target(z, policy, order, source):
    """A block to migrate to, accounted as movable, or -1; `source` is the page to be moved."""
    pfn = np.int64(-1)
    if z.geo.set_mask == 0:
        pfn = take_target_mainline(z, order, source)
    elif policy[P.per_superpageblock_take]:
        pfn = take_target_in_clean(z, policy, order, spb_of(z.geo, source), BOTH)
    else:
        pfn = take_target_in_clean(z, policy, order, spb_of(z.geo, source), WHOLE)
        if pfn < 0 and order < PB_ORDER:
            pfn = take_target_in_clean(z, policy, order, spb_of(z.geo, source), FRAGMENTS)
    if pfn < 0:
        pfn = take_target_in_empty(z, policy, order)
    return account_target(z, policy, pfn, order)


@inline_kernel
def take_target_again(z, policy, order, spb, least):
    """A block to migrate to from superpageblock `spb`, if a search could find no other, or -1.

    It gave a target of order `least` for the same source, so it was the first clean one to serve that order.
    It stays the first as long as it serves: only the source gains free pages meanwhile, and what fills up
    moves behind others that cannot serve.
    """
    if spb < 0 or order < least:
        return np.int64(-1)
    high = find_own_order(order_mask(z, spb, MOVABLE), order, BOTH, policy[P.whole_pageblock_first])
    if high < 0:
        return np.int64(-1)
    return account_target(z, policy, take_first(z, spb, high, order, MOVABLE), order)


@inline_kernel
def may_take_again(z, policy, spb):
    """Whether `take_target_again` may be asked for a superpageblock that has just given a target."""
    if z.geo.set_mask == 0 or not policy[P.per_superpageblock_take]:
        return False
    return category_of_list(z.spb.list[spb]) == CLEAN


@inline_kernel
def event_mark(z):
    """Mark of the running event that fits a pageblock's int32."""
    return z.ev[Ev.SEQ] & 0x7FFF_FFFF


@kernel
def give_new_place(z, pfn, order, new):
    """Let the owner of the movable block headed by `pfn` hold its new place instead; count the move."""
    owner = owner_at(z.page, pfn)
    slot = slot_at(z.page, pfn)
    hand_out(z, new, order, CODE_MOVABLE, owner, slot)
    record_move(z, slot, new)
    if z.trace.head[Th.ON]:
        trace_move(z, pfn, order, new)
    z.ev[Ev.MOVED_PAGES] += 1 << order
    z.ev[Ev.MOVED_BLOCKS] += 1
    if order >= PB_ORDER:
        z.ev[Ev.MOVED_HUGE] += 1


@kernel
def move_block(z, policy, pfn, order, new):
    """Move a movable block to `new`, already accounted, and free its old place."""
    give_new_place(z, pfn, order, new)
    free_block(z, policy, pfn, order, MOVABLE)


@inline_kernel
def is_busy(z, pfn):
    """Whether a migration of a block in use fails this time for reasons outside the model.

    Anonymous memory is locked or has a reference too many; page cache is also under writeback or being read.
    Model: an accumulator spreads the share evenly; no share, no busy page.
    """
    share, seen = Noise.BUSY_SHARE, Noise.BUSY_ACC
    if z.noise[Noise.CACHE_APART] and owner_at(z.page, pfn) <= OWNER_HOT:
        share, seen = Noise.CACHE_SHARE, Noise.CACHE_ACC
    if z.noise[share] == 0:
        return False
    acc = z.noise[seen] + z.noise[share]
    z.noise[seen] = acc & 0xFFFF
    return acc > 0xFFFF


@kernel
def is_busy_thrice(z, pfn):
    """Whether a block stays busy over three passes of a migration that comes back to it."""
    for _ in range(BUSY_PASSES):
        if not is_busy(z, pfn):
            return False
        z.ev[Ev.BUSY_MOVES] += 1
    return True


@inline_kernel
def is_busy_for(z, pfn, comes_back):
    """`is_busy_thrice` for a migration that comes back to busy blocks, else `is_busy`."""
    return is_busy_thrice(z, pfn) if comes_back else is_busy(z, pfn)


@inline_kernel
def prefetch_owner(z, pfn):
    """Hint that the slot of the block headed by `pfn`, if it is in use, is needed soon."""
    state = state_at(z.page, pfn)
    if not is_free_head(state) and code_of(state) == CODE_MOVABLE and order_of(state) != ORDER_NIBBLE:
        prefetch_slot(z.slots, owner_at(z.page, pfn), slot_at(z.page, pfn))


@kernel
def rate_block(z, pfn, code, stop_at_pinned):
    """What a migration does with a block in use: MOVES, STAYS or, if that ends all, STOPS; counted."""
    is_pinned = code == CODE_PINNED
    if is_pinned or (code == CODE_MOVABLE and is_busy_for(z, pfn, stop_at_pinned)):
        z.ev[Ev.PINNED_MOVES if is_pinned else Ev.BUSY_MOVES] += 1
        return STOPS if stop_at_pinned else STAYS
    return MOVES if code == CODE_MOVABLE else STAYS


@kernel
def find_new_place(z, policy, pfn, order, last, least):
    """A block to migrate `pfn` to, or -1; then the arguments of the next call, `last` and `least`.

    `last` is the superpageblock that `take_target_again` may be asked for, or -1.
    """
    new = take_target_again(z, policy, order, last, least)
    if new >= 0:
        return new, last, least
    new = take_target(z, policy, order, pfn)
    again = new >= 0 and may_take_again(z, policy, spb_of(z.geo, new))
    return new, spb_of(z.geo, new) if again else np.int64(-1), order


@inline_kernel
def may_wait(policy, order):
    """Whether the old place of a moved block may be freed together with those behind it."""
    return order < PB_ORDER and not policy[P.pcp_owned_pageblocks]


@kernel
def migrate_pageblock(z, policy, pb, stop_at_pinned):
    """Migrate the movable blocks whose heads lie in a pageblock, ascending.

    The first failed move ends it; a pinned block is passed over, or ends it too. 1 if nothing stayed
    that could or should have moved. An owned pageblock is drained first and loses its owner. Old places
    are freed in runs: nobody looks for targets in the source's superpageblock (mainline: pageblock).
    """
    pfn = pb << PB_ORDER
    if policy[P.pcp_owned_pageblocks] and z.pb.owner[pb]:
        release_pageblock(z, policy, pb)
        settle(z, policy, pfn)
    end = pfn + PB_PAGES
    run = pfn  # the pages from here to `pfn` were moved and wait to be freed
    last, least = np.int64(-1), np.int64(0)
    while pfn < end:
        if pfn + OWNER_AHEAD < end:
            prefetch_owner(z, pfn + OWNER_AHEAD)
        state = state_at(z.page, pfn)
        order = block_order(state)
        is_used = order >= 0 and not is_free_head(state)
        verdict = rate_block(z, pfn, code_of(state), stop_at_pinned) if is_used else STAYS
        if verdict == MOVES:
            new, last, least = find_new_place(z, policy, pfn, order, last, least)
            if new < 0 and may_split(z, pfn, order):
                split_to_move(z, pfn, order)
                continue
            if new >= 0:
                give_new_place(z, pfn, order, new)
            else:
                z.ev[Ev.FAILED_MOVES] += 1
                verdict = STOPS
        if verdict == MOVES and may_wait(policy, order):
            set_tail(z.page, pfn)
            pfn += 1 << order
            continue
        free_run(z, policy, run, pfn, MOVABLE)
        if verdict == STOPS:
            return 0
        if verdict == MOVES:
            free_block(z, policy, pfn, order, MOVABLE)
        # A page that heads nothing: step by pages until a head.
        pfn += 1 if order < 0 else 1 << order
        run = pfn
    free_run(z, policy, run, end, MOVABLE)
    return 1


@kernel
def evacuate_pageblock(z, policy, pb):
    """Empty a pageblock of movable blocks as far as that goes; drop its content bit if it did."""
    migrate_pageblock(z, policy, pb, False)
    if z.pb.used[pb, MOVABLE] == 0:
        clear_content(z, pb, MOVABLE)
        settle(z, policy, pb << PB_ORDER)
