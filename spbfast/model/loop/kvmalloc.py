"""kvmalloc: one large block, or single pages and the page tables that map them.

Owns what a row with the class bit KVMALLOC does with its slots: the block goes into the first. If it cannot
be allocated, vmalloc's pages and then its page tables fill that slot and those behind it. The policy decides
at execution whether the large attempt gives up early (v1 37), so demand is the same either way.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import CLS_BLOCKING, CLS_KSWAPD, CLS_NORETRY, PB_PAGES, UNMOVABLE, P, Row
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.free import hand_out
from spbfast.model.requests.alloc_pages import request
from spbfast.model.state.vmstat import V

CLS_VMALLOC = CLS_BLOCKING | CLS_KSWAPD


@inline_kernel
def nr_vmalloc_pages(order):
    """Single pages that stand for a block of 2**order: its pages, and a page table for each 2 MiB."""
    pages = 1 << order
    return pages + (pages + PB_PAGES - 1) // PB_PAGES


@kernel
def get_vmalloc(w, policy, order, owner, slot, cpu):
    """Single unmovable pages into consecutive slots. Returns how many must be given back: 0 if all came."""
    nr = nr_vmalloc_pages(order)
    for i in range(nr):
        pfn = request(w, policy, 0, UNMOVABLE, CLS_VMALLOC, cpu)
        if pfn < 0:
            w.node.vm[V.KVMALLOC_FAILED] += 1
            return i
        hand_out(w.zone, pfn, 0, UNMOVABLE, owner, slot + i)
    w.node.vm[V.KVMALLOC_FALLBACK_PAGES] += nr
    return 0


@kernel
def get_kvmalloc(w, policy, row, slot):
    """One request of a row for a buffer. Returns how many pages must be given back again."""
    order = np.int64(row[Row.ORDER])
    owner = np.int64(row[Row.OWNER])
    cpu = np.int64(row[Row.CPU])
    cls = np.int64(row[Row.CLS])
    if policy[P.kvmalloc_noretry]:
        cls |= CLS_NORETRY
    pfn = request(w, policy, order, UNMOVABLE, cls, cpu)
    if pfn >= 0:
        hand_out(w.zone, pfn, order, UNMOVABLE, owner, slot)
        return 0
    w.node.vm[V.KVMALLOC_FALLBACK] += 1
    return get_vmalloc(w, policy, order, owner, slot, cpu)
