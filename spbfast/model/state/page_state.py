"""The record of a page: the one place that knows its bits.

Owns the encoding of `page.state`, one int8 a page, and the kernels that read and write it. Bits 0 to 3 are
the order of the block that the page heads (15: it heads none), bits 4 to 6 a code, and the sign says that the
block is free. A free block's code is the migratetype of its list; a used block's code says who may move it.

All other files read and write states through these helpers, which widen on load. The links of a block's head
(layout.py) and slots.py tell who holds it.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import COSTLY_ORDER, MAX_ORDER, MOVABLE, NR_REQUEST_MT, PB_ORDER
from spbfast.jit.decorators import inline_kernel

CODE_SHIFT = 4
ORDER_NIBBLE = 0x0F
CODE_MASK = 0x07
FREE_BIT = 0x80
FREE_ORDER_MASK = FREE_BIT | ORDER_NIBBLE
CODE_UNMOVABLE = 0
CODE_MOVABLE = 1  # on the LRU: counts as movable
CODE_RECLAIMABLE = 2
CODE_PINNED = 3  # asked for as movable, cannot be migrated
CODE_CONTIG = 4  # part of a contiguous allocation
CODE_OFF_LRU = 5  # movable, its bulk call has not returned yet
CODE_HOLE = 6  # outside the zone or reserved; only with the low nibble of a page that heads nothing
CODE_OWNED = 6  # at rest with the CPU that owns its pageblock, accounted as that pageblock's label
CODE_PCP = 7  # on a per-CPU list; low nibble: order index * 3 + type it is accounted as
PCP_PB_INDEX = COSTLY_ORDER + 1  # the order index of a whole pageblock on a per-CPU list
STATE_FREE = -128
STATE_TAIL = ORDER_NIBBLE
STATE_HOLE = CODE_HOLE << CODE_SHIFT | ORDER_NIBBLE

assert STATE_TAIL & ORDER_NIBBLE > MAX_ORDER


@inline_kernel
def state_at(page, pfn):
    """State of a page."""
    return np.int64(page.state[pfn])


@inline_kernel
def set_head(page, pfn, state):
    """The page heads a block with this state from now on."""
    page.state[pfn] = state


@inline_kernel
def set_tail(page, pfn):
    """The page heads nothing any more."""
    page.state[pfn] = STATE_TAIL


@inline_kernel
def free_state(order, mt):
    """State of the head of a block on the free list (order, mt)."""
    return STATE_FREE | mt << CODE_SHIFT | order


@inline_kernel
def used_state(code, order):
    """State of the head of a block that is not free."""
    return code << CODE_SHIFT | order


@inline_kernel
def pcp_state(order, mt):
    """State of the head of a block on a per-CPU list, accounted as type mt."""
    index = PCP_PB_INDEX if order == PB_ORDER else order
    return CODE_PCP << CODE_SHIFT | (index * NR_REQUEST_MT + mt)


@inline_kernel
def is_free_head(state):
    """Whether the page heads a free block."""
    return state < 0


@inline_kernel
def is_free_of_order(state, order):
    """Whether the page heads a free block of exactly this order; holes never do."""
    return state & FREE_ORDER_MASK == FREE_BIT | order


@inline_kernel
def order_of(state):
    """Order of the block of a head that is not on a per-CPU list; ORDER_NIBBLE for a page that heads none."""
    return state & ORDER_NIBBLE


@inline_kernel
def pcp_order(state):
    """Order of a block on a per-CPU list, from its head's state."""
    index = (state & ORDER_NIBBLE) // NR_REQUEST_MT
    return PB_ORDER if index == PCP_PB_INDEX else index


@inline_kernel
def block_order(state):
    """Order of the block that a page with this state heads; -1 for a page that heads none."""
    if state & ORDER_NIBBLE == ORDER_NIBBLE:
        return -1
    return pcp_order(state) if state >> CODE_SHIFT == CODE_PCP else state & ORDER_NIBBLE


@inline_kernel
def code_of(state):
    """Code of a head that is not free."""
    return state >> CODE_SHIFT


@inline_kernel
def free_mt(state):
    """Migratetype of the list that a free block is on."""
    return state >> CODE_SHIFT & CODE_MASK


@inline_kernel
def pcp_mt(state):
    """Type that a block on a per-CPU list is accounted as."""
    return (state & ORDER_NIBBLE) % NR_REQUEST_MT


@inline_kernel
def mt_of_code(code):
    """Type that a block with this code was asked for as."""
    return MOVABLE if code == CODE_PINNED or code == CODE_OFF_LRU else code
