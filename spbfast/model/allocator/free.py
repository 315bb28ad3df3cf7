"""Handing blocks to owners and taking them back.

Owns the meaning of a block in use: its head's state is code and order, its links are owner and slot,
and `slots` leads back to it. Frees go through `free_block`, which undoes the accounting of rmqueue.py.
"""

from __future__ import annotations

from spbfast.constants import PB_ORDER, C, P
from spbfast.jit.decorators import bit_length, ctz, inline_kernel, kernel
from spbfast.model.allocator.buddy import free_one_page, free_piece
from spbfast.model.allocator.pcp import free_to_owner
from spbfast.model.allocator.record import trace_free
from spbfast.model.allocator.settle import settle
from spbfast.model.allocator.spb import del_used
from spbfast.model.state.page_state import (
    CODE_PINNED,
    code_of,
    mt_of_code,
    order_of,
    set_tail,
    set_used,
    state_at,
    used_state,
)
from spbfast.model.state.slots import EMPTY_SLOT, SWAPPED, block_in, put_block
from spbfast.model.state.trace import Th


@inline_kernel
def hand_out(z, pfn, order, code, owner, slot):
    """Make `owner` hold the block in `slot`."""
    set_used(z.page, pfn, used_state(code, order), owner, slot)
    put_block(z.slots, z.slots.base[owner] + slot, pfn)
    if code == CODE_PINNED:
        z.spb.pinned[pfn >> z.geo.spb_shift] += 1 << order


@inline_kernel
def note_gone(z, pfn, order, code):
    """A block in use is about to be freed: it pins its superpageblock no longer."""
    if code == CODE_PINNED:
        z.spb.pinned[pfn >> z.geo.spb_shift] -= 1 << order


@inline_kernel
def slot_pfn(z, owner, slot):
    """Page index of the block in an owner's slot, negative if there is none (slots.py)."""
    return block_in(z.slots, z.slots.base[owner] + slot)


@kernel
def free_max_order(z, policy, pfn, mt):
    """Free an order-10 block: two pieces, low one first, one settling."""
    for piece in (pfn, pfn + (1 << PB_ORDER)):
        del_used(z, policy, piece, PB_ORDER, mt)
        free_piece(z, piece, PB_ORDER, False)
    settle(z, policy, pfn)


@inline_kernel
def free_block(z, policy, pfn, order, mt):
    """Return a block of type mt to the free lists, or its pageblock's owner; its head is no longer one."""
    if policy[P.pcp_owned_pageblocks] and free_to_owner(z, policy, pfn, order, mt):
        return
    set_tail(z.page, pfn)
    if order > PB_ORDER:
        free_max_order(z, policy, pfn, mt)
        return
    del_used(z, policy, pfn, order, mt)
    free_one_page(z, pfn, order, False)
    settle(z, policy, pfn)


@kernel
def free_run(z, policy, pfn, end, mt):
    """Return pages pfn..end-1, held as mt in blocks that head nothing any more, to the free lists.

    Ascending blocks in an aligned one merge only with each other until the last, so that each largest
    aligned block is freed at once: lists and counts end as block by block. No pageblock may have an owner.
    """
    while pfn < end:
        order = min(ctz(pfn | (1 << PB_ORDER)), bit_length(end - pfn) - 1)
        del_used(z, policy, pfn, order, mt)
        free_piece(z, pfn, order, False)
        settle(z, policy, pfn)
        pfn += 1 << order


@inline_kernel
def take_slot(z, owner, slot):
    """Empty an owner's slot; the block that was in it, negative if there was none. Swap is given back."""
    i = z.slots.base[owner] + slot
    pfn = block_in(z.slots, i)
    put_block(z.slots, i, EMPTY_SLOT)
    if pfn == SWAPPED:
        z.count[C.SWAP_PAGES] -= 1
    return pfn


@inline_kernel
def free_held(z, policy, pfn):
    """Free the in-use block headed by `pfn` whose slot was emptied."""
    state = state_at(z.page, pfn)
    note_gone(z, pfn, order_of(state), code_of(state))
    free_block(z, policy, pfn, order_of(state), mt_of_code(code_of(state)))


@kernel
def free_slot(z, policy, owner, slot):
    """Free whatever block is in an owner's slot and empty it; 1 if there was one."""
    pfn = take_slot(z, owner, slot)
    if pfn < 0:
        return 0
    if z.trace.head[Th.ON]:
        trace_free(z, pfn, order_of(state_at(z.page, pfn)), 0, 0)
    free_held(z, policy, pfn)
    return 1
