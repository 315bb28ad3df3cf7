"""The only writer of the classic per-CPU lists' links and lengths.

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
    PB_ORDER,
    C,
    Pc,
)
from spbfast.jit.decorators import inline_kernel
from spbfast.model.allocator.freelist import link_after, unlink
from spbfast.model.state.page_state import pcp_state, set_head


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
def head_of(z, cpu, i):
    """Link index of the head of a CPU's i-th list."""
    return z.geo.pcp0 + cpu * NR_PCP_LISTS + i


@inline_kernel
def set_on_pcp(z, pfn, order, mt):
    """Mark the head of a block that rests on a per-CPU list, accounted as type mt."""
    set_head(z.page, pfn, pcp_state(order, mt))


@inline_kernel
def count_blocks(z, cpu, i, nr, pages):
    """`nr` more blocks (or fewer) with `pages` pages on a list."""
    z.pcp.nr[cpu * NR_PCP_LISTS + i] += nr
    z.pcp.cpu[cpu, Pc.COUNT] += pages
    z.count[C.PCP_PAGES] += pages


@inline_kernel
def add_to_pcp(z, cpu, i, pfn, order, mt):
    """Put a block that was in use as mt on a list's head."""
    set_on_pcp(z, pfn, order, mt)
    link_after(z.page, pfn, head_of(z, cpu, i))
    count_blocks(z, cpu, i, 1, 1 << order)


@inline_kernel
def del_from_pcp(z, cpu, i, pfn, order):
    """Take a block off the list it is on; the state of its head stays."""
    unlink(z.page, pfn)
    count_blocks(z, cpu, i, -1, -(1 << order))


@inline_kernel
def link_neighbours(z, first, last, order):
    """Link blocks that follow each other in memory, for `add_run_to_pcp`, which links the ends."""
    step = 1 << order
    for pfn in range(first, last + 1, step):
        z.page.next[pfn] = pfn + step
        z.page.prev[pfn] = pfn - step


@inline_kernel
def add_run_to_pcp(z, cpu, i, first, last, nr, order):
    """Append `nr` blocks, linked with each other from `first` to `last` and marked, to a list's tail."""
    head = head_of(z, cpu, i)
    tail = np.int64(z.page.prev[head])
    z.page.next[tail] = first
    z.page.prev[first] = tail
    z.page.next[last] = head
    z.page.prev[head] = last
    count_blocks(z, cpu, i, nr, nr << order)
