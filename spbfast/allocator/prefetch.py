"""Two-stage prefetching of page records: the main lever on big machines.

A loop that knows its next events calls `prefetch_slot` some 32 events ahead and `prefetch_page` 16
ahead: 98 ns a page event became 32 in the prototype (`spbfast bench`). Never reads anything that
decides a result.
"""

from __future__ import annotations

import numpy as np

from spbfast._jit import inline_kernel, prefetch
from spbfast.constants import PB_ORDER

SLOT_AHEAD = 32
PAGE_AHEAD = 16


@inline_kernel
def prefetch_slot(slots, owner, slot):
    """Hint that the entry of an owner's slot is needed soon."""
    prefetch(slots.pfn, slots.base[owner] + slot)


@inline_kernel
def prefetch_page(page, pfn):
    """Hint that the links and state of page `pfn` are needed soon; any index is safe."""
    prefetch(page.next, pfn)
    prefetch(page.prev, pfn)
    prefetch(page.state, pfn)


@inline_kernel
def prefetch_pb(pb, pfn):
    """Hint that the counts of a page's pageblock are needed soon; they outgrow a core's cache at 128 GiB."""
    i = pfn >> PB_ORDER
    prefetch(pb.used, i * pb.used.shape[1])
    prefetch(pb.label, i)
    prefetch(pb.bits, i)


@inline_kernel
def prefetch_list_head(page, geo, lst):
    """Hint that the block at a list's head, and the one behind it, are needed soon."""
    first = np.int64(page.next[geo.list0 + lst])
    prefetch(page.state, first)
    prefetch(page.next, first)
    prefetch(page.prev, np.int64(page.next[first]))
