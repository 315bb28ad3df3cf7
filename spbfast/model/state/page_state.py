"""The record of a page: the one place that knows its bits.

A record is one word of 64 bits: the page's state and two links. Owns their encoding and the kernels that read
and write them; all other files go through these helpers, which widen on load.

Bits 0 to 3 of a state are the order of the block that the page heads (15: it heads none), bits 4 to 6 a code,
and the sign says that the block is free. A free block's code is the migratetype of its list; a used block's
code says who may move it. The links of a free block's head are its neighbours on the list; those of a used
one are its owner and the owner's slot (slots.py leads back). Links of a page that heads nothing mean nothing.

The low half of a word holds the next link and the order, the high half the previous link and the code with
the sign. Where a neighbour's state is known, as on a free list, its half is written without being read
(`put_`): a store to a line that is still on its way doesn't wait. `set_` reads the half and keeps the state.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spbfast.constants import COSTLY_ORDER, MAX_ORDER, MOVABLE, NR_REQUEST_MT, PB_ORDER
from spbfast.jit.decorators import inline_kernel
from spbfast.model.state.layout import Page

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

LINK_BITS = 28
MAX_LINKS = 1 << LINK_BITS  # pages and list heads of a zone, or slots of an owner
NEXT_SHIFT = 4
PREV_SHIFT = 32
HIGH_SHIFT = PREV_SHIFT + LINK_BITS  # of the code in a word

assert STATE_TAIL & ORDER_NIBBLE > MAX_ORDER


@inline_kernel
def state_at(page, pfn):
    """State of a page."""
    return np.int64(page.high[pfn]) >> LINK_BITS << CODE_SHIFT | np.int64(page.low[pfn]) & ORDER_NIBBLE


@inline_kernel
def next_of(page, i):
    """Next link of a page or list head."""
    return np.int64(page.low[i]) >> NEXT_SHIFT


@inline_kernel
def prev_of(page, i):
    """Previous link of a page or list head."""
    return np.int64(page.high[i]) & (MAX_LINKS - 1)


@inline_kernel
def owner_at(page, pfn):
    """Owner of the used block that a page heads."""
    return next_of(page, pfn)


@inline_kernel
def slot_at(page, pfn):
    """The owner's slot of the used block that a page heads."""
    return prev_of(page, pfn)


@inline_kernel
def set_record(page, i, state, after, before):
    """Write state and links at once."""
    page.word[i] = (
        state >> CODE_SHIFT << HIGH_SHIFT | before << PREV_SHIFT | after << NEXT_SHIFT | state & ORDER_NIBBLE
    )


@inline_kernel
def set_used(page, pfn, state, owner, slot):
    """The page heads a block with this state from now on, which an owner has in a slot."""
    set_record(page, pfn, state, owner, slot)


@inline_kernel
def set_tail(page, pfn):
    """The page heads nothing any more."""
    page.word[pfn] = STATE_TAIL


@inline_kernel
def set_state(page, pfn, state):
    """Change the state of a block's head; its links stay."""
    set_record(page, pfn, state, next_of(page, pfn), prev_of(page, pfn))


@inline_kernel
def put_next(page, i, link, state):
    """Write the next link of what is in this state, or of a list head."""
    page.low[i] = link << NEXT_SHIFT | state & ORDER_NIBBLE


@inline_kernel
def put_prev(page, i, link, state):
    """Write the previous link of what is in this state, or of a list head."""
    page.high[i] = state >> CODE_SHIFT << LINK_BITS | link


@inline_kernel
def set_next(page, i, link):
    """Write the next link of a block's head or a list head; its state stays."""
    page.low[i] = link << NEXT_SHIFT | np.int64(page.low[i]) & ORDER_NIBBLE


@inline_kernel
def set_prev(page, i, link):
    """Write the previous link of a block's head or a list head; its state stays."""
    page.high[i] = np.int64(page.high[i]) >> LINK_BITS << LINK_BITS | link


def make_page(word: np.ndarray) -> Page:
    """Records that lie in an int64 array, with views of their halves."""
    return Page(word, word.view(np.uint32)[0::2], word.view(np.int32)[1::2])


def states_of(page: Page, at: Any = slice(None)) -> np.ndarray:
    """States of some pages; int64 [number of pages]."""
    return page.high[at].astype(np.int64) >> LINK_BITS << CODE_SHIFT | page.low[at] & ORDER_NIBBLE  # type: ignore[no-any-return]


def links_of(page: Page, at: Any = slice(None)) -> tuple[np.ndarray, np.ndarray]:
    """Next and previous links of some pages or list heads; two of int64 [number of pages]."""
    return page.low[at].astype(np.int64) >> NEXT_SHIFT, page.high[at].astype(np.int64) & (MAX_LINKS - 1)


def record_words(state: int, links: Any) -> Any:
    """Words of entries in one state whose links both lead to `links`; int64."""
    high = state >> CODE_SHIFT << LINK_BITS | links
    return high << PREV_SHIFT | links << NEXT_SHIFT | state & ORDER_NIBBLE


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
