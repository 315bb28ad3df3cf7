"""The only writer of the classic per-CPU lists: their strands, where they begin, and their lengths.

A list is dealt out to NR_STRANDS circular strands: the block at place p is on strand p modulo NR_STRANDS. The
two links of a block so lead to those NR_STRANDS places before and behind it. Whoever takes block after block
from one end knows, at each, the one that comes NR_STRANDS later, and asks for its record; in one chain the
next address would come only with the last miss. A list can have any length and needs no memory of its own.

The length of a list says where its strands end: the outer links of their first and last blocks mean nothing,
so that taking a block writes to none that rests. A strand can only be empty while the list is shorter than
NR_STRANDS.

A block on a list stays accounted as in use under the type that it last had; the state of its head says
which. refill.py and pcp.py decide which blocks come and go.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    COSTLY_ORDER,
    MOVABLE,
    NR_LOWORDER_PCP_LISTS,
    NR_PCP_LISTS,
    NR_REQUEST_MT,
    NR_STRANDS,
    PB_ORDER,
    C,
    Pc,
)
from spbfast.jit.decorators import inline_kernel, prefetch
from spbfast.model.state.page_state import (
    next_of,
    pcp_state,
    prev_of,
    put_next,
    put_prev,
    set_next,
    set_record,
)


@inline_kernel
def is_pcp_order(order):
    """Whether blocks of this order rest on per-CPU lists (pcp_allowed_order)."""
    return order <= COSTLY_ORDER or order == PB_ORDER


@inline_kernel
def pcp_list(order, mt):
    """Index of the list of (order, type) (order_to_pindex)."""
    if order == PB_ORDER:
        return NR_LOWORDER_PCP_LISTS + 1 if mt == MOVABLE else NR_LOWORDER_PCP_LISTS
    return NR_REQUEST_MT * order + mt


@inline_kernel
def list_order(i):
    """Order of the blocks on a list (pindex_to_order)."""
    return PB_ORDER if i >= NR_LOWORDER_PCP_LISTS else i // NR_REQUEST_MT


@inline_kernel
def strand_at(z, lst, place):
    """Link index of the head of the strand of a list that has the block of this place."""
    return z.geo.pcp0 + lst * NR_STRANDS + (place & (NR_STRANDS - 1))


@inline_kernel
def count_pcp_pages(z, cpu, pages):
    """`pages` more (or fewer) on a CPU's lists."""
    z.pcp.cpu[cpu, Pc.COUNT] += pages
    z.count[C.PCP_PAGES] += pages


@inline_kernel
def count_blocks(z, cpu, i, nr, order):
    """`nr` more blocks on a list."""
    z.pcp.nr[cpu * NR_PCP_LISTS + i] += nr
    count_pcp_pages(z, cpu, nr << order)


@inline_kernel
def move_first(z, lst, places):
    """The list begins so many places further on from now on."""
    z.pcp.first[lst] = (np.int64(z.pcp.first[lst]) + places) & (NR_STRANDS - 1)


@inline_kernel
def push_pcp(z, cpu, i, pfn, state):
    """Put a block, which gets this state, on a list's head; its pages are still to be counted."""
    lst = cpu * NR_PCP_LISTS + i
    move_first(z, lst, -1)
    head = strand_at(z, lst, np.int64(z.pcp.first[lst]))
    after = next_of(z.page, head) if z.pcp.nr[lst] >= NR_STRANDS else head
    set_record(z.page, pfn, state, after, head)
    put_prev(z.page, after, pfn, state)
    put_next(z.page, head, pfn, state)
    z.pcp.nr[lst] += 1


@inline_kernel
def peek_pcp(z, cpu, i):
    """The head block of a list, -1 if it is empty."""
    lst = cpu * NR_PCP_LISTS + i
    if z.pcp.nr[lst] == 0:
        return np.int64(-1)
    return next_of(z.page, strand_at(z, lst, np.int64(z.pcp.first[lst])))


@inline_kernel
def pop_pcp(z, cpu, i, pfn):
    """Take a list's head block `pfn` off it; its record stays, its pages are still to be counted."""
    lst = cpu * NR_PCP_LISTS + i
    after = next_of(z.page, pfn)
    prefetch(z.page.word, after)
    put_next(z.page, strand_at(z, lst, np.int64(z.pcp.first[lst])), after, 0)
    move_first(z, lst, 1)
    z.pcp.nr[lst] -= 1


@inline_kernel
def add_to_pcp(z, cpu, i, pfn, order, mt):
    """Put a block that was in use as mt on a list's head."""
    push_pcp(z, cpu, i, pfn, pcp_state(order, mt))
    count_pcp_pages(z, cpu, 1 << order)


@inline_kernel
def take_pcp_head(z, cpu, i, order):
    """Take the head block off a list that is not empty; the block's record stays."""
    pfn = peek_pcp(z, cpu, i)
    pop_pcp(z, cpu, i, pfn)
    count_pcp_pages(z, cpu, -(1 << order))
    return pfn


@inline_kernel
def take_pcp_tail(z, cpu, i, order):
    """Take the tail block off a list that is not empty; the block's record stays."""
    lst = cpu * NR_PCP_LISTS + i
    strand = strand_at(z, lst, np.int64(z.pcp.first[lst]) + z.pcp.nr[lst] - 1)
    pfn = prev_of(z.page, strand)
    before = prev_of(z.page, pfn)
    prefetch(z.page.word, before)
    put_prev(z.page, strand, before, 0)
    z.pcp.nr[lst] -= 1
    count_pcp_pages(z, cpu, -(1 << order))
    return pfn


@inline_kernel
def link_behind(z, lst, place, pfn, state):
    """Put a block, which gets this state, `place` behind a list's head, where the list ends.

    Whoever links a run calls `count_blocks` for the whole of it.
    """
    strand = strand_at(z, lst, np.int64(z.pcp.first[lst]) + place)
    before = prev_of(z.page, strand) if place >= NR_STRANDS else strand
    set_record(z.page, pfn, state, strand, before)
    set_next(z.page, before, pfn)
    put_prev(z.page, strand, pfn, 0)
